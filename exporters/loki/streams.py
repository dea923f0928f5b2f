"""Turns batches of logs into push requests: the stream of each record, and its structured metadata.

Work is done once per distinct label set, attribute (key, value), resource and scope; the kernel writes the records.

Source: grafana/loki pkg/loghttp/push (otlp.go for names of structured metadata); OpenTelemetry logs data model
    (severity ranges).
"""

import itertools
from collections.abc import Mapping
from typing import Final

import numpy as np

from collector.model import KIND_STRING, Logs, StringColumn, groups
from collector.model.arrays import I32, I64, U8, Mask, offsets_of, starts_of
from collector.otlp.semantics import SEVERITY_LEVELS, severity_number_of
from collector.prometheus import escape_label_name
from collector.text.cache import TextCache
from collector.wire.protobuf import field
from exporters.loki._encode import encode
from exporters.loki.config import LokiConfig
from exporters.loki.former_labels import HINT_KEYS, FormerLabels, PromotedAttributes

__all__ = ["StreamEncoder"]

_OTHER: Final = "__other__"
_NO_SERVICE: Final = "unknown_service"  # what Loki itself calls it
_LEVELS: Final = ("", *(level.lower() for level in SEVERITY_LEVELS))
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NAMES_APART_MAX: Final = 128  # Loki refuses a record with more attributes
_CACHE_BYTES: Final = 16 * 1024 * 1024
_CACHE_ENTRY_BYTES: Final = 2048  # longer content is built each time


