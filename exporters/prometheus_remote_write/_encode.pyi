import numpy as np
import numpy.typing as npt

def bucket_counts(
    wire: bytes, points: npt.NDArray[np.uint8], chosen: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]: ...

class Encoder:
    def encode(
        self,
        wire: bytes,
        points: npt.NDArray[np.uint8],
        types: npt.NDArray[np.int32],
        order: npt.NDArray[np.int32],
        runs: npt.NDArray[np.int32],
        arena: npt.NDArray[np.uint8],
        pieces: npt.NDArray[np.int64],
        names: npt.NDArray[np.uint8],
        name_slices: npt.NDArray[np.int32],
        family: npt.NDArray[np.int32],
        extras: npt.NDArray[np.uint8],
        extra_slices: npt.NDArray[np.int32],
        extra_first: npt.NDArray[np.int32],
        extra_set: npt.NDArray[np.int32],
        exemplar_rows: npt.NDArray[np.uint8],
        exemplar_first: npt.NDArray[np.int32],
        exemplar_arena: npt.NDArray[np.uint8],
        exemplar_slices: npt.NDArray[np.int32],
        quantile_rows: npt.NDArray[np.uint8],
        quantile_first: npt.NDArray[np.int32],
        max_bytes: int,
    ) -> list[tuple[bytes, npt.NDArray[np.int64]]]: ...
