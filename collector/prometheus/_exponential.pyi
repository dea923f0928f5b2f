from typing import Final

import numpy as np

from collector.model.arrays import I32, I64, U8, U64

SENT: Final[int]
LOST: Final[int]
KNOWN: Final[int]
RECORD: Final[np.dtype[np.void]]

def merge(
    wire: bytes,
    points: U8,
    table: U8,
    rows: I64,
    stream: I32,
    series: I32,
    source: I32,
    times: U64,
    is_baseline: U8,
    emitted: U64,
    last_time: U64,
    end: int,
) -> tuple[bytes, U8]: ...
