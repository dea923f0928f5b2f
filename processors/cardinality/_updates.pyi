from collector.model.arrays import F64, I32, U8, U64, Array, Indices, Records

def any_empty(rows: Array) -> bool: ...
def take_updates(
    points: Records,
    metrics: Records,
    rows: Indices,
    slots: I32,
    targets: I32,
    own_name: U8,
    sources: Records,
    accumulators: Records,
    reasons: U8,
    *,
    full_from: int,
    never_full: bool,
    ended: U64 | None,
    now_s: float,
) -> Records: ...
def add_numbers(
    points: Records,
    metrics: Records,
    updates: Records,
    sources: Records,
    accumulators: Records,
) -> int: ...
def add_totals(
    points: Records,
    updates: Records,
    accumulators: Records,
    counts: U64,
    sums: F64,
    has_sum: U8,
) -> None: ...
