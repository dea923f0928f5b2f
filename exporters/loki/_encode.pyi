import numpy as np
import numpy.typing as npt

def encode(
    wire: bytes,
    records: npt.NDArray[np.uint8],
    order: npt.NDArray[np.int32],
    stream_offsets: npt.NDArray[np.int32],
    stream_arena: npt.NDArray[np.uint8],
    stream_slices: npt.NDArray[np.int64],
    times: npt.NDArray[np.uint64],
    line_arena: npt.NDArray[np.uint8],
    line_slices: npt.NDArray[np.int64],
    line_max_bytes: int,
    piece_arena: npt.NDArray[np.uint8],
    piece_slices: npt.NDArray[np.int64],
    attribute_pieces: npt.NDArray[np.int32],
    attribute_offsets: npt.NDArray[np.int32],
    shared_pieces: npt.NDArray[np.int32],
    request_max_bytes: int,
) -> list[tuple[bytes, int]]: ...
def cut(request: bytes) -> tuple[bytes, int, bytes]: ...
