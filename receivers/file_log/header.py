"""Reads the header of a file: lines that describe it."""

import json
from typing import Any

from collector.log_operators import Block, Pipeline, Splitter
from collector.model import to_json
from collector.text.patterns import compile_pattern
from receivers.file_log.config import FileLogConfig, HeaderConfig

__all__ = ["HeaderReader"]

_MAX_BYTES = 1024 * 1024  # of a header


class HeaderReader:
    """Finds the lines, and makes attributes of them."""

    def __init__(self, header: HeaderConfig, config: FileLogConfig, report: Any) -> None:
        """``report`` is told which lines could not be processed."""
        self._pattern = compile_pattern(header.pattern)
        self._pipeline = Pipeline(header.metadata_operators, report=report)
        self._splitter = Splitter(encoding=config.encoding, max_log_size=config.max_log_size, keeps_empty=True)

    def read(self, data: bytes, *, is_end: bool) -> tuple[int, dict[str, Any]] | None:
        """The size of the header at the beginning of ``data``, and its attributes; None if more bytes are needed."""
        split = self._splitter.split(data, is_end=is_end)
        lines = 0
        texts: list[bytes] = []
        for start, end in zip(split.starts.tolist(), split.ends.tolist(), strict=True):
            text = split.text[start:end]
            if self._pattern.search(text.decode("utf-8", "replace")) is None:
                break
            texts.append(text)
            lines += 1
        if lines == len(split.starts) and not is_end and len(data) < _MAX_BYTES:
            return None
        size = int(split.offsets[lines]) if lines < len(split.starts) else split.consumed
        attributes: dict[str, Any] = {}
        made = self._pipeline.process(Block.of_texts(texts, observed_time_unix_nano=0))
        for logs in (*made, *self._pipeline.flush()):
            for resource in json.loads(to_json(logs))["resourceLogs"]:
                for scope in resource["scopeLogs"]:
                    for record in scope["logRecords"]:
                        attributes |= {pair["key"]: _plain(pair["value"]) for pair in record.get("attributes", ())}
        return size, attributes


def _plain(value: dict[str, Any]) -> Any:
    """A value of OTLP/JSON."""
    kind: str
    inner: Any
    kind, inner = next(iter(value.items()), ("", None))
    if kind == "arrayValue":
        return [_plain(item) for item in inner.get("values", ())]
    if kind == "kvlistValue":
        return {pair["key"]: _plain(pair["value"]) for pair in inner.get("values", ())}
    return int(inner) if kind == "intValue" else inner
