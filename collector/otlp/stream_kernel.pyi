from collector.model.arrays import I32, I64, U8, U64, Records

def to_delta(
    wire: bytes,
    points: Records,
    rows: I64,
    slots: I32,
    is_new: U8,
    bounds: U64,
    histograms: bool,
    streams: Records,
    pool: U64,
    used: int,
    results: Records,
    deltas: U64,
    began_unix_nano: int,
    initial: int,
    now_s: float,
) -> tuple[int, int]: ...
def to_cumulative(
    wire: bytes,
    points: Records,
    rows: I64,
    slots: I32,
    is_new: U8,
    bounds: U64,
    histograms: bool,
    streams: Records,
    pool: U64,
    used: int,
    results: Records,
    deltas: U64,
    now_s: float,
) -> tuple[int, int]: ...
