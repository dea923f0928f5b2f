from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from collector.log_operators.entries import Entries, Path
from collector.log_operators.times import TimeReader

__all__ = [
    "SEVERITY_TEXTS",
    "SeverityTable",
    "encode_records",
    "group_records",
    "read_container",
    "read_scope",
    "read_severity",
    "read_time",
    "read_trace",
]

SEVERITY_TEXTS: Final[tuple[str, ...]]

_Rows: TypeAlias = NDArray[np.int32]
_Failures: TypeAlias = NDArray[np.uint8]

class SeverityTable:
    def __init__(self, severities: Mapping[str, int], overwrites_text: bool) -> None: ...

def read_severity(entries: Entries, numbers: _Rows, path: Path, table: SeverityTable) -> _Failures: ...
def read_time(entries: Entries, numbers: _Rows, path: Path, reader: TimeReader) -> _Failures: ...
def read_scope(entries: Entries, numbers: _Rows, path: Path) -> _Failures: ...
def read_trace(entries: Entries, numbers: _Rows, trace_id: Path, span_id: Path, flags: Path) -> _Failures: ...
def read_container(entries: Entries, numbers: _Rows, reader: TimeReader) -> _Failures: ...
def encode_records(entries: Entries, numbers: _Rows) -> bytes: ...
def group_records(entries: Entries, numbers: _Rows) -> tuple[NDArray[np.int32], list[tuple[bytes, bytes]]]: ...
