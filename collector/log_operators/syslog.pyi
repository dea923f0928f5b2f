import numpy as np
from numpy.typing import NDArray

from collector.log_operators.entries import Entries, Path
from collector.log_operators.times import TimeReader

__all__ = ["read_syslog"]

def read_syslog(
    entries: Entries,
    numbers: NDArray[np.int32],
    source: Path,
    target: Path,
    protocol: int,
    times: TimeReader,
    octets: bool,
    octets_max: int,
    skips_priority: bool,
    trailer: int,
) -> NDArray[np.uint8]: ...
