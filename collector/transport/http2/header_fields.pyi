from typing import Final, TypeAlias

__all__ = ["HeaderFields", "decode_header_block"]

Pairs: TypeAlias = tuple[tuple[bytes, bytes], ...]

class HeaderFields:
    pairs: Final[Pairs]
    def __init__(self, pairs: Pairs) -> None: ...

def decode_header_block(block: bytes) -> Pairs: ...
