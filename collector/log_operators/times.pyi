from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

__all__ = ["CODES", "EPOCHS", "TimeLayout", "TimeReader"]

CODES: Final[Mapping[str, int]]
EPOCHS: Final[Mapping[str, int]]

class TimeLayout:
    def __init__(self, elements: Sequence[tuple[int, bytes, int, bool, bool]]) -> None: ...

class TimeReader:
    def __init__(
        self,
        layouts: Iterable[TimeLayout],
        epoch: int,
        offset_of: Callable[[bytes | None, int], int] | None,
        fixed_offset: int | None = None,
    ) -> None: ...
    def read_bytes(self, text: bytes) -> int | None: ...
