"""Finds the two sides of each request, within a batch and between batches, in a store bounded in size and time.

The rules are the Collector's, which applies them span by span in the order of arrival: a span joins the open edge of
its key, or else opens one. An edge with both sides is complete and leaves the store, so the next span of its key opens
another. A second span of the same side replaces the first.

Here the rules are applied to all spans of a batch at once. Sorted by key, the spans of one key form runs of the same
side, and each edge consists of what remains of one run and the first span of the next run. Whether the first span of a
run is taken by the run before it alternates while runs have a single span, and is certain after a longer run: nothing
else has to be known.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from collector.model import KeyTable, groups
from collector.model.arrays import F64, I32, I64, U8, Array, Mask
from collector.model.checkpoint import CheckpointError, Part, Parts
from collector.model.runs import run_starts
from connectors.service_graph.spans import DATABASE, VIRTUAL, RequestSides
from connectors.service_graph.text_codes import TextCodes

__all__ = ["VIRTUAL_NODES", "Edges", "PairingResult", "SpanStore", "UnpairedResult", "resolve_unpaired"]


VIRTUAL_NODES: Final = ("", "client", "server")
_USER: Final = "user"
_UNKNOWN: Final = "unknown"
_TEXT_COLUMNS: Final = ("service", "peer", "dimensions")
_STORED_COLUMNS: Final = ("is_client", "service", "peer", "connection", "failed", "seconds", "weight", "dimensions")


@dataclass(frozen=True, slots=True)
class Edges:
    """Requests, one per row. Texts are codes of ``TextCodes``."""

    client: I32
    server: I32
    connection: U8
    """An index of ``CONNECTION_TYPES``."""
    failed: Mask
    virtual: U8
    """The side of which there was no span: an index of ``VIRTUAL_NODES``."""
    weight: F64
    client_seconds: F64
    server_seconds: F64
    dimensions: I32
    """I32[n, 2·d]: those of the client, then those of the server."""

    def __len__(self) -> int:
        return len(self.client)


@dataclass(frozen=True, slots=True)
class UnpairedResult:
    """What became of spans without a pair."""

    edges: Edges
    """Of spans that make an edge with a virtual node."""
    unpaired: RequestSides
    """The other spans."""


@dataclass(frozen=True, slots=True)
class PairingResult:
    """What became of a batch of spans."""

    edges: Edges
    opened_count: int
    """How many edges were begun."""
    expired: RequestSides
    """Spans whose time had run out and that left the store to make room."""
    rejected: RequestSides
    """Spans without a pair for which the store had no room."""
    rejected_count: int
    """The spans of ``rejected``, and the earlier spans of the same side that they had replaced."""


class SpanStore:
    """Spans that wait for their pair, one per key."""

    def __init__(self, dimension_count: int) -> None:
        self._table = KeyTable(
            {
                "is_client": np.bool_,
                "service": np.int32,
                "peer": np.int32,
                "connection": np.uint8,
                "failed": np.bool_,
                "seconds": np.float64,
                "weight": np.float64,
                "dimensions": (np.int32, (dimension_count,)),
                "deadline": np.float64,
            }
        )

    def __len__(self) -> int:
        return len(self._table)

    def codes_in_use(self) -> I32:
        """The codes of all texts of waiting spans."""
        live = self._table.live()
        return np.concatenate([self._table.column(name)[live].ravel() for name in _TEXT_COLUMNS])

    def parts(self) -> dict[str, Part]:
        """The waiting spans, for a checkpoint."""
        return self._table.snapshot()

    def restore(self, parts: Parts, text_count: int, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to deadlines.

        Raises:
            CheckpointError: They are not those of such a store, or have codes above ``text_count``.
        """
        self._table.restore(parts)
        codes = self.codes_in_use()
        if len(codes) and not 0 <= codes.min() <= codes.max() <= text_count:
            raise CheckpointError("a waiting span has a text that is not known")
        self._table.column("deadline")[self._table.live()] += elapsed_s

    def recode(self, new_codes: I32) -> None:
        """Replace all codes, after ``TextCodes.compact``."""
        live = self._table.live()
        for name in _TEXT_COLUMNS:
            column = self._table.column(name)
            column[live] = new_codes[column[live]]

    def add(self, sides: RequestSides, *, now_s: float, ttl_s: float, limit: int) -> PairingResult:
        """Pair spans with each other and with waiting ones; those that remain wait, up to ``limit`` of them."""
        by_key = groups(sides.key)
        order = np.argsort(by_key.codes, kind="stable")
        group, sides = by_key.codes[order], sides.take(order)
        slots = self._table.find(sides.key)
        column = self._table.column
        stored_is_client = (slots >= 0) & column("is_client")[slots]
        first = np.flatnonzero(_edge_starts(group, sides.is_client, sides.database > 0, slots >= 0, stored_is_client))
        last = np.append(first[1:], len(sides)) - 1
        # Of each edge: the slot of the stored span that it continues, and its last span of either side. -1 means none
        # and is masked wherever the index is used.
        slot = np.where(run_starts(group)[first], slots[first], np.int32(-1))
        positions = np.arange(len(sides))
        client = np.maximum.reduceat(np.where(sides.is_client, positions, -1), first)
        server = np.maximum.reduceat(np.where(sides.is_client, -1, positions), first)
        from_client = (slot >= 0) & column("is_client")[slot]
        from_server = (slot >= 0) & ~column("is_client")[slot]
        failed = np.logical_or.reduceat(sides.failed, first) | ((slot >= 0) & column("failed")[slot])
        weight = np.maximum(np.maximum.reduceat(sides.weight, first), np.where(slot >= 0, column("weight")[slot], 0.0))
        is_database = (client >= 0) & (sides.database[client] > 0)
        is_complete = ((client >= 0) | from_client) & ((server >= 0) | from_server | is_database)

        def newest_of(values: Array, name: str, newest: I64, is_stored: Mask) -> Array:
            """The value of the newest span of a side, else the stored one, for complete edges."""
            wide = (slice(None), *[None] * (values.ndim - 1))
            stored = np.where(is_stored[wide], column(name)[slot], column(name).dtype.type(0))
            found: Array = np.where((newest >= 0)[wide], values[newest], stored)[is_complete]
            return found

        client_seconds = newest_of(sides.seconds, "seconds", client, from_client)
        database = is_database[is_complete]
        edges = Edges(
            client=newest_of(sides.service, "service", client, from_client),
            server=np.where(
                database, sides.database[client[is_complete]], newest_of(sides.service, "service", server, from_server)
            ),
            connection=np.where(database, np.uint8(DATABASE), sides.connection[last[is_complete]]),
            failed=failed[is_complete],
            virtual=np.zeros(len(database), np.uint8),
            weight=weight[is_complete],
            client_seconds=client_seconds,
            server_seconds=np.where(database, client_seconds, newest_of(sides.seconds, "seconds", server, from_server)),
            dimensions=np.concatenate(
                [
                    newest_of(sides.dimensions, "dimensions", client, from_client),
                    newest_of(sides.dimensions, "dimensions", server, from_server),
                ],
                axis=1,
            ),
        )
        opened_count = int(np.count_nonzero(slot < 0))

        waiting = replace(sides.take(last), failed=failed, weight=weight)
        is_stored = ~is_complete & (slot >= 0)
        self._write(slot[is_stored], waiting.take(is_stored))
        self._table.remove(slot[is_complete])
        is_new = ~is_complete & (slot < 0)
        newcomers, span_counts = waiting.take(is_new), (last - first + 1)[is_new]
        expired = sides.take(np.empty(0, np.int64))
        if len(self) + len(newcomers) > limit:
            expired = self.expire(now_s)
        new_slots, _ = self._table.insert(newcomers.key, limit)
        has_room = new_slots >= 0
        self._write(new_slots[has_room], newcomers.take(has_room))
        self._table.column("deadline")[new_slots[has_room]] = now_s + ttl_s
        rejected = newcomers.take(~has_room)
        rejected_count = int(span_counts[~has_room].sum())
        return PairingResult(edges, opened_count - len(rejected), expired, rejected, rejected_count)

    def expire(self, now_s: float | None = None) -> RequestSides:
        """Remove the spans whose time ran out before ``now_s``, or all if it is None, and return them."""
        live = self._table.live()
        if now_s is not None:
            live = live[self._table.column("deadline")[live] < now_s]
        columns = {name: self._table.column(name)[live] for name in _STORED_COLUMNS}
        key = self._table.keys(live)
        self._table.remove(live)
        none = np.zeros(len(live), np.int32)
        return RequestSides(key=key, is_root=np.zeros(len(live), np.bool_), database=none, **columns)

    def _write(self, slots: I32, sides: RequestSides) -> None:
        for name in _STORED_COLUMNS:
            self._table.column(name)[slots] = getattr(sides, name)


