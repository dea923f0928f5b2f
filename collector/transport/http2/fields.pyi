from typing import Final, TypeAlias

__all__ = ["Fields", "headers_of"]

Pairs: TypeAlias = tuple[tuple[bytes, bytes], ...]

class Fields:
    pairs: Final[Pairs]
    def __init__(self, pairs: Pairs) -> None: ...

def headers_of(block: bytes) -> Pairs: ...
