from typing import Any

from numpy.typing import NDArray

class Shift:
    def relocate(self, rows: NDArray[Any]) -> NDArray[Any]: ...

def rewrite(
    wire: bytes,
    offsets: NDArray[Any],
    deleted: NDArray[Any],
    sources: NDArray[Any],
    lengths: NDArray[Any],
    payload: bytes,
    frames: list[tuple[NDArray[Any], NDArray[Any], str]],
) -> tuple[bytes, Shift, NDArray[Any]]: ...
def prune(
    wire: bytes, tables: list[NDArray[Any]], depth: int, keep: NDArray[Any]
) -> tuple[bytes, Shift, list[NDArray[Any]]] | None: ...
def take_rows(
    rows: NDArray[Any], new: NDArray[Any] | None, parents: NDArray[Any] | None, shift: Shift | None
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def join_rows(
    parts: list[NDArray[Any]],
    byte_bases: NDArray[Any],
    parent_bases: NDArray[Any],
    codes: list[NDArray[Any] | None] | None = None,
) -> NDArray[Any]: ...
