from typing import Any, Final

from numpy.typing import NDArray

from collector.wire.splice.rewrite import Shift

UPSERT: Final[int]
INSERT: Final[int]
UPDATE: Final[int]
DELETE: Final[int]

class AttributeLog:
    def __init__(
        self,
        rows: NDArray[Any],
        attributes: NDArray[Any],
        known: list[bytes],
        keys: list[bytes],
        changes: list[tuple[int, int, NDArray[Any] | None, tuple[str, Any, Any] | None]],
    ) -> None: ...
    def resolve(self, slot: int) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def patches(self, tags: int | NDArray[Any]) -> AttributePatches | None: ...

class AttributePatches:
    patch_count: int
    counts: NDArray[Any]
    touched: NDArray[Any]
    @property
    def nbytes(self) -> int: ...
    def columns(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], bytes]: ...
    def inner_messages(self) -> NDArray[Any]: ...
    def carried(self, shift: Shift, placed: NDArray[Any]) -> tuple[NDArray[Any], list[bytes]]: ...
