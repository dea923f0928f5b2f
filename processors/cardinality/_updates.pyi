from collector.model.arrays import F64, I32, I64, U8, U64, Array, Indices, Records

def any_empty(rows: Array) -> bool: ...
def other_starts(
    points: Records,
    metrics: Records,
    rows: Indices,
    slots: I32,
    sources: Records,
    reasons: U8,
) -> I64: ...
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
    began: int,
    never_full: bool,
    ended: U64 | None,
    believed_until: int,
    now_s: float,
) -> tuple[Records, int, int, int]: ...
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
