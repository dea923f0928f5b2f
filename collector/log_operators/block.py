"""What a receiver hands to the operators: many entries that came from one place, as columns."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block"]


@dataclass(frozen=True, slots=True)
class Block:
    """Entries as slices of one buffer.

    >>> import numpy as np
    >>> from collector.log_operators import Block
    >>> block = Block.of_texts([b"started", b"ready"], observed_time_unix_nano=1_700_000_000_000_000_000)
    >>> len(block), block.text
    (2, b'startedready')
    """

    text: bytes
    """The bytes of all bodies, in UTF-8, and possibly more between them. Invalid bytes become U+FFFD."""
    starts: NDArray[np.int64]
    """int64[n]: where each body begins in ``text``."""
    ends: NDArray[np.int64]
    """int64[n]: where it ends."""
    observed_time_unix_nano: int | NDArray[np.int64]
    """When the entries were read: one time for all, or int64[n]."""
    attributes: Sequence[Mapping[str, Any]] = ({},)
    """Sets of attributes, such as one for each file or peer."""
    attribute_codes: NDArray[np.int32] | None = None
    """int32[n]: which of the sets each entry has; None: the first."""
    numbers: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Further attributes that are integers, int64[n], such as ``log.file.record_offset``."""
    resource: Mapping[str, Any] = field(default_factory=dict)
    """The attributes of the resource of all entries."""
    token: Hashable = None
    """What :meth:`Pipeline.held_tokens` returns as long as an entry of the block is held."""

    @classmethod
    def of_texts(cls, texts: Sequence[bytes], *, observed_time_unix_nano: int, **rest: Any) -> "Block":
        """A block of separate texts, such as datagrams; ``rest`` are further fields."""
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if len(texts) else ends
        return cls(b"".join(texts), starts, ends, observed_time_unix_nano, **rest)

    def __len__(self) -> int:
        return len(self.starts)
