from typing import Any

from numpy.typing import NDArray

__all__ = ["OffsetMap", "join_rows", "take_rows"]

class OffsetMap:
    def relocate(self, rows: NDArray[Any]) -> NDArray[Any]: ...

def take_rows(
    rows: NDArray[Any], new: NDArray[Any] | None, parents: NDArray[Any] | None, offset_map: OffsetMap | None
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def join_rows(
    parts: list[NDArray[Any]],
    byte_bases: NDArray[Any],
    parent_bases: NDArray[Any],
    codes: list[NDArray[Any] | None] | None = None,
) -> NDArray[Any]: ...
