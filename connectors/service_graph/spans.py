"""What each CLIENT, PRODUCER, SERVER or CONSUMER span says of a request, as columns.

A request's client span and server span have one key: trace id and the client's span id, which is the server's parent.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import StringColumn, Traces, combine_keys
from collector.model.arrays import F64, I32, U8, U64, Array, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state
from collector.otlp.semantics import (
    SPAN_KIND_CLIENT,
    SPAN_KIND_CONSUMER,
    SPAN_KIND_PRODUCER,
    SPAN_KIND_SERVER,
    STATUS_CODE_ERROR,
)
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.texts import Texts

__all__ = ["CONNECTION_TYPES", "DATABASE", "MESSAGING", "UNSET", "VIRTUAL", "Halves", "read"]


UNSET, MESSAGING, DATABASE, VIRTUAL = range(4)
CONNECTION_TYPES: Final = ("", "messaging_system", "database", "virtual_node")
_WHOLE: Final = 1 << RANDOMNESS_BITS
_ADJUSTED_MAX: Final = 2.0**32
"""A sampler that keeps fewer than one in 4 billion is none: one such span must not fill the counters."""


@dataclass(frozen=True, slots=True)
class Halves:
    """One side of a request a row; codes are of ``Texts``."""

    key: U64
    is_client: Mask
    is_root: Mask
    """A server without a parent: nobody we know has called it."""
    service: I32
    database: I32
    """The database's name: such a client is a whole request; else 0."""
    peer: I32
    """What a client says of the server nobody may see; else 0."""
    connection: U8
    failed: Mask
    seconds: F64
    weight: F64
    """How many requests the span stands for (``ot=th``), 1 where it was not sampled."""
    dimensions: I32
    """I32[n, d]."""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Array) -> "Halves":
        """The rows of a mask or of indices."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once, not a column
        return Halves(*(getattr(self, name)[rows] for name in self.__slots__))


def read(batch: Traces, config: ServiceGraphConfig, texts: Texts) -> tuple[Halves | None, int]:
    """The sides of requests in the batch, in its order (None: there is none), and how many spans have a kind but no service name."""
    kinds = batch.field("kind")
    rows = np.flatnonzero((kinds >= SPAN_KIND_SERVER) & (kinds <= SPAN_KIND_CONSUMER))
    if not len(rows):
        return None, 0
    resources = batch.ancestor("resources")[rows]
    service = _text(batch, "service.name", "resources", texts, resources)
    named = service != 0
    nameless_count = len(rows) - int(np.count_nonzero(named))
    if nameless_count:
        rows, resources, service = rows[named], resources[named], service[named]
        if not len(rows):
            return None, nameless_count
    kinds = kinds[rows]
    is_client = (kinds == SPAN_KIND_CLIENT) | (kinds == SPAN_KIND_PRODUCER)
    parents = batch.field("parent_span_id")[rows]
    trace_ids = batch.field("trace_id")[rows]
    start, end = batch.field("start_time_unix_nano")[rows], batch.field("end_time_unix_nano")[rows]
    database = np.where(is_client, _first_text(batch, config.database_keys, texts, rows, resources), np.int32(0))
    connection = np.where((kinds == SPAN_KIND_PRODUCER) | (kinds == SPAN_KIND_CONSUMER), MESSAGING, UNSET).astype(
        np.uint8
    )
    connection[database > 0] = DATABASE
    peer = np.zeros(len(rows), np.int32)
    for key in config.virtual_node_peer_attributes:
        peer = np.where(peer == 0, _text(batch, key, "item", texts, rows), peer)
    dimensions = np.zeros((len(rows), len(config.dimensions)), np.int32)
    for column, key in enumerate(config.dimensions):
        dimensions[:, column] = _first_text(batch, (key,), texts, rows, resources, keep_empty=True)
    halves = Halves(
        key=combine_keys(trace_ids, np.where(is_client, batch.field("span_id")[rows], parents)),
        is_client=is_client,
        is_root=~is_client & (parents == 0),
        service=service,
        database=database,
        peer=peer,
        connection=connection,
        failed=batch.field("status_code")[rows] == STATUS_CODE_ERROR,
        seconds=np.where(end > start, end - start, np.uint64(0)) / 1e9,
        weight=_weights(batch.field("trace_state"), rows),
        dimensions=dimensions,
    )
    return halves, nameless_count


def _first_text(
    batch: Traces, keys: tuple[str, ...], texts: Texts, rows: Array, resources: I32, *, keep_empty: bool = False
) -> I32:
    """The first of ``keys`` that is present, in the resource or else on the span."""
    found = np.zeros(len(rows), np.int32)
    for key in keys:
        for table, where in (("resources", resources), ("item", rows)):
            if not found.all():
                found = np.where(found == 0, _text(batch, key, table, texts, where, keep_empty=keep_empty), found)
    return found


def _text(batch: Traces, key: str, table: str, texts: Texts, rows: Array, *, keep_empty: bool = False) -> I32:
    """The attribute as text at ``rows`` of the table."""
    if batch.attributes(table).code_of(key) < 0:
        return np.zeros(len(rows), np.int32)
    return texts.codes(batch.attribute(key, table).as_text(), rows, keep_empty=keep_empty)


def _weights(states: StringColumn, rows: Array) -> F64:
    """The adjusted counts: 1 / the probability the span was kept with. Source: tracestate-probability-sampling, "Adjusted counts"."""
    if not states.present.any():
        return np.ones(len(rows))
    counts = np.array([*map(_adjusted_count, states.distinct), 1.0])
    found: F64 = counts[states.codes[rows]]
    return found


def _adjusted_count(trace_state: str) -> float:
    state = read_trace_state(trace_state)
    if state.threshold is None or not state.is_valid:
        return 1.0
    # in integers: as a float the largest threshold is the whole
    return min(_WHOLE / (_WHOLE - state.threshold), _ADJUSTED_MAX)
