"""Builders make batches from columns, for components that produce data: receivers, connectors, overflow series.

To change a batch use ``Batch.edit``. A builder holds encoded bytes only: each call encodes its items in one compiled
pass, and each attribute set once, however many rows have it.

The arguments that have a value per row take:

- numbers: an array, or one number for all rows; a masked array is absent where it is masked;
- texts: a sequence, a ``StringColumn``, or one text for all rows;
- attributes: an ``Attributes`` object or a mapping for all rows, a sequence with one of these per row, or
  ``(codes, sets)`` with codes I32[n] into the sets (-1 = none), for which the cost per row is negligible;
- ids: ``U64[n,2]`` (trace ids) or ``U64[n]`` (span ids), big-endian integers as in the model; 0 = unset.

Source: opentelemetry-proto 1.x ``trace.proto``, ``metrics.proto``, ``logs.proto``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from collector.model.arrays import I32, U64, Array, Mask, offsets_of
from collector.model.columns import StringColumn
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.logs import Logs
from collector.model.metrics import Metrics
from collector.model.traces import Traces
from collector.wire import build
from collector.wire.build import MessageField, Pool, encode_rows

__all__ = ["Attributes", "Events", "Exemplars", "Links", "LogsBuilder", "MetricsBuilder", "TracesBuilder"]


class Attributes:
    """An immutable attribute set, encoded once."""

    __slots__ = ("_encoded", "_starts", "_tagged")

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Encodes ``values``.

        Raises:
            TypeError: A key is not text, or an attribute cannot have a value of this type.
            ValueError: An integer does not fit into 64 bits, or a value nests deeper than 30.
        """
        self._encoded, self._starts = build.encode_attributes(values)
        self._tagged: dict[int, bytes] = {1: self._encoded}

    def tagged(self, number: int) -> bytes:
        """The set as the repeated field ``number``, which differs between points, spans and records."""
        if number not in self._tagged:
            fields = bytearray(self._encoded)
            for start in self._starts:
                fields[start] = number << 3 | 2
            self._tagged[number] = bytes(fields)
        return self._tagged[number]

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return self._encoded == other._encoded if isinstance(other, Attributes) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._encoded)


AttributeSet: TypeAlias = Attributes | Mapping[str, Any]
AttributeRows: TypeAlias = AttributeSet | Sequence[AttributeSet | None] | tuple[I32, Sequence[AttributeSet]] | None
TextRows: TypeAlias = str | Sequence[str | None] | StringColumn | None
_NO_ATTRIBUTES = Attributes({})


