from collector.model.arrays import I32, I64, U8, U64

WRITTEN: int
LEFT: int

def identity(labels: U8, name: bytes) -> U64: ...
def write_labels(
    first: I64,
    last: I64,
    key_codes: I32,
    text_codes: I32,
    key_names: I32,
    parent: I32,
    parent_first: I32,
    parent_labels: I32,
    names: U8,
    name_ends: I64,
    values: U8,
    value_ends: I64,
    metric_name: int,
    split: I32,
    is_sampled: U8,
    family: I32,
    family_names: U8,
    family_slices: I32,
    is_text: bool,
) -> tuple[bytes, I64, U64, U8]: ...
def gather(arena: U8, slices: I64) -> tuple[bytearray, I64]: ...
