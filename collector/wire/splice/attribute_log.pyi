from typing import Any, Final

from numpy.typing import NDArray

__all__ = ["DELETE", "INSERT", "UPDATE", "UPSERT", "AttributeLog"]

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
    def winners(self, slot: int) -> NDArray[Any]: ...
