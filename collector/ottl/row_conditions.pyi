from collections.abc import Sequence
from typing import Any

from collector.model.arrays import Array, Mask

__all__ = ["RowCondition"]

class RowCondition:
    attributed: frozenset[int]
    level_count: int
    def __init__(self, nodes: list[tuple[Any, ...]]) -> None: ...
    def mask(
        self, wire: bytes, tables: list[tuple[Array, Array | None, Sequence[bytes] | int | None]]
    ) -> tuple[Mask, int] | None: ...