def resolve_unpaired(sides: RequestSides, texts: TextCodes, *, virtual_nodes: bool) -> UnpairedResult:
    """Make edges of spans without a pair: from a client to its peer, and from ``user`` to a server without a parent."""
    becomes_edge = (sides.is_client | sides.is_root) & virtual_nodes
    known = sides.take(becomes_edge)
    is_client = known.is_client
    of_client = is_client[:, None]
    absent = np.zeros_like(known.dimensions)
    peer = np.where(known.peer > 0, known.peer, np.int32(texts.code(_UNKNOWN)))
    edges = Edges(
        client=np.where(is_client, known.service, np.int32(texts.code(_USER))),
        server=np.where(is_client, peer, known.service),
        connection=np.full(len(known), VIRTUAL, np.uint8),
        failed=known.failed,
        virtual=np.where(is_client, np.uint8(VIRTUAL_NODES.index("server")), np.uint8(VIRTUAL_NODES.index("client"))),
        weight=known.weight,
        client_seconds=np.where(is_client, known.seconds, 0.0),
        server_seconds=np.where(is_client, 0.0, known.seconds),
        dimensions=np.concatenate(
            [np.where(of_client, known.dimensions, absent), np.where(of_client, absent, known.dimensions)], axis=1
        ),
    )
    return UnpairedResult(edges, sides.take(~becomes_edge))


