"""From a batch of logs to a push request: which stream each record belongs to, and what goes along as structured metadata.

Work is done once for each distinct label set, attribute (key, value), resource and scope; records are sorted and
written by the kernel.
Source: grafana/loki pkg/loghttp/push (otlp.go for names of structured metadata); OpenTelemetry logs data model
    (severity ranges).
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import numpy as np

from collector.model import KIND_STRING, Logs, StringColumn, groups
from collector.model.arrays import I32, I64, U8
from collector.otlp.protobuf import field
from collector.otlp.semantics import SEVERITY_LEVELS, severity_number_of
from collector.prometheus import escape_label_name
from exporters.loki._encode import encode
from exporters.loki.config import LokiConfig

__all__ = ["StreamEncoder", "level_names"]

K = TypeVar("K")

_OTHER: Final = "__other__"
_LEVELS: Final = ("", *(level.lower() for level in SEVERITY_LEVELS))
_CACHE_MAX_ENTRIES: Final = 100_000
_CACHE_MAX_BYTES: Final = 512  # longer ones are built each time: the entries bound the count, this the bytes


def level_names(severity_number: I32, severity_text: StringColumn) -> StringColumn:
    """``trace … fatal`` of each record, by number, else by well-known text; absent where neither says."""
    codes = np.where((severity_number >= 1) & (severity_number <= 24), (severity_number + 3) // 4, 0).astype(np.int32)
    unnumbered = codes == 0
    if unnumbered.any() and severity_text.present.any():
        by_text = np.array([*((severity_number_of(text) + 3) // 4 for text in severity_text.distinct), 0], np.int32)
        codes = np.where(unnumbered, by_text[severity_text.codes], codes)
    return StringColumn.from_codes(np.where(codes == 0, np.int32(-1), codes).astype(np.int32), _LEVELS)


def _quote(value: str) -> str:
    """A Go string literal."""
    escaped = (
        value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return (
        '"'
        + "".join(
            ch if ch.isprintable() or ch == " " else f"\\u{ord(ch):04x}" if ord(ch) < 0x10000 else f"\\U{ord(ch):08x}"
            for ch in escaped
        )
        + '"'
    )


def encode_pair(name: str, value: str) -> bytes:
    """One LabelPair as a structuredMetadata field of Entry."""
    return field(b"\x1a", field(b"\x0a", name.encode()) + field(b"\x12", value.encode()))


class _Pieces:
    """LabelPair bytes by content, each stored once for the request being built."""

    def __init__(self) -> None:
        self.arena = bytearray()
        self.slices: list[tuple[int, int]] = []

    def add(self, content: bytes) -> int:
        """The number of a piece with this content, -1 for nothing."""
        if not content:
            return -1
        self.slices.append((len(self.arena), len(content)))
        self.arena += content
        return len(self.slices) - 1


class StreamEncoder:
    """Builds push requests; remembers which label values it has let through."""

    def __init__(self, config: LokiConfig) -> None:
        self._config = config
        self._label_keys = {key for keys in config.labels.values() for key in keys}
        self._allowed: dict[str, set[str]] = {name: set() for name in config.labels}
        self._stream_texts: dict[tuple[str | None, ...], bytes] = {}
        self._pairs: dict[tuple[str, str], bytes] = {}
        self.truncated_lines = 0
        self.overflowed_values = 0

    def encode(self, batch: Logs, now_unix_nano: int, max_bytes: int = 0) -> list[tuple[bytes, int]]:
        """PushRequests of at most ``max_bytes`` (0: no bound) with every record of the batch, and how many each has.

        A stream's records are in time order. A record larger than ``max_bytes`` makes a request of its own.
        """
        rows = batch.table().rows
        times = np.where(rows["time"] != 0, rows["time"], rows["observed_time"])
        times = np.where(times != 0, times, np.uint64(now_unix_nano))
        labels = self._labels(batch)
        found = (
            groups(*(column.codes for column in labels.values())) if labels else groups(np.zeros(len(rows), np.int32))
        )
        order = np.lexsort((times, found.codes)).astype(np.int32)
        streams = np.concatenate(([0], np.cumsum(found.counts))).astype(np.int32)
        texts = [self._stream(labels, int(row)) for row in found.first.tolist()]
        sizes = np.array([len(text) for text in texts], np.int64)
        stream_slices = np.stack((np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes), axis=1)
        pieces = _Pieces()
        attribute_piece, attribute_first = self._attributes(batch, pieces)
        shared = self._shared(batch, pieces)
        line_arena, line_slices = self._lines(batch)
        limit = self._config.max_line_size
        if limit:
            lengths = np.where(line_slices[:, 0] < 0, rows["text_len"], line_slices[:, 1])
            self.truncated_lines += int(np.count_nonzero(lengths > limit))
        return encode(
            batch.wire, np.ascontiguousarray(rows).view(np.uint8).reshape(-1), order, streams,
            np.frombuffer(b"".join(texts), np.uint8), np.ascontiguousarray(stream_slices), times.astype(np.uint64),
            line_arena, line_slices, limit,
            np.frombuffer(bytes(pieces.arena) or b"\0", np.uint8), np.array(pieces.slices or [(0, 0)], np.int64).reshape(-1, 2),
            attribute_piece, attribute_first, shared, max_bytes,
        )  # fmt: skip

    def _labels(self, batch: Logs) -> dict[str, StringColumn]:
        """One column a label, values past the limit replaced."""
        columns: dict[str, StringColumn] = {}
        for name, keys in self._config.labels.items():
            column: StringColumn | None = None
            for key in keys:
                candidate = batch.attribute(key, inherit=True).as_text()
                column = candidate if column is None else _coalesce(column, candidate)
            if column is not None:
                columns[name] = self._limited(name, column)
        if self._config.level_label:
            rows = batch.table().rows
            columns[self._config.level_label] = level_names(rows["severity_number"], batch.field("severity_text"))
        return columns

    def _limited(self, name: str, column: StringColumn) -> StringColumn:
        limit = self._config.label_values_limit
        allowed = self._allowed[name]
        if not limit:
            return column

        def admit(value: str) -> str:
            if value in allowed:
                return value
            if len(allowed) < limit:
                allowed.add(value)
                return value
            self.overflowed_values += 1
            return _OTHER

        return column.map(admit)

    def _stream(self, labels: Mapping[str, StringColumn], row: int) -> bytes:
        """``{a="b", c="d"}`` of the row's label set."""
        values = tuple(
            column.distinct[column.codes[row]] if column.codes[row] >= 0 else None for column in labels.values()
        )
        text = self._stream_texts.get(values)
        if text is None:
            pairs = {
                **self._config.static_labels,
                **{name: value for name, value in zip(labels, values, strict=True) if value},
            }
            text = ("{" + ", ".join(f"{name}={_quote(value)}" for name, value in sorted(pairs.items())) + "}").encode()
            _remember(self._stream_texts, values, text)
        return text

    def _pair(self, key: str, value: str) -> bytes:
        cached = self._pairs.get((key, value))
        if cached is None:
            name = escape_label_name(key, sanitize_leading_underscore=False)
            cached = encode_pair(name, value) if name and value else b""
            _remember(self._pairs, (key, value), cached)
        return cached

    def _attributes(self, batch: Logs, pieces: _Pieces) -> tuple[I32, I32]:
        """Piece of each record attribute, and the first attribute of each record."""
        row_count = batch.table().row_count
        attributes = batch.attributes()
        if not self._config.structured_metadata or not attributes.row_count:
            return np.zeros(1, np.int32), np.zeros(row_count + 1, np.int32)
        keys, texts = attributes.key, attributes.as_text()
        pairs = groups(keys.codes, texts.codes)
        numbers = np.empty(pairs.count, np.int32)
        for pair, row in enumerate(pairs.first.tolist()):
            key = keys.distinct[keys.codes[row]]
            value = texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else ""
            numbers[pair] = pieces.add(self._pair(key, value)) if self._in_metadata(key) else -1
        return numbers[pairs.codes], np.searchsorted(attributes.owner, np.arange(row_count + 1)).astype(np.int32)

    def _in_metadata(self, key: str) -> bool:
        """Whether an attribute goes along as structured metadata: it is no label, or its label has reached the limit."""
        if key not in self._label_keys:
            return True
        limit = self._config.label_values_limit
        return bool(limit) and any(
            len(self._allowed[name]) >= limit for name, keys in self._config.labels.items() if key in keys
        )

    def _shared(self, batch: Logs, pieces: _Pieces) -> I32:
        """(records, k) pieces that are the same for many records."""
        rows = batch.table().rows
        columns: list[I32] = []
        if not self._config.structured_metadata:
            return np.zeros((len(rows), 0), np.int32)
        if self._config.resource_metadata:
            columns.append(self._parent_pieces(batch, pieces, "resources")[batch.ancestor("resources")])
        columns.append(self._parent_pieces(batch, pieces, "scopes")[batch.ancestor("scopes")])
        for name, texts in (("severity_text", batch.field("severity_text")), ("event_name", batch.field("event_name"))):
            numbers = np.array([*(pieces.add(self._pair(name, text)) for text in texts.distinct), -1], np.int32)
            columns.append(numbers[texts.codes])
        for name in ("severity_number", "flags"):
            found = groups(rows[name])
            values = rows[name][found.first].tolist()
            numbers = np.array(
                [pieces.add(self._pair(name, str(value))) if value else -1 for value in values], np.int32
            )
            columns.append(numbers[found.codes])
        return np.ascontiguousarray(np.stack(columns, axis=1)) if len(rows) else np.zeros((0, len(columns)), np.int32)

    def _parent_pieces(self, batch: Logs, pieces: _Pieces, table: str) -> I32:
        """Piece with everything a resource or scope says, a row each."""
        attributes = batch.attributes(table)
        keys, texts = attributes.key, attributes.as_text()
        bounds = np.searchsorted(attributes.owner, np.arange(batch.table(table).row_count + 1)).tolist()
        own = [b""] * (len(bounds) - 1)
        if table == "scopes":
            for name, label in (("name", "scope_name"), ("version", "scope_version")):
                column = batch.field(name, "scopes")
                own = [
                    have + (self._pair(label, column.distinct[code]) if code >= 0 else b"")
                    for have, code in zip(own, column.codes.tolist(), strict=True)
                ]
        numbers = []
        for have, begin, end in zip(own, bounds[:-1], bounds[1:], strict=True):
            content = have
            for j in range(begin, end):
                key = keys.distinct[keys.codes[j]]
                if self._in_metadata(key):
                    content += self._pair(key, texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
            numbers.append(pieces.add(content))
        return np.array(numbers, np.int32)

    @staticmethod
    def _lines(batch: Logs) -> tuple[U8, I64]:
        """Texts of bodies that are no strings: arrays and maps as JSON, numbers as text."""
        rows = batch.table().rows
        slices = np.full((len(rows), 2), -1, np.int64)
        other = rows["body_kind"] != KIND_STRING
        if not other.any():
            return np.zeros(1, np.uint8), slices
        texts = batch.field("body").as_text()
        encoded = [bytes(text) for text in texts.distinct_bytes]
        sizes = np.array([len(text) for text in encoded] or [0], np.int64)
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        has_text = texts.codes[other] >= 0
        slices[other, 0] = np.where(has_text, starts[texts.codes[other]], 0)
        slices[other, 1] = np.where(has_text, sizes[texts.codes[other]], 0)
        return np.frombuffer(b"".join(encoded) or b"\0", np.uint8), slices


def _remember(cache: dict[K, bytes], key: K, content: bytes) -> None:
    """Cache ``content`` if it is short; a full cache starts anew."""
    if len(content) <= _CACHE_MAX_BYTES:
        if len(cache) >= _CACHE_MAX_ENTRIES:
            cache.clear()
        cache[key] = content


def _coalesce(first: StringColumn, second: StringColumn) -> StringColumn:
    """The first column's value where it is there, else the second's."""
    if bool(first.present.all()) or not bool(second.present.any()):
        return first
    offset = len(first.distinct)
    codes = np.where(first.codes >= 0, first.codes, np.where(second.codes >= 0, second.codes + offset, -1)).astype(
        np.int32
    )
    return StringColumn.from_codes(codes, [*first.distinct, *second.distinct])
