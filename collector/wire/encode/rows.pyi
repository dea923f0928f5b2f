from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIXED64: Final[int]
VALUE64: Final[int]
FIXED32: Final[int]
NUMBER: Final[int]
ZIGZAG: Final[int]
ID16: Final[int]
ID8: Final[int]
TEXT: Final[int]
RAW: Final[int]
PACKED64: Final[int]
PACKED_NUMBER: Final[int]

class Pool:
    def __init__(self, codes: ArrayLike, blob: bytes, offsets: ArrayLike) -> None: ...
    @property
    def blob(self) -> bytes: ...
    @property
    def codes(self) -> NDArray[np.int32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def bytes_of(self, value: int) -> bytes: ...

class MessageField:
    def __init__(self, kind: int, number: int, values: Pool | ArrayLike, extra: ArrayLike | None = None) -> None: ...
    @property
    def row_count(self) -> int: ...

def encode_rows(
    number: int, row_count: int, fields: Sequence[MessageField | None], skip_empty: bool = False
) -> Pool: ...
