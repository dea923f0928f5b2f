"""Columns of the CLIENT, PRODUCER, SERVER and CONSUMER spans of a batch: each is one side of a request.

Both sides of a request have the same key: the trace id and the span id of the client, which is the parent of the server
span.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import Traces, combine_keys
from collector.model.arrays import F64, I32, U8, U64, Array, Mask
from collector.otlp.adjusted_count import adjusted_counts
from collector.otlp.semantics import (
    SPAN_KIND_CLIENT,
    SPAN_KIND_CONSUMER,
    SPAN_KIND_PRODUCER,
    SPAN_KIND_SERVER,
    STATUS_CODE_ERROR,
)
from collector.otlp.span_durations import span_durations
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.text_codes import TextCodes

__all__ = ["CONNECTION_TYPES", "DATABASE", "MESSAGING", "UNSET", "VIRTUAL", "RequestSides", "read_sides"]


UNSET, MESSAGING, DATABASE, VIRTUAL = range(4)
CONNECTION_TYPES: Final = ("", "messaging_system", "database", "virtual_node")


@dataclass(frozen=True, slots=True)
class RequestSides:
    """One side of a request per row. Texts are codes of ``TextCodes``; 0: there is none."""

    key: U64
    is_client: Mask
    is_root: Mask
    """A server span without a parent: its caller sends no spans."""
    service: I32
    database: I32
    """The name of the database; a client with one is a complete request on its own."""
    peer: I32
    """A client's name for its server, which is used if no server span arrives."""
    connection: U8
    """An index of ``CONNECTION_TYPES``."""
    failed: Mask
    seconds: F64
    weight: F64
    """How many requests the span stands for: its adjusted count."""
    dimensions: I32
    """I32[n, d]: the values of the configured dimensions."""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Array) -> "RequestSides":
        """Some rows: a mask or indices."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once, instead of once per column
        return RequestSides(*(getattr(self, name)[rows] for name in self.__slots__))


def read_sides(batch: Traces, config: ServiceGraphConfig, texts: TextCodes) -> tuple[RequestSides | None, int, int]:
    """The sides of requests in a batch, how many spans would be one but have no service, and how many wrong times.

    The sides are in the order of the batch; None: there are none.
    """
    kinds = batch.field("kind")
    rows = np.flatnonzero((kinds >= SPAN_KIND_SERVER) & (kinds <= SPAN_KIND_CONSUMER))
    if not len(rows):
        return None, 0, 0
    resources = batch.ancestor("resources")[rows]
    service = _text(batch, "service.name", "resources", texts, resources)
    named = service != 0
    nameless_count = len(rows) - int(np.count_nonzero(named))
    if nameless_count:
        rows, resources, service = rows[named], resources[named], service[named]
        if not len(rows):
            return None, nameless_count, 0
    kinds = kinds[rows]
    is_client = (kinds == SPAN_KIND_CLIENT) | (kinds == SPAN_KIND_PRODUCER)
    parents = batch.field("parent_span_id")[rows]
    trace_ids = batch.field("trace_id")[rows]
    durations_ns, is_invalid = span_durations(
        batch.field("start_time_unix_nano")[rows], batch.field("end_time_unix_nano")[rows]
    )
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
    sides = RequestSides(
        key=combine_keys(trace_ids, np.where(is_client, batch.field("span_id")[rows], parents)),
        is_client=is_client,
        is_root=~is_client & (parents == 0),
        service=service,
        database=database,
        peer=peer,
        connection=connection,
        failed=batch.field("status_code")[rows] == STATUS_CODE_ERROR,
        seconds=durations_ns / 1e9,
        weight=adjusted_counts(batch.field("trace_state").take(rows))[0],
        dimensions=dimensions,
    )
    return sides, nameless_count, int(np.count_nonzero(is_invalid))


def _first_text(
    batch: Traces, keys: tuple[str, ...], texts: TextCodes, rows: Array, resources: I32, *, keep_empty: bool = False
) -> I32:
    """The code of the first of ``keys`` that is present, in the resource or else on the span."""
    codes = np.zeros(len(rows), np.int32)
    for key in keys:
        for table, table_rows in (("resources", resources), ("item", rows)):
            if not codes.all():
                codes = np.where(codes == 0, _text(batch, key, table, texts, table_rows, keep_empty=keep_empty), codes)
    return codes


def _text(batch: Traces, key: str, table: str, texts: TextCodes, rows: Array, *, keep_empty: bool = False) -> I32:
    """The code of the attribute at ``rows`` of the table."""
    if batch.attributes(table).code_of(key) < 0:
        return np.zeros(len(rows), np.int32)
    return texts.codes(batch.attribute(key, table).as_text(), rows, keep_empty=keep_empty)
