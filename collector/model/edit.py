from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collector.model.batch import Batch
B = TypeVar("B", bound="Batch")


class Edit(Generic[B]):
    def __init__(self, batch: B) -> None:
        self._batch = batch
