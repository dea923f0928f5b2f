from typing import Any

from numpy.typing import NDArray

from collector.wire.splice.attribute_log import AttributeLog
from collector.wire.splice.relocate import OffsetMap

__all__ = ["AttributePatches", "attribute_patches"]

def attribute_patches(log: AttributeLog, tags: int | NDArray[Any]) -> AttributePatches | None: ...

class AttributePatches:
    patch_count: int
    counts: NDArray[Any]
    touched: NDArray[Any]
    @property
    def nbytes(self) -> int: ...
    def columns(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], bytes]: ...
    def inner_messages(self) -> NDArray[Any]: ...
    def relocated(self, offset_map: OffsetMap, placed: NDArray[Any]) -> tuple[NDArray[Any], list[bytes]]: ...
