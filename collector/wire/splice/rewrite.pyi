from typing import Any

from numpy.typing import NDArray

from collector.wire.splice.relocate import OffsetMap

__all__ = ["prune", "rewrite"]

def rewrite(
    wire: bytes,
    offsets: NDArray[Any],
    deleted: NDArray[Any],
    sources: NDArray[Any],
    lengths: NDArray[Any],
    payload: bytes,
    frames: list[tuple[NDArray[Any], NDArray[Any], str]],
) -> tuple[bytes, OffsetMap, NDArray[Any]]: ...
def prune(
    wire: bytes, tables: list[NDArray[Any]], depth: int, keep: NDArray[Any]
) -> tuple[bytes, OffsetMap, list[NDArray[Any]]] | None: ...
