import numpy as np
import numpy.typing as npt

class Page:
    def text(self, text: bytes) -> None: ...
    def numbers(
        self,
        name: bytes,
        quoted: bool,
        arena: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        times_ms: npt.NDArray[np.int64],
        openmetrics: bool,
    ) -> None: ...
    def buckets(
        self,
        name: bytes,
        quoted: bool,
        is_summary: bool,
        arena: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        extras: npt.NDArray[np.uint8],
        extra_slices: npt.NDArray[np.int32],
        values: npt.NDArray[np.float64],
        sums: npt.NDArray[np.float64],
        has_sum: npt.NDArray[np.uint8],
        counts: npt.NDArray[np.float64],
        times_ms: npt.NDArray[np.int64],
        openmetrics: bool,
    ) -> None: ...
    def getvalue(self) -> bytes: ...