def _edge_starts(group: I32, is_client: Mask, is_whole: Mask, has_stored: Mask, stored_is_client: Mask) -> Mask:
    """bool[n]: the spans with which an edge begins, or continues from a stored span.

    A complete request (a database call) closes the open edge of its key, if there is one. What follows is independent
    of what came before: a new part begins.

    Args:
        group: The key of each span, ascending; the spans of one key are in order of arrival.
        is_client: The side of each span.
        is_whole: Spans that are complete requests.
        has_stored: Spans whose key is in the store.
        stored_is_client: The side of the stored span.
    """
    count = len(group)
    part = np.cumsum(run_starts(group) | np.append(False, is_whole[:-1]))
    rows = np.flatnonzero(~is_whole)
    starts = np.zeros(count, np.bool_)
    ends_open = np.zeros(part[-1] + 1, np.bool_)  # whether an edge is open at the end of each part
    is_group_start = run_starts(group)
    if len(rows):
        run_start = np.flatnonzero(run_starts(part[rows]) | run_starts(is_client[rows]))
        length = np.diff(np.append(run_start, len(rows)))
        row = rows[run_start]
        is_first = run_starts(part[row])
        is_taken = _taken(
            length,
            is_first,
            is_first & is_group_start[row] & has_stored[row] & (stored_is_client[row] != is_client[row]),
        )
        starts[row[~is_taken | is_first]] = True
        has_rest = is_taken & (length > 1)
        starts[rows[run_start[has_rest] + 1]] = True
        is_last = np.append(is_first[1:], True)
        ends_open[part[row[is_last]]] = ~is_taken[is_last] | has_rest[is_last]
    starts[is_whole & ~ends_open[part]] = True
    return starts


def _taken(length: I64, is_first: Mask, first_is_taken: Mask) -> Mask:
    """bool[r]: whether the first span of each run completes the edge before it."""
    # After a longer run an edge is always open; after a single span only if that span was not taken itself.
    is_certain = is_first | np.append(False, length[:-1] > 1)
    runs = np.arange(len(length))
    base = np.maximum.accumulate(np.where(is_certain, runs, 0))
    value = np.where(is_first, first_is_taken, True)[base]
    taken: Mask = value ^ ((runs - base) % 2 == 1)
    return taken
