from collector.model.arrays import I32, I64, U8, U64

def encode(
    wire: bytes,
    records: U8,
    order: I32,
    stream_offsets: I32,
    stream_arena: U8,
    stream_slices: I64,
    times: U64,
    line_arena: U8,
    line_slices: I64,
    line_max_bytes: int,
    piece_arena: U8,
    piece_slices: I64,
    attribute_pieces: I32,
    attribute_offsets: I32,
    shared_pieces: I32,
    request_max_bytes: int,
) -> list[tuple[bytes, int]]: ...
def cut(request: bytes) -> tuple[bytes, int, bytes]: ...
