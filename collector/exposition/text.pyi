from typing import Any, Final

import numpy as np

from collector.model.arrays import Records

__all__ = ["EXEMPLAR", "METADATA", "NO_TIMESTAMP", "PAGE_MAX_BYTES", "SAMPLE", "PageError", "TextPage", "series_labels"]

SAMPLE: Final[np.dtype[Any]]
EXEMPLAR: Final[np.dtype[Any]]
METADATA: Final[np.dtype[Any]]
NO_TIMESTAMP: Final[int]
PAGE_MAX_BYTES: Final[int]

class PageError(ValueError): ...

class TextPage:
    body: bytes
    samples: Records
    exemplars: Records
    metadata_key: tuple[int, int]
    def __init__(self, body: bytes, openmetrics: bool = False) -> None: ...
    def metadata(self) -> dict[str, dict[str, str]]: ...

def series_labels(body: bytes, start: int, end: int) -> tuple[str, list[tuple[str, str]]]: ...
