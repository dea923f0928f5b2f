"""Finds the two sides of each request: within a batch, and between batches in a store with a bound and a time limit.

The rules are the Collector's, applied span by span in the order of arrival: a span joins the open edge of its key, else
opens one; an edge with both sides is complete and gone, so the next span of its key opens another; a second span of one
side takes the place of the first. Here they are applied to all spans of a batch at once. Sorted by key, the spans of
one key are runs of one side; each edge takes what is left of a run and the first span of the next. Whether the first
span of a run was taken by the run before ("taken") alternates while runs are single spans and is certain after a longer
one: that is all that has to be known.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import KeyTable, groups
from collector.model.arrays import F64, I32, I64, U8, Array, Mask
from connectors.service_graph.spans import DATABASE, VIRTUAL, Halves
from connectors.service_graph.texts import Texts

__all__ = ["VIRTUAL_NODES", "Edges", "Pairs", "Store", "Unpaired", "unpaired"]


VIRTUAL_NODES: Final = ("", "client", "server")
_USER: Final = "user"
_UNKNOWN: Final = "unknown"
_TEXTS: Final = ("service", "peer", "dimensions")
_KEPT: Final = ("is_client", "service", "peer", "connection", "failed", "seconds", "weight", "dimensions")


@dataclass(frozen=True, slots=True)
class Edges:
    """Requests, one a row; codes are of ``Texts``."""

    client: I32
    server: I32
    connection: U8
    failed: Mask
    virtual: U8
    """Which side nobody saw: an index of ``VIRTUAL_NODES``."""
    weight: F64
    client_seconds: F64
    server_seconds: F64
    dimensions: I32
    """I32[n, 2·d]: of the client, then of the server."""

    def __len__(self) -> int:
        return len(self.client)


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Spans whose pair did not come, and the edges some of them make on their own."""

    edges: Edges
    lone: Halves
    """The others."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What became of a batch of spans."""

    edges: Edges
    opened_count: int
    """Edges begun."""
    expired: Halves
    """Spans that had to leave the store for newer ones: their time had run out."""
    homeless: Halves
    """Spans that found neither their pair nor room to wait for it."""
    homeless_count: int
    """The spans of ``homeless`` and those they had taken the place of."""


class Store:
    """Spans that wait for their pair, one a key."""

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
        """Of ``Texts``."""
        live = self._table.live()
        return np.concatenate([self._table.column(name)[live].ravel() for name in _TEXTS])

    def recode(self, moved: I32) -> None:
        """``Texts`` has other codes now."""
        live = self._table.live()
        for name in _TEXTS:
            column = self._table.column(name)
            column[live] = moved[column[live]]

    def add(self, halves: Halves, *, now_s: float, ttl_s: float, limit: int) -> Pairs:
        """Joins spans with each other and with those that wait; what is left of them waits."""
        by_key = groups(halves.key)
        order = np.argsort(by_key.codes, kind="stable")
        group, halves = by_key.codes[order], halves.take(order)
        slots = self._table.find(halves.key)
        column = self._table.column
        stored_is_client = (slots >= 0) & column("is_client")[slots]
        first = np.flatnonzero(_begins(group, halves.is_client, halves.database > 0, slots >= 0, stored_is_client))
        last = np.append(first[1:], len(halves)) - 1
        # Of each edge: the slot it goes on from, its last span of either side. An index of -1 is masked wherever it is
        # used.
        slot = np.where(_changes(group)[first], slots[first], np.int32(-1))
        positions = np.arange(len(halves))
        client = np.maximum.reduceat(np.where(halves.is_client, positions, -1), first)
        server = np.maximum.reduceat(np.where(halves.is_client, -1, positions), first)
        from_client = (slot >= 0) & column("is_client")[slot]
        from_server = (slot >= 0) & ~column("is_client")[slot]
        failed = np.logical_or.reduceat(halves.failed, first) | ((slot >= 0) & column("failed")[slot])
        weight = np.maximum(np.maximum.reduceat(halves.weight, first), np.where(slot >= 0, column("weight")[slot], 0.0))
        is_database = (client >= 0) & (halves.database[client] > 0)
        is_complete = ((client >= 0) | from_client) & ((server >= 0) | from_server | is_database)

        def of(values: Array, name: str, newest: I64, is_stored: Mask) -> Array:
            wide = (slice(None), *[None] * (values.ndim - 1))
            stored = np.where(is_stored[wide], column(name)[slot], column(name).dtype.type(0))
            chosen: Array = np.where((newest >= 0)[wide], values[newest], stored)[is_complete]
            return chosen

        client_seconds = of(halves.seconds, "seconds", client, from_client)
        database = is_database[is_complete]
        edges = Edges(
            client=of(halves.service, "service", client, from_client),
            server=np.where(
                database, halves.database[client[is_complete]], of(halves.service, "service", server, from_server)
            ),
            connection=np.where(database, np.uint8(DATABASE), halves.connection[last[is_complete]]),
            failed=failed[is_complete],
            virtual=np.zeros(len(database), np.uint8),
            weight=weight[is_complete],
            client_seconds=client_seconds,
            server_seconds=np.where(database, client_seconds, of(halves.seconds, "seconds", server, from_server)),
            dimensions=np.concatenate(
                [
                    of(halves.dimensions, "dimensions", client, from_client),
                    of(halves.dimensions, "dimensions", server, from_server),
                ],
                axis=1,
            ),
        )
        opened_count = int(np.count_nonzero(slot < 0))

        stays = ~is_complete & (slot >= 0)
        waiting = _merged(halves.take(last), failed, weight)
        self._write(slot[stays], waiting.take(stays))
        self._table.remove(slot[is_complete])
        comes = ~is_complete & (slot < 0)
        newcomers, size = waiting.take(comes), (last - first + 1)[comes]
        expired = halves.take(np.empty(0, np.int64))
        if len(self) + len(newcomers) > limit:
            expired = self.expire(now_s)
        given, _ = self._table.insert(newcomers.key, limit)
        has_room = given >= 0
        self._write(given[has_room], newcomers.take(has_room))
        self._table.column("deadline")[given[has_room]] = now_s + ttl_s
        homeless = newcomers.take(~has_room)
        return Pairs(edges, opened_count - len(homeless), expired, homeless, int(size[~has_room].sum()))

    def expire(self, now_s: float | None = None) -> Halves:
        """Takes out the spans whose time has run out before ``now_s``; None: all."""
        live = self._table.live()
        if now_s is not None:
            live = live[self._table.column("deadline")[live] < now_s]
        columns = {name: self._table.column(name)[live] for name in _KEPT}
        key = self._table.keys(live)
        self._table.remove(live)
        none = np.zeros(len(live), np.int32)
        return Halves(key=key, is_root=np.zeros(len(live), np.bool_), database=none, **columns)

    def _write(self, slots: I32, halves: Halves) -> None:
        for name in _KEPT:
            self._table.column(name)[slots] = getattr(halves, name)


