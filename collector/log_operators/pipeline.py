"""A list of operators at work on blocks of entries: what ``file_log``, ``syslog``, ``tcp_log`` and others share."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from collector.log_operators import config as configs
from collector.log_operators.block import Block
from collector.log_operators.conditions import Condition, Rows, Template
from collector.log_operators.container import Container
from collector.log_operators.entries import Entries, Path
from collector.log_operators.fields import ATTRIBUTES, RESOURCE
from collector.log_operators.operators import Operator, Report, Transformer, transformer_of
from collector.log_operators.recombine import Recombine
from collector.log_operators.records import encode_records, group_records
from collector.log_operators.slices import whole_characters
from collector.model import Logs
from collector.model.context import EMPTY_CONTEXT, Context
from collector.wire.protobuf import LENGTH_DELIMITED, field_tag, varint

__all__ = ["Pipeline"]

_SLICE_BYTES: Final = 512 * 1024  # of the texts that are worked on at a time: their values take many times as much


class Pipeline:
    """Operators, connected by their outputs.

    A block of entries goes in, and Logs come out; groups of ``recombine`` and ``container`` that are not complete stay
    inside until more entries or :meth:`flush` complete them. It does no I/O and needs no loop.

    >>> from collector.log_operators import Block, Pipeline, operator_configs
    >>> pipeline = Pipeline(operator_configs([{"type": "json_parser"}]), report=NoReport())
    >>> (logs,) = pipeline.process(Block.of_texts([b'{"level": "INFO"}'], observed_time_unix_nano=1))
    >>> logs.attribute("level").text.to_list()
    ['INFO']
    """

    def __init__(
        self,
        operators: Sequence[configs.AnyOperatorConfig],
        *,
        report: Report,
        attributes: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        first: Sequence[Transformer] = (),
    ) -> None:
        """Connect the operators.

        ``attributes`` and ``resource`` are set on every entry before the first operator; there may be expressions in
        their values, as in ``host-EXPR(env("HOST"))``. ``first`` are operators of the receiver itself.

        Raises:
            ValueError: An output does not exist, or the operators form a circle; the message names operator and key.
        """
        self._report = report
        self._templates = [
            (Path(root, [key], key), Template(str(text)))
            for root, texts in ((ATTRIBUTES, attributes or {}), (RESOURCE, resource or {}))
            for key, text in texts.items()
        ]
        ids = _ids(operators)
        self._nodes: list[_Node] = [_Node(operator, []) for operator in first]
        for operator_id, config in zip(ids, operators, strict=True):
            self._nodes.append(_node(operator_id, config, report))
        _connect(self._nodes, [*[()] * len(first), *(_outputs(config) for config in operators)], len(first))
        self._holding = [
            (number, node.operator.recombine if isinstance(node.operator, Container) else node.operator)
            for number, node in enumerate(self._nodes)
            if isinstance(node.operator, (Container, Recombine))
        ]

    def process(self, block: Block, context: Context = EMPTY_CONTEXT) -> list[Logs]:
        """The Logs that the entries of a block become: one for each part of about 512 KiB.

        Entries that are held come with a later block or :meth:`flush`, with the context that is given there.
        """
        made: list[Logs] = []
        count = len(block)
        codes = block.attribute_codes
        if codes is None:
            codes = np.zeros(count, np.int32)
        is_checked = _is_utf8(block)
        observed = np.broadcast_to(np.asarray(block.observed_time_unix_nano, np.int64), (count,))
        for begin, end in _slices(block):
            entries = Entries()
            part = slice(begin, end)
            rows = entries.add_block(
                block.text,
                np.ascontiguousarray(block.starts[part], np.int64),
                np.ascontiguousarray(block.ends[part], np.int64),
                np.ascontiguousarray(observed[part]),
                list(block.attributes),
                np.ascontiguousarray(codes[part], np.int32),
                {key: np.ascontiguousarray(values[part], np.int64) for key, values in block.numbers.items()},
                block.resource,
                is_checked,
            )
            for path, template in self._templates:
                if template.constant is not None:
                    entries.set_value(rows, path, template.constant)
                else:
                    entries.set_values(rows, path, template.of(entries, rows))
            for _, holder in self._holding:
                holder.token = block.token
            made += self._emit(entries, self._run(entries, {0: rows}), context)
        return made

    def flush(self, now_unix_nano: int | None = None, context: Context = EMPTY_CONTEXT) -> list[Logs]:
        """The Logs of the groups that are due; all that are held if there is no time, as at a shutdown."""
        made: list[Logs] = []
        for number, holder in self._holding:
            entries = Entries()
            rows = holder.flush(entries, now_unix_nano)
            if len(rows):
                made += self._emit(entries, self._spread(entries, number, rows, {}), context)
        return made

    def held_items(self) -> int:
        """How many entries are held in groups that are not complete."""
        return sum(holder.held_items() for _, holder in self._holding)

    def held_bytes(self) -> int:
        """The approximate size of what is held."""
        return sum(holder.held_bytes() for _, holder in self._holding)

    def held_tokens(self) -> frozenset[Hashable]:
        """The tokens of the blocks of which entries are held."""
        return frozenset().union(*(holder.held_tokens() for _, holder in self._holding))

    def next_flush_unix_nano(self) -> int | None:
        """When :meth:`flush` will have something to return; None: never."""
        times = [time for _, holder in self._holding if (time := holder.next_flush_ns()) is not None]
        return min(times, default=None)

    def _run(self, entries: Entries, waiting: dict[int, Rows]) -> Rows:
        """Passes rows through the operators, in their order, and returns those that leave the last ones."""
        made: list[Rows] = []
        while waiting:
            number = min(waiting, key=lambda place: self._nodes[place].order if place < len(self._nodes) else 1 << 30)
            rows = waiting.pop(number)
            if number >= len(self._nodes):
                made.append(rows)
                continue
            node = self._nodes[number]
            if isinstance(node.operator, _Router):
                for outputs, routed in node.operator.routed(entries, rows):
                    self._hand_on(entries, routed, outputs, waiting)
            else:
                self._hand_on(entries, node.operator.run(entries, rows), node.outputs, waiting)
        return np.concatenate(made) if made else np.zeros(0, np.int32)

    def _spread(self, entries: Entries, number: int, rows: Rows, waiting: dict[int, Rows]) -> Rows:
        self._hand_on(entries, rows, self._nodes[number].outputs, waiting)
        return self._run(entries, waiting)

    def _hand_on(self, entries: Entries, rows: Rows, outputs: Sequence[int], waiting: dict[int, Rows]) -> None:
        """Gives the rows to the last output, and copies of them to the others."""
        if not len(rows):
            return
        for place, output in enumerate(outputs):
            given = rows if place == len(outputs) - 1 else entries.copy_rows(np.ascontiguousarray(rows))
            before = waiting.get(output)
            waiting[output] = np.ascontiguousarray(given if before is None else np.concatenate((before, given)))

    def _emit(self, entries: Entries, rows: Rows, context: Context) -> list[Logs]:
        if not len(rows):
            return []
        rows = np.ascontiguousarray(rows)
        codes, groups = group_records(entries, rows)
        resources: dict[bytes, list[bytes]] = {}
        for code, (resource, scope) in enumerate(groups):
            records = encode_records(entries, rows if len(groups) == 1 else np.ascontiguousarray(rows[codes == code]))
            name = _message(1, scope) if scope else b""
            resources.setdefault(resource, []).append(_message(2, _message(1, name) if name else b"", records))
        wire = b"".join(
            _message(1, _message(1, resource) if resource else b"", *scopes) for resource, scopes in resources.items()
        )
        return [Logs(wire, context)]


class _Router:
    """The operator ``router``: the first route whose condition is true gets a row."""

    def __init__(self, operator_id: str, config: configs.RouterConfig, report: Report) -> None:
        self.id, self._report = operator_id, report
        self._routes = [
            (
                Condition(route.expr),
                [(Path(ATTRIBUTES, [key], key), Template(text)) for key, text in route.attributes.items()],
            )
            for route in config.routes
        ]
        self.route_outputs: list[list[int]] = []
        """The outputs of each route, and then of the default if there is one."""

    def routed(self, entries: Entries, rows: Rows) -> list[tuple[list[int], Rows]]:
        """The rows of each route, with its outputs."""
        made: list[tuple[list[int], Rows]] = []
        rest = rows
        for (condition, attributes), outputs in zip(self._routes, self.route_outputs, strict=False):
            if not len(rest):
                return made
            holds, _ = condition.test(entries, rest)
            found = np.ascontiguousarray(rest[holds])
            rest = np.ascontiguousarray(rest[~holds])
            for path, template in attributes:
                if template.constant is not None:
                    entries.set_value(found, path, template.constant)
                else:
                    entries.set_values(found, path, template.of(entries, found))
            made.append((outputs, found))
        if len(self.route_outputs) > len(self._routes):
            made.append((self.route_outputs[-1], rest))
        elif len(rest):
            self._report.dropped("no_route", len(rest))
        return made


class _Node:
    def __init__(self, operator: "Operator | _Router", outputs: list[int]) -> None:
        self.operator = operator
        self.outputs = outputs
        self.order = 0


def _node(operator_id: str, config: configs.AnyOperatorConfig, report: Report) -> _Node:
    if isinstance(config, configs.RouterConfig):
        return _Node(_Router(operator_id, config, report), [])
    if isinstance(config, configs.ContainerConfig):
        return _Node(Container(operator_id, config, report), [])
    if isinstance(config, configs.RecombineConfig):
        return _Node(Recombine(operator_id, config, report), [])
    return _Node(transformer_of(operator_id, config, report), [])


def _ids(operators: Sequence[configs.AnyOperatorConfig]) -> list[str]:
    """The id of each operator; a second one without an id gets a number behind its type, as in the Collector."""
    taken = {config.id for config in operators if config.id}
    made: list[str] = []
    for place, config in enumerate(operators):
        if config.id:
            if config.id in made:
                raise ValueError(f"operators::{place}::id: {config.id!r} is the id of an earlier operator as well")
            made.append(config.id)
            continue
        number = 0
        name: str = config.type
        while name in taken:
            number += 1
            name = f"{config.type}{number}"
        taken.add(name)
        made.append(name)
    return made


def _outputs(config: configs.AnyOperatorConfig) -> tuple[str, ...] | list[tuple[str, ...]]:
    if isinstance(config, configs.RouterConfig):
        return [*(route.output for route in config.routes), *([config.default] if config.default else [])]
    return config.output


def _connect(nodes: list[_Node], outputs: list[Any], first_count: int) -> None:
    """Sets the outputs of nodes by number; the number behind the last node stands for the end."""
    numbers = {node.operator.id: number for number, node in enumerate(nodes) if number >= first_count}

    def find(place: int, names: Sequence[str]) -> list[int]:
        for name in names:
            if name not in numbers:
                known = ", ".join(sorted(numbers))
                key = f"operators::{place - first_count} ({nodes[place].operator.id})::output"
                raise ValueError(f"{key}: there is no operator {name!r}; there are {known}")
        return [numbers[name] for name in names]

    for place, (node, names) in enumerate(zip(nodes, outputs, strict=True)):
        if isinstance(node.operator, _Router):
            node.operator.route_outputs = [find(place, route) for route in names]
            node.outputs = sorted({output for route in node.operator.route_outputs for output in route})
        else:
            node.outputs = find(place, names) or [place + 1]
    _sort(nodes)


def _sort(nodes: list[_Node]) -> None:
    """Sets the order in which nodes are run: each behind all that it gets entries from."""
    states = [0] * len(nodes)  # 1: at work, 2: done
    order = len(nodes)

    def visit(number: int) -> None:
        nonlocal order
        if number >= len(nodes) or states[number] == 2:
            return
        if states[number] == 1:
            raise ValueError(
                f"operators: {nodes[number].operator.id!r} gets its own output: the operators form a circle"
            )
        states[number] = 1
        for output in nodes[number].outputs:
            visit(output)
        states[number] = 2
        order -= 1
        nodes[number].order = order

    for number in range(len(nodes)):
        visit(number)


def _is_utf8(block: Block) -> bool:
    """Whether all entries are valid UTF-8."""
    if block.text.isascii():
        return True
    try:
        block.text.decode()
    except UnicodeDecodeError:
        return False
    starts, ends = np.ascontiguousarray(block.starts, np.int64), np.ascontiguousarray(block.ends, np.int64)
    return whole_characters(block.text, starts, ends)


def _slices(block: Block) -> list[tuple[int, int]]:
    """Ranges of rows whose texts have about 512 KiB together."""
    count = len(block)
    if not count:
        return []
    sizes = np.cumsum(np.asarray(block.ends, np.int64) - np.asarray(block.starts, np.int64))
    if sizes[-1] <= _SLICE_BYTES and count <= 65_536:
        return [(0, count)]
    parts = (sizes // _SLICE_BYTES) + (np.arange(count) // 65_536)
    bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), count]
    return list(pairwise(bounds))


def _message(number: int, *content: bytes) -> bytes:
    return b"".join((field_tag(number, LENGTH_DELIMITED), varint(sum(map(len, content))), *content))
