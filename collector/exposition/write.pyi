from typing import Final

from numpy.typing import ArrayLike

from collector.model.arrays import I32, Records

GAUGE: Final[int]
SUM: Final[int]
HISTOGRAM: Final[int]
EXPONENTIAL_HISTOGRAM: Final[int]
SUMMARY: Final[int]
ROLE_VALUE: Final[int]
ROLE_SUM: Final[int]
ROLE_COUNT: Final[int]
ROLE_CREATED: Final[int]
ROLE_BUCKET: Final[int]

class Exemplars:
    numbers: I32
    rows: Records
    body: bytes
    def __init__(self, numbers: ArrayLike, rows: Records, body: bytes) -> None: ...

class Natives:
    def __init__(self, numbers: ArrayLike, fields: list[bytes]) -> None: ...

class Layout:
    point_count: int
    row_count: int
    sample_count: int
    def __init__(
        self,
        groups: list[tuple[bytes, bytes, int]],
        metrics: list[tuple[int, bytes, bytes, int]],
        attributes: list[bytes],
        starts: ArrayLike,
        rows: ArrayLike,
        roles: ArrayLike,
        bounds: ArrayLike,
    ) -> None: ...
    def write(
        self,
        values: ArrayLike,
        timestamps: ArrayLike,
        now_ms: int,
        exemplars: Exemplars | None = None,
        natives: Natives | None = None,
    ) -> tuple[bytes, int, int, int, int]: ...
    def write_stale(self, now_ms: int) -> tuple[bytes, int, int, int, int]: ...