@dataclass(frozen=True, slots=True, eq=False)
class Exemplars:
    """Exemplars of the points of one call; each belongs to the point ``owner``."""

    owner: ArrayLike
    times: ArrayLike
    values: ArrayLike
    trace_ids: U64 | None = None
    span_ids: ArrayLike | None = None
    attributes: AttributeRows = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The exemplars as the field ``number`` of the points."""
        count = np.size(self.owner)
        fields = [
            _fixed64(2, self.times, count, "exemplar times"),
            *_number_values(self.values, count, double_number=3),
            _optional(build.ID8, 4, self.span_ids, count, np.uint64),
            _ids(5, self.trace_ids),
            _attributes(7, self.attributes, count),
        ]
        return _of_owners(encode_rows(number, count, fields), self.owner, row_count, "exemplars")


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of the spans of one call; each belongs to the span ``owner``."""

    owner: ArrayLike
    times: ArrayLike
    names: TextRows
    attributes: AttributeRows = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The events as the field ``number`` of the spans."""
        count = np.size(self.owner)
        fields = [
            _fixed64(1, self.times, count, "event times"),
            _text(2, self.names, count),
            _attributes(3, self.attributes, count),
        ]
        return _of_owners(encode_rows(number, count, fields), self.owner, row_count, "events")

    @classmethod
    def of(cls, rows: Sequence[Sequence[Mapping[str, Any]]]) -> "Events":
        """Events given per span, as mappings with ``name``, ``time_unix_nano`` and ``attributes``."""
        flat = [event for events in rows for event in events]
        return cls(
            owner=np.repeat(np.arange(len(rows), dtype=np.int32), [len(events) for events in rows]),
            times=np.array([event.get("time_unix_nano", 0) for event in flat], np.uint64),
            names=[event.get("name", "") for event in flat],
            attributes=[event.get("attributes") for event in flat],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Links of the spans of one call; each belongs to the span ``owner``."""

    owner: ArrayLike
    trace_ids: U64
    span_ids: ArrayLike
    trace_states: TextRows = None
    attributes: AttributeRows = None
    flags: ArrayLike | None = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The links as the field ``number`` of the spans."""
        count = np.size(self.owner)
        fields = [
            _ids(1, self.trace_ids),
            _optional(build.ID8, 2, self.span_ids, count, np.uint64),
            _text(3, self.trace_states, count),
            _attributes(4, self.attributes, count),
            _optional(build.FIXED32, 6, self.flags, count, np.uint32),
        ]
        return _of_owners(encode_rows(number, count, fields), self.owner, row_count, "links")


class _Builder:
    """The resources and scopes of a batch, which all signals share; the contents of a scope are encoded bytes."""

    def __init__(self, context: Context = EMPTY_CONTEXT) -> None:
        self._context = context
        self._resources: list[tuple[bytes, bytes, list[int]]] = []
        self._scopes: list[tuple[bytes, bytes, list[bytes]]] = []

    def resource(self, attributes: AttributeSet = _NO_ATTRIBUTES, schema_url: str = "") -> int:
        """Adds a resource and returns its number."""
        self._resources.append((_message(1, _set(attributes).tagged(1)), _slice(3, schema_url), []))
        return len(self._resources) - 1

    def scope(
        self,
        resource: int,
        name: str = "",
        version: str = "",
        attributes: AttributeSet = _NO_ATTRIBUTES,
        schema_url: str = "",
    ) -> int:
        """Adds a scope to a resource and returns its number.

        Raises:
            IndexError: There is no such resource.
        """
        inner = _slice(1, name) + _slice(2, version) + _set(attributes).tagged(3)
        self._resources[resource][2].append(len(self._scopes))
        self._scopes.append((_message(1, inner), _slice(3, schema_url), []))
        return len(self._scopes) - 1

    def build_wire(self) -> bytes:
        """The encoded request; resources and scopes without items are left out."""
        request = []
        for resource, resource_schema, scopes in self._resources:
            parts = []
            for number in scopes:
                scope, schema, items = self._scopes[number]
                if any(items):
                    parts.append(_message(2, scope, *items, schema))
            if parts:
                request.append(_message(1, resource, *parts, resource_schema))
        return b"".join(request)

    def _add(self, scope: int, items: bytes) -> None:
        self._scopes[scope][2].append(items)


class TracesBuilder(_Builder):
    """Builds Traces.

    >>> import numpy as np
    >>> from collector.model import TracesBuilder
    >>> builder = TracesBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.spans(
    ...     scope,
    ...     names=["GET /users", "SELECT users"],
    ...     trace_ids=np.array([[0, 1], [0, 1]], np.uint64),
    ...     span_ids=[1, 2],
    ...     start_times=[10, 20],
    ...     end_times=[19, 25],
    ...     kinds=2,
    ...     attributes={"tenant": "a"},
    ... )
    >>> batch = builder.build()
    >>> batch.attribute("tenant").text.to_list(), batch.field("kind").tolist()
    (['a', 'a'], [2, 2])
    """

    def spans(
        self,
        scope: int,
        *,
        names: TextRows,
        trace_ids: U64,
        span_ids: ArrayLike,
        start_times: ArrayLike,
        end_times: ArrayLike,
        parent_span_ids: ArrayLike | None = None,
        kinds: ArrayLike | None = None,
        status_codes: ArrayLike | None = None,
        status_messages: TextRows = None,
        attributes: AttributeRows = None,
        trace_states: TextRows = None,
        flags: ArrayLike | None = None,
        events: Events | Sequence[Sequence[Mapping[str, Any]]] | None = None,
        links: Links | None = None,
    ) -> None:
        """Adds ``len(trace_ids)`` spans to a scope. Times are nanoseconds since 1970.

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        count = len(trace_ids)
        if events is not None and not isinstance(events, Events):
            events = Events.of(events)
        status = [_text(2, status_messages, count), _optional(build.NUMBER, 3, status_codes, count, np.int32)]
        fields = [
            _ids(1, trace_ids),
            _optional(build.ID8, 2, span_ids, count, np.uint64),
            _text(3, trace_states, count),
            _optional(build.ID8, 4, parent_span_ids, count, np.uint64),
            _text(5, names, count),
            _optional(build.NUMBER, 6, kinds, count, np.int32),
            _fixed64(7, start_times, count, "start_times"),
            _fixed64(8, end_times, count, "end_times"),
            _attributes(9, attributes, count),
            _raw(events.pool(11, count) if events is not None else None),
            _raw(links.pool(13, count) if links is not None else None),
            _raw(encode_rows(15, count, status, skip_empty=True)) if any(status) else None,
            _optional(build.FIXED32, 16, flags, count, np.uint32),
        ]
        self._add(scope, encode_rows(2, count, fields).blob)

    def build(self) -> Traces:
        """The batch of everything that was added."""
        return Traces(self.build_wire(), self._context)


