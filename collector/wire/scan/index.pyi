from typing import TypeAlias

import numpy as np

__all__ = ["find_field", "index_attributes", "index_children"]

Rows: TypeAlias = np.ndarray[tuple[int], np.dtype[np.void]]
Offsets: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int32]]

def index_children(table: str, wire: bytes, parents: Rows) -> Rows: ...
def index_attributes(table: str, wire: bytes, rows: Rows, types: Offsets | None = None) -> tuple[Rows, list[bytes]]: ...
def find_field(wire: bytes, bodies: Offsets, ends: Offsets, field_number: int) -> tuple[Offsets, Offsets]: ...