def unpaired(halves: Halves, texts: Texts, *, virtual_nodes: bool) -> Unpaired:
    """Edges to and from nodes that nobody saw: a client's peer, and the ``user`` who called a server that has no parent."""
    becomes_edge = (halves.is_client | halves.is_root) & virtual_nodes
    taken = halves.take(becomes_edge)
    is_client = taken.is_client
    side = is_client[:, None]
    none = np.zeros_like(taken.dimensions)
    peer = np.where(taken.peer > 0, taken.peer, np.int32(texts.code(_UNKNOWN)))
    edges = Edges(
        client=np.where(is_client, taken.service, np.int32(texts.code(_USER))),
        server=np.where(is_client, peer, taken.service),
        connection=np.full(len(taken), VIRTUAL, np.uint8),
        failed=taken.failed,
        virtual=np.where(is_client, np.uint8(VIRTUAL_NODES.index("server")), np.uint8(VIRTUAL_NODES.index("client"))),
        weight=taken.weight,
        client_seconds=np.where(is_client, taken.seconds, 0.0),
        server_seconds=np.where(is_client, 0.0, taken.seconds),
        dimensions=np.concatenate(
            [np.where(side, taken.dimensions, none), np.where(side, none, taken.dimensions)], axis=1
        ),
    )
    return Unpaired(edges, halves.take(~becomes_edge))


def _merged(halves: Halves, failed: Mask, weight: F64) -> Halves:
    return Halves(**{name: getattr(halves, name) for name in Halves.__slots__} | {"failed": failed, "weight": weight})


def _changes(values: Array) -> Mask:
    """bool[n]: the row differs from the one before, or is the first."""
    return np.append(True, values[1:] != values[:-1])


def _begins(group: I32, is_client: Mask, is_whole: Mask, has_stored: Mask, stored_is_client: Mask) -> Mask:
    """bool[n]: the spans that begin an edge, or go on with a stored one. ``group`` ascends; one key's spans are in order of arrival.

    A whole request (database) takes the open edge of its key with it, if there is one; what comes after it begins anew:
    a part ends there.
    """
    count = len(group)
    part = np.cumsum(_changes(group) | np.append(False, is_whole[:-1]))
    rows = np.flatnonzero(~is_whole)
    begins = np.zeros(count, np.bool_)
    is_left = np.zeros(part[-1] + 1, np.bool_)  # something is open at the end of the part
    is_group_start = _changes(group)
    if len(rows):
        run_start = np.flatnonzero(_changes(part[rows]) | _changes(is_client[rows]))
        length = np.diff(np.append(run_start, len(rows)))
        row = rows[run_start]
        is_first = _changes(part[row])
        is_taken = _taken(
            length,
            is_first,
            is_first & is_group_start[row] & has_stored[row] & (stored_is_client[row] != is_client[row]),
        )
        begins[row[~is_taken | is_first]] = True
        goes_on = is_taken & (length > 1)
        begins[rows[run_start[goes_on] + 1]] = True
        is_last = np.append(is_first[1:], True)
        is_left[part[row[is_last]]] = ~is_taken[is_last] | goes_on[is_last]
    begins[is_whole & ~is_left[part]] = True
    return begins


def _taken(length: I64, is_first: Mask, first_is_taken: Mask) -> Mask:
    """bool[r]: of each run, whether its first span completes the edge before it."""
    # After a longer run something is left for certain; after a single span only if that was not taken itself.
    is_certain = is_first | np.append(False, length[:-1] > 1)
    runs = np.arange(len(length))
    base = np.maximum.accumulate(np.where(is_certain, runs, 0))
    value = np.where(is_first, first_is_taken, True)[base]
    taken: Mask = value ^ ((runs - base) % 2 == 1)
    return taken