def _level_column(severity_number: I32, severity_text: StringColumn) -> StringColumn:
    """``trace … fatal`` of each record: by its number, otherwise by a well-known text, otherwise absent."""
    codes = np.where((severity_number >= 1) & (severity_number <= 24), (severity_number + 3) // 4, 0).astype(np.int32)
    unnumbered = codes == 0
    if unnumbered.any() and severity_text.present.any():
        by_text = np.array([*((severity_number_of(text) + 3) // 4 for text in severity_text.distinct), 0], np.int32)
        codes = np.where(unnumbered, by_text[severity_text.codes], codes)
    return StringColumn.from_codes(np.where(codes == 0, np.int32(-1), codes).astype(np.int32), _LEVELS)


def _quote(value: str) -> str:
    """The value as a Go string literal."""
    return '"' + "".join(map(_escape, value)) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _encode_pair(name: str, value: str) -> bytes:
    """A LabelPair, as a ``structuredMetadata`` field of an Entry."""
    return field(b"\x1a", field(b"\x0a", name.encode()) + field(b"\x12", value.encode()))


def _metadata_name(key: str) -> str:
    """The name of an attribute in structured metadata."""
    return escape_label_name(key, sanitize_leading_underscore=False)


class _Pieces:
    """The LabelPair bytes of the requests being built: pieces that many records refer to by number."""

    def __init__(self) -> None:
        self.arena = bytearray()
        self.slices: list[tuple[int, int]] = []

    def add(self, content: bytes) -> int:
        """Add a piece and return its number; -1 if there is no content."""
        if not content:
            return -1
        self.slices.append((len(self.arena), len(content)))
        self.arena += content
        return len(self.slices) - 1


class StreamEncoder:
    """Builds push requests, and remembers which label values it has admitted (``label_values_limit``)."""

    def __init__(self, config: LokiConfig) -> None:
        self._config = config
        self._label_keys = {key for keys in config.labels.values() for key in keys}
        self._allowed: dict[str, set[int]] = {name: set() for name in config.labels}
        """The admitted values of each label, as their hashes: a value can be of any length."""
        self._stream_texts = TextCache[bytes](max_bytes=_CACHE_BYTES, max_entry_bytes=_CACHE_ENTRY_BYTES)
        self._pairs = TextCache[bytes](max_bytes=_CACHE_BYTES, max_entry_bytes=_CACHE_ENTRY_BYTES)
        self.truncated_line_count = 0
        self.overflowed_value_count = 0
        self._former = FormerLabels(config.default_labels_enabled) if config.default_labels_enabled else None
        if self._former is not None:
            self._label_keys |= HINT_KEYS

    def encode(self, batch: Logs, now_unix_nano: int, max_bytes: int = 0) -> list[tuple[bytes, I32]]:
        """Push requests of at most ``max_bytes`` (0: no limit) that carry the batch, each with the rows of its records.

        The records of a stream are in time order. A record larger than ``max_bytes`` makes up a request of its own.
        """
        rows = batch.table().rows
        times = np.where(rows["time"] != 0, rows["time"], rows["observed_time"])
        times = np.where(times != 0, times, np.uint64(now_unix_nano))
        promoted = self._former.read(batch) if self._former is not None else PromotedAttributes()
        labels = self._labels(batch, promoted)
        streams = (
            groups(*(column.codes for column in labels.values())) if labels else groups(np.zeros(len(rows), np.int32))
        )
        order = np.lexsort((times, streams.codes)).astype(np.int32)
        stream_offsets = offsets_of(streams.counts).astype(np.int32)
        texts = [self._stream_text(labels, row) for row in streams.first.tolist()]
        sizes = np.array([len(text) for text in texts], np.int64)
        stream_slices = np.stack((starts_of(sizes), sizes), axis=1)
        pieces = _Pieces()
        taken = self._own_names(batch)
        attribute_pieces, attribute_offsets = self._attribute_pieces(batch, pieces, taken, promoted)
        shared_pieces = self._shared_pieces(batch, pieces, taken, promoted)
        line_arena, line_slices = self._lines(batch)
        max_line_bytes = self._config.max_line_size
        if max_line_bytes:
            lengths = np.where(line_slices[:, 0] < 0, rows["text_len"], line_slices[:, 1])
            self.truncated_line_count += int(np.count_nonzero(lengths > max_line_bytes))
        requests = encode(
            batch.wire,
            np.ascontiguousarray(rows).view(np.uint8).reshape(-1),
            order,
            stream_offsets,
            np.frombuffer(b"".join(texts), np.uint8),
            np.ascontiguousarray(stream_slices),
            times.astype(np.uint64),
            line_arena,
            line_slices,
            max_line_bytes,
            np.frombuffer(bytes(pieces.arena) or b"\0", np.uint8),
            np.array(pieces.slices or [(0, 0)], np.int64),
            attribute_pieces,
            attribute_offsets,
            shared_pieces,
            max_bytes,
        )
        ends = np.cumsum([count for _, count in requests], dtype=np.int64).tolist()
        return [(body, order[end - count : end]) for (body, count), end in zip(requests, ends, strict=True)]

    def _labels(self, batch: Logs, promoted: PromotedAttributes) -> dict[str, StringColumn]:
        """One column per label; values beyond the limit are replaced."""
        columns: dict[str, StringColumn] = {}
        for name, values in promoted.labels:
            columns[name] = _first_present(values, columns[name]) if name in columns else values
        for name, values in columns.items():
            self._allowed.setdefault(name, set())
            columns[name] = self._limited(name, values)
        for name, keys in self._config.labels.items():
            column: StringColumn | None = None
            for key in keys:
                candidate = batch.attribute(key, inherit=True).as_text()
                column = candidate if column is None else _first_present(column, candidate)
            if column is not None:
                columns[name] = self._limited(name, column)
        if self._config.level_label:
            rows = batch.table().rows
            columns[self._config.level_label] = _level_column(rows["severity_number"], batch.field("severity_text"))
        return columns

    def _limited(self, name: str, column: StringColumn) -> StringColumn:
        limit = self._config.label_values_limit
        allowed = self._allowed[name]
        if not limit:
            return column

        def admit(value: str) -> str:
            key = hash(value)
            if key in allowed:
                return value
            if len(allowed) < limit:
                allowed.add(key)
                return value
            self.overflowed_value_count += 1
            return _OTHER

        return column.map(admit)

    def _stream_text(self, labels: Mapping[str, StringColumn], row: int) -> bytes:
        """The label set of the row, as ``{a="b", c="d"}``."""
        values = tuple(
            column.distinct[column.codes[row]] if column.codes[row] >= 0 else None for column in labels.values()
        )
        text = self._stream_texts.get(values, b"")
        if not text:
            pairs = {
                **self._config.static_labels,
                **{name: value for name, value in zip(labels, values, strict=True) if value},
            }
            if not pairs:  # Loki requires a label
                pairs = {"service_name": _NO_SERVICE}
            text = ("{" + ", ".join(f"{name}={_quote(value)}" for name, value in sorted(pairs.items())) + "}").encode()
            self._stream_texts.put(values, text)
        return text

    def _pair(self, key: str, value: str) -> bytes:
        if not value:
            return b""
        pair = self._pairs.get((key, value), b"")
        if not pair and (name := _metadata_name(key)):
            pair = _encode_pair(name, value)
            self._pairs.put((key, value), pair)
        return pair

    def _attribute_pieces(
        self, batch: Logs, pieces: _Pieces, taken: dict[str, Mask], promoted: PromotedAttributes
    ) -> tuple[I32, I32]:
        """The piece of each record attribute, and the offsets of each record's attributes.

        Each name occurs once per record: its first attribute stands, and what the record itself has (its trace id, for
        example) takes precedence. Loki would show one of them, not always the same. Adds to ``taken`` which records
        have the names that scopes and resources have as well.
        """
        row_count = batch.table().row_count
        attributes = batch.attributes()
        if not self._config.structured_metadata or not attributes.row_count:
            return np.zeros(1, np.int32), np.zeros(row_count + 1, np.int32)
        keys, texts = attributes.key, attributes.as_text()
        pairs = groups(keys.codes, texts.codes)
        numbers = np.empty(pairs.count, np.int32)
        names = np.empty(pairs.count, np.int32)
        codes = {name: code for code, name in enumerate(taken)}
        for pair, row in enumerate(pairs.first.tolist()):
            key = keys.distinct[keys.codes[row]]
            value = texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else ""
            numbers[pair] = pieces.add(self._pair(key, value)) if self._in_metadata(key) else -1
            # An attribute that is not sent hides no other.
            names[pair] = codes.setdefault(_metadata_name(key), len(codes)) if numbers[pair] >= 0 else -1 - pair
        owner, name_of = attributes.owner, names[pairs.codes]
        found = numbers[pairs.codes]
        for key, (label, records) in promoted.of_records.items():
            if key in keys.distinct and not self._is_full(label):
                is_label = (keys.codes == keys.distinct.index(key)) & records[owner]
                found[is_label] = -1
                name_of = np.where(is_label, np.int32(-1 - pairs.count), name_of)  # it hides no other
        is_first = np.zeros(len(owner), bool)
        is_first[groups(owner, name_of).first] = True
        found[~is_first] = -1
        for code, has_name in enumerate(taken.values()):
            found[(name_of == code) & has_name[owner]] = -1
        for name in self._shared_names(batch, "scopes", "resources") & codes.keys():
            has_name = np.zeros(row_count, bool)
            has_name[owner[(name_of == codes[name]) & (found >= 0)]] = True
            taken[name] = taken[name] | has_name if name in taken else has_name
        return found, np.searchsorted(owner, np.arange(row_count + 1)).astype(np.int32)

    @staticmethod
    def _own_names(batch: Logs) -> dict[str, Mask]:
        """The names that structured metadata has for fields of a record, and which records have each."""
        rows = batch.table().rows
        scope = batch.ancestor("scopes")
        return {
            "trace_id": (rows["trace_id_hi"] | rows["trace_id_lo"]) != 0,
            "span_id": rows["span_id"] != 0,
            "severity_text": rows["severity_text_len"] > 0,
            "event_name": rows["event_name_len"] > 0,
            "severity_number": rows["severity_number"] != 0,
            "flags": rows["flags"] != 0,
            "scope_name": batch.table("scopes").rows["name_len"][scope] > 0,
            "scope_version": batch.table("scopes").rows["version_len"][scope] > 0,
        }

    def _in_metadata(self, key: str) -> bool:
        """Whether an attribute becomes structured metadata: it is not a label, or its label has reached the limit."""
        if key not in self._label_keys:
            return True
        return any(self._is_full(name) for name, keys in self._config.labels.items() if key in keys)

    def _is_full(self, label: str) -> bool:
        """Whether the label has as many values as it may, so that further ones are replaced."""
        limit = self._config.label_values_limit
        return bool(limit) and len(self._allowed[label]) >= limit

    def _shared_names(self, batch: Logs, *tables: str) -> set[str]:
        """The names that attributes of these tables have in structured metadata."""
        keys = {key for table in tables for key in batch.attributes(table).key.distinct if self._in_metadata(key)}
        return {_metadata_name(key) for key in keys}

    def _shared_pieces(self, batch: Logs, pieces: _Pieces, taken: dict[str, Mask], promoted: PromotedAttributes) -> I32:
        """(records, k): pieces that many records share.

        An attribute of a resource stands if neither the record nor its scope has one of its name, an attribute of a
        scope if the record has none. ``taken`` says which records have a name already.
        """
        rows = batch.table().rows
        columns: list[I32] = []
        if not self._config.structured_metadata:
            return np.zeros((len(rows), 0), np.int32)
        tables = ("scopes", "resources") if self._config.resource_metadata else ("scopes",)
        above = self._shared_names(batch, *tables[1:])
        for table in tables:
            parent = batch.ancestor(table)
            apart = self._shared_names(batch, table) & (taken.keys() | above)
            if len(apart) > _NAMES_APART_MAX:
                apart = set(sorted(apart)[:_NAMES_APART_MAX])
            labels = promoted.of_resources if table == "resources" else {}
            together, alone = self._parent_pieces(batch, pieces, table, apart, labels)
            columns.append(together[parent])
            for name, numbers in alone.items():
                column = numbers[parent]
                is_taken = taken.get(name, np.zeros(len(rows), bool))
                columns.append(np.where(is_taken, np.int32(-1), column))
                taken[name] = is_taken | (column >= 0)
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

    def _parent_pieces(
        self, batch: Logs, pieces: _Pieces, table: str, apart: set[str], labels: Mapping[str, tuple[str, Mask]]
    ) -> tuple[I32, dict[str, I32]]:
        """The piece of each resource or scope, and by name those of the attributes in ``apart``, which are not in it.

        ``labels`` are attributes that some of the rows do not need here because they are labels.
        """
        attributes = batch.attributes(table)
        keys, texts = attributes.key, attributes.as_text()
        bounds = np.searchsorted(attributes.owner, np.arange(batch.table(table).row_count + 1)).tolist()
        contents = [b""] * (len(bounds) - 1)
        if table == "scopes":
            for name, label in (("name", "scope_name"), ("version", "scope_version")):
                column = batch.field(name, "scopes")
                contents = [
                    content + (self._pair(label, column.distinct[code]) if code >= 0 else b"")
                    for content, code in zip(contents, column.codes.tolist(), strict=True)
                ]
        numbers = []
        alone: dict[str, I32] = {}
        for parent, (content, (begin, end)) in enumerate(zip(contents, itertools.pairwise(bounds), strict=True)):
            pairs = [content]
            names = {"scope_name", "scope_version"} if table == "scopes" else set()
            for row in range(begin, end):
                key = keys.distinct[keys.codes[row]]
                if key in labels and labels[key][1][parent] and not self._is_full(labels[key][0]):
                    continue
                if not self._in_metadata(key) or (name := _metadata_name(key)) in names:
                    continue
                names.add(name)
                pair = self._pair(key, texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else "")
                if name in apart:
                    alone.setdefault(name, np.full(len(contents), -1, np.int32))[parent] = pieces.add(pair)
                else:
                    pairs.append(pair)
            numbers.append(pieces.add(b"".join(pairs)))
        return np.array(numbers, np.int32), alone

    @staticmethod
    def _lines(batch: Logs) -> tuple[U8, I64]:
        """Texts of bodies that are not strings, and the slice of each: arrays and maps as JSON, numbers as text."""
        rows = batch.table().rows
        slices = np.full((len(rows), 2), -1, np.int64)
        is_other = rows["body_kind"] != KIND_STRING
        if not is_other.any():
            return np.zeros(1, np.uint8), slices
        texts = batch.field("body").as_text()
        encoded = [bytes(text) for text in texts.distinct_bytes]
        sizes = np.array([len(text) for text in encoded] or [0], np.int64)
        starts = starts_of(sizes)
        codes = texts.codes[is_other]
        slices[is_other, 0] = np.where(codes >= 0, starts[codes], 0)
        slices[is_other, 1] = np.where(codes >= 0, sizes[codes], 0)
        return np.frombuffer(b"".join(encoded) or b"\0", np.uint8), slices


def _first_present(first: StringColumn, second: StringColumn) -> StringColumn:
    """The first column's value where it is present, otherwise the second's."""
    if bool(first.present.all()) or not bool(second.present.any()):
        return first
    offset = len(first.distinct)
    codes = np.where(first.codes >= 0, first.codes, np.where(second.codes >= 0, second.codes + offset, -1)).astype(
        np.int32
    )
    return StringColumn.from_codes(codes, [*first.distinct, *second.distinct])