class LogsBuilder(_Builder):
    """Builds Logs.

    >>> from collector.model import LogsBuilder
    >>> builder = LogsBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.records(scope, times=[10, 20], bodies=["started", {"port": 80}], severity_texts="INFO")
    >>> builder.build().field("body").as_text().to_list()
    ['started', '{"port":80}']
    """

    def records(
        self,
        scope: int,
        *,
        times: ArrayLike,
        bodies: StringColumn | str | Sequence[Any] | None = None,
        severity_numbers: ArrayLike | None = None,
        severity_texts: TextRows = None,
        attributes: AttributeRows = None,
        trace_ids: U64 | None = None,
        span_ids: ArrayLike | None = None,
        observed_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        event_names: TextRows = None,
    ) -> None:
        """Adds ``len(times)`` records to a scope.

        ``bodies`` is one text for all records, a ``StringColumn``, or one attribute value per record (None = no body).

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        fields = [
            _fixed64(1, times, count, "times"),
            _optional(build.NUMBER, 2, severity_numbers, count, np.int32),
            _text(3, severity_texts, count),
            _bodies(5, bodies, count),
            _attributes(6, attributes, count),
            _optional(build.FIXED32, 8, flags, count, np.uint32),
            _ids(9, trace_ids),
            _optional(build.ID8, 10, span_ids, count, np.uint64),
            _fixed64(11, observed_times, count, "observed_times"),
            _text(12, event_names, count),
        ]
        self._add(scope, encode_rows(2, count, fields).blob)

    def build(self) -> Logs:
        """The batch of everything that was added."""
        return Logs(self.build_wire(), self._context)


class MetricsBuilder(_Builder):
    """Builds Metrics. Each call adds one metric with ``len(times)`` points, even if the name was used before.

    >>> from collector.model import MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.gauge(scope, "queue.size", times=[10, 20], values=[3, 5], unit="{item}")
    >>> builder.histogram(
    ...     scope, "latency", temporality=2, times=[10], counts=[3], bucket_counts=[[1, 2]], bounds=[0.5], sums=[1.5]
    ... )
    >>> batch = builder.build()
    >>> batch.field("name", "metrics").to_list(), batch.field("value")[:2].tolist()
    (['queue.size', 'latency'], [3.0, 5.0])
    """

    def gauge(
        self,
        scope: int,
        name: str,
        *,
        times: ArrayLike,
        values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a gauge. Integers stay integers.

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        self._metric(
            scope, 5, name, unit, description, _number_points(times, values, attributes, start_times, flags, exemplars)
        )

    def sum(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        monotonic: bool,
        times: ArrayLike,
        values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a sum. Integers stay integers. Raises the same errors as ``gauge``."""
        points = _number_points(times, values, attributes, start_times, flags, exemplars)
        self._metric(
            scope, 7, name, unit, description, points, _temporality(temporality), b"\x18\x01" if monotonic else b""
        )

    def histogram(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        times: ArrayLike,
        counts: ArrayLike,
        bucket_counts: ArrayLike,
        bounds: ArrayLike,
        sums: ArrayLike | None = None,
        mins: ArrayLike | None = None,
        maxs: ArrayLike | None = None,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a histogram whose points share their bounds.

        ``bounds`` is F64[b] and ``bucket_counts`` U64[n,b+1], or U64[n,0] without bounds.

        Raises:
            ValueError: The columns differ in length, a time or count is negative, or buckets do not match bounds.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        limits = np.asarray(bounds, np.float64)
        buckets = _unsigned(bucket_counts, "bucket_counts")
        if (
            buckets.ndim != 2
            or len(buckets) != count
            or (buckets.shape[1] != len(limits) + 1 and (buckets.shape[1] or len(limits)))
        ):
            raise ValueError(f"expected bucket_counts of shape {(count, len(limits) + 1)}, got {buckets.shape}")
        packed_bounds = Pool(np.zeros(count, np.int32), limits.tobytes(), np.array([0, limits.nbytes]))
        fields = [
            *_point_head(times, start_times, counts, count),
            _present(5, sums, count),
            _packed(build.PACKED64, 6, buckets),
            MessageField(build.TEXT, 7, packed_bounds),
            _exemplars(8, exemplars, count),
            _attributes(9, attributes, count),
            _optional(build.NUMBER, 10, flags, count, np.uint32),
            _present(11, mins, count),
            _present(12, maxs, count),
        ]
        self._metric(scope, 9, name, unit, description, encode_rows(1, count, fields), _temporality(temporality))

    def exponential_histogram(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        times: ArrayLike,
        counts: ArrayLike,
        scales: ArrayLike,
        zero_counts: ArrayLike | None = None,
        zero_thresholds: ArrayLike | None = None,
        positive: tuple[ArrayLike, Any] | None = None,
        negative: tuple[ArrayLike, Any] | None = None,
        sums: ArrayLike | None = None,
        mins: ArrayLike | None = None,
        maxs: ArrayLike | None = None,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds an exponential histogram.

        ``positive`` and ``negative`` are ``(offsets I32[n], counts)``. The counts are U64[n,k] or, if the points differ
        in their number of buckets, ``(U64[m], splits I64[n+1])``.

        Raises:
            ValueError: The columns differ in length, or a time or count is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        fields = [
            *_point_head(times, start_times, counts, count),
            _present(5, sums, count),
            _optional(build.ZIGZAG, 6, scales, count, np.int32),
            _fixed64(7, zero_counts, count, "zero_counts"),
            _buckets(8, positive, count),
            _buckets(9, negative, count),
            _optional(build.NUMBER, 10, flags, count, np.uint32),
            _exemplars(11, exemplars, count),
            _present(12, mins, count),
            _present(13, maxs, count),
            _optional(build.FIXED64, 14, zero_thresholds, count, np.float64),
            _attributes(1, attributes, count),
        ]
        self._metric(scope, 10, name, unit, description, encode_rows(1, count, fields), _temporality(temporality))

    def summary(
        self,
        scope: int,
        name: str,
        *,
        times: ArrayLike,
        counts: ArrayLike,
        sums: ArrayLike,
        quantiles: ArrayLike,
        quantile_values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
    ) -> None:
        """Adds a summary whose points share their ``quantiles`` F64[q]; ``quantile_values`` is F64[n,q].

        Raises:
            ValueError: The columns differ in length, or a time or count is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        levels = np.asarray(quantiles, np.float64)
        values = np.asarray(quantile_values, np.float64)
        if values.shape != (count, len(levels)):
            raise ValueError(f"expected quantile_values of shape {(count, len(levels))}, got {values.shape}")
        pairs = [MessageField(build.FIXED64, 1, np.tile(levels, count)), MessageField(build.FIXED64, 2, values.ravel())]
        flat = encode_rows(6, values.size, pairs)
        rows = np.arange(count, dtype=np.int32)
        fields = [
            *_point_head(times, start_times, counts, count),
            _optional(build.FIXED64, 5, sums, count, np.float64),
            _raw(Pool(rows, flat.blob, flat.offsets[np.arange(count + 1) * len(levels)])),
            _attributes(7, attributes, count),
            _optional(build.NUMBER, 8, flags, count, np.uint32),
        ]
        self._metric(scope, 11, name, unit, description, encode_rows(1, count, fields))

    def build(self) -> Metrics:
        """The batch of everything that was added."""
        return Metrics(self.build_wire(), self._context)

    def _metric(
        self, scope: int, number: int, name: str, unit: str, description: str, points: Pool, *data_fields: bytes
    ) -> None:
        if not name:
            raise ValueError("the name of a metric must not be empty")
        if points.blob:
            head = (_slice(1, name), _slice(2, description), _slice(3, unit))
            self._add(scope, _message(2, *head, _message(number, points.blob, *data_fields)))


def _number_points(
    times: ArrayLike,
    values: ArrayLike,
    attributes: AttributeRows,
    start_times: ArrayLike | None,
    flags: ArrayLike | None,
    exemplars: Exemplars | None,
) -> Pool:
    count = np.size(times)
    fields = [
        _fixed64(2, start_times, count, "start_times"),
        _fixed64(3, times, count, "times"),
        *_number_values(values, count, double_number=4),
        _exemplars(5, exemplars, count),
        _attributes(7, attributes, count),
        _optional(build.NUMBER, 8, flags, count, np.uint32),
    ]
    return encode_rows(1, count, fields)


def _point_head(
    times: ArrayLike, start_times: ArrayLike | None, counts: ArrayLike, count: int
) -> list[MessageField | None]:
    return [
        _fixed64(2, start_times, count, "start_times"),
        _fixed64(3, times, count, "times"),
        _fixed64(4, counts, count, "counts"),
    ]


def _number_values(values: ArrayLike, count: int, *, double_number: int) -> list[MessageField]:
    """``as_int`` (field 6 in points and exemplars) or ``as_double``; masked rows have neither."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind in "iu":
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"integer values are signed 64-bit: {array.max()} is out of range")
        return [MessageField(build.VALUE64, 6, _rows(array, count, np.int64), _mask(array, count))]
    if array.dtype.kind != "f":
        raise ValueError(f"expected integer or float values, got dtype {array.dtype}")
    return [MessageField(build.VALUE64, double_number, _rows(array, count, np.float64), _mask(array, count))]


def _present(number: int, values: ArrayLike | None, count: int) -> MessageField | None:
    """A double that is written even if it is zero."""
    return (
        None
        if values is None
        else MessageField(build.VALUE64, number, _rows(values, count, np.float64), _mask(values, count))
    )


def _mask(values: ArrayLike, count: int) -> Mask | None:
    if not isinstance(values, np.ma.MaskedArray):
        return None
    return np.broadcast_to(~np.ma.getmaskarray(values), (count,))


def _rows(values: ArrayLike, count: int, dtype: Any) -> Array:
    """One value per row; a single value stands for all rows."""
    array = np.asarray(values).astype(dtype, copy=False)
    if array.ndim and array.shape != (count,):
        raise ValueError(f"expected a column of {count} values, got an array of shape {array.shape}")
    return np.broadcast_to(array, (count,))


def _unsigned(values: ArrayLike, name: str) -> U64:
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
        raise ValueError(f"{name} must be non-negative integers")
    return array.astype(np.uint64, copy=False)


def _fixed64(number: int, values: ArrayLike | None, count: int, name: str) -> MessageField | None:
    return (
        None
        if values is None
        else MessageField(build.FIXED64, number, _rows(_unsigned(values, name), count, np.uint64))
    )


def _optional(kind: int, number: int, values: ArrayLike | None, count: int, dtype: Any) -> MessageField | None:
    return None if values is None else MessageField(kind, number, _rows(values, count, dtype))


def _ids(number: int, values: U64 | None) -> MessageField | None:
    return None if values is None else MessageField(build.ID16, number, values)


def _raw(pool: Pool | None) -> MessageField | None:
    return None if pool is None else MessageField(build.RAW, 1, pool)


def _exemplars(number: int, exemplars: Exemplars | None, count: int) -> MessageField | None:
    return None if exemplars is None else _raw(exemplars.pool(number, count))


def _packed(kind: int, number: int, rows: U64) -> MessageField:
    return MessageField(kind, number, rows.ravel(), np.arange(len(rows) + 1) * rows.shape[1])


def _buckets(number: int, buckets: tuple[ArrayLike, Any] | None, count: int) -> MessageField | None:
    if buckets is None:
        return None
    offsets, counts = buckets
    if isinstance(counts, tuple):
        flat, splits = counts
        packed = MessageField(build.PACKED_NUMBER, 2, _unsigned(flat, "bucket counts"), splits)
    else:
        packed = _packed(build.PACKED_NUMBER, 2, _unsigned(counts, "bucket counts").reshape(count, -1))
    return _raw(
        encode_rows(number, count, [_optional(build.ZIGZAG, 1, offsets, count, np.int32), packed], skip_empty=True)
    )


def _of_owners(items: Pool, owner: ArrayLike, row_count: int, name: str) -> Pool:
    """The items of a pool joined per owner row, in their order."""
    owners = np.asarray(owner, np.int64)
    if len(owners) and (owners.min() < 0 or owners.max() >= row_count):
        raise ValueError(f"the owners of {name} must be rows from 0 to {row_count - 1}")
    rows = np.arange(row_count, dtype=np.int32)
    order = np.argsort(owners, kind="stable")
    blob, offsets = items.blob, items.offsets
    if (order[1:] < order[:-1]).any():
        blob = b"".join([items.bytes_of(value) for value in order.tolist()])
        offsets = offsets_of(np.diff(items.offsets)[order])
    return Pool(rows, blob, offsets[np.searchsorted(owners[order], np.arange(row_count + 1))])


def _pool(codes: I32, values: Sequence[bytes]) -> Pool:
    lengths = np.fromiter((len(value) for value in values), np.int64, len(values))
    return Pool(codes, b"".join(values), offsets_of(lengths))


def _text(number: int, texts: TextRows, count: int) -> MessageField | None:
    if texts is None:
        return None
    if isinstance(texts, str):
        return MessageField(build.TEXT, number, _pool(np.zeros(count, np.int32), [_utf8(texts)]))
    if isinstance(texts, StringColumn):
        return MessageField(build.TEXT, number, _pool(texts.codes, texts.distinct_bytes))
    codes, distinct = _coded(texts)
    return MessageField(build.TEXT, number, _pool(codes, [_utf8(text) for text in distinct]))


def _bodies(number: int, bodies: StringColumn | str | Sequence[Any] | None, count: int) -> MessageField | None:
    """The bodies of log records as AnyValue messages."""
    if bodies is None:
        return None
    if isinstance(bodies, str):
        return MessageField(build.TEXT, number, _pool(np.zeros(count, np.int32), [build.encode_value(bodies)]))
    if isinstance(bodies, StringColumn):
        return MessageField(
            build.TEXT, number, _pool(bodies.codes, [build.encode_value(text) for text in bodies.distinct])
        )
    encoded = [None if body is None else build.encode_value(body) for body in bodies]
    codes, distinct = _coded(encoded)
    return MessageField(build.TEXT, number, _pool(codes, distinct))


def _attributes(number: int, attributes: AttributeRows, count: int) -> MessageField | None:
    if attributes is None:
        return None
    if isinstance(attributes, (Attributes, Mapping)):
        return MessageField(build.RAW, 1, _pool(np.zeros(count, np.int32), [_set(attributes).tagged(number)]))
    if isinstance(attributes, tuple) and len(attributes) == 2 and isinstance(attributes[0], np.ndarray):
        codes, sets = attributes
        return MessageField(build.RAW, 1, _pool(codes, [_set(values).tagged(number) for values in sets]))
    encoded = [None if values is None else _set(values).tagged(number) for values in attributes]
    codes, distinct = _coded(encoded)
    return MessageField(build.RAW, 1, _pool(codes, distinct))


def _coded(values: Sequence[Any]) -> tuple[I32, list[Any]]:
    """The distinct values, and the code of each row's value; -1 for None."""
    seen: dict[Any, int] = {}
    codes = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    return np.array(codes, np.int32), list(seen)


def _set(attributes: AttributeSet) -> Attributes:
    return attributes if isinstance(attributes, Attributes) else Attributes(attributes)


def _temporality(temporality: int) -> bytes:
    if temporality not in range(3):
        raise ValueError(f"expected temporality 0 (unspecified), 1 (delta) or 2 (cumulative), got {temporality}")
    return bytes((0x10, temporality)) if temporality else b""


def _utf8(text: str) -> bytes:
    """The text as UTF-8, with U+FFFD for lone surrogates, as the door repairs invalid UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _slice(number: int, text: str) -> bytes:
    """A text field; no bytes for an empty text."""
    return _message(number, _utf8(text)) if text else b""


def _message(number: int, *content: bytes) -> bytes:
    """A length-delimited field with a number up to 15."""
    size = sum(map(len, content))
    head = bytearray((number << 3 | 2,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return b"".join((bytes(head), *content))
