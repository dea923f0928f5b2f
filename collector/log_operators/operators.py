"""The operators at work: each takes rows of a block of entries, changes them, and returns those that go on."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from collector.log_operators import config as configs
from collector.log_operators.conditions import Condition, Rows, Value
from collector.log_operators.entries import FAILURES, Entries, Path
from collector.log_operators.fields import parse_field, parse_rootable_field
from collector.log_operators.layouts import gotime_reader, strptime_reader
from collector.log_operators.pairs import parse_pairs
from collector.log_operators.records import read_scope, read_severity, read_time, read_trace
from collector.log_operators.severities import severity_table
from collector.log_operators.syslog import read_syslog
from collector.log_operators.texts import (
    csv_function,
    json_array_function,
    parse_uri,
    unquoted,
)
from collector.text.patterns import compile_pattern, span_finder
from collector.text.substitute import Template as Substitute
from collector.text.substitute import replace_matches

__all__ = ["Operator", "Parser", "Report", "Transformer", "transformer_of"]

Failures = NDArray[np.uint8]
Step = Callable[[Entries, Rows], Failures]
"""Changes the rows; returns uint8[n]: 0, or a code of ``FAILURES`` for rows that it could not change."""

_CONDITION_FAILED: Final = "the expression cannot be evaluated"
_FILTERED: Final = "filtered"
_MISSING: Final = 1
_WRONG_TYPE: Final = 2


class Report(Protocol):
    """Where operators tell what they could not do, and what they dropped."""

    def failed(self, operator: str, reason: str, count: int, *, is_logged: bool) -> None:
        """Entries could not be processed. They were sent on or dropped, as ``on_error`` says."""
        ...

    def dropped(self, reason: str, count: int) -> None:
        """Entries were dropped: ``filtered``, ``no_route`` or ``error``."""
        ...


class Operator:
    """An operator of a pipeline."""

    def __init__(self, operator_id: str, report: Report) -> None:
        self.id = operator_id
        self.report = report

    @abstractmethod
    def run(self, entries: Entries, rows: Rows) -> Rows:
        """Process the rows, and return those that go to the operator's outputs."""


class Transformer(Operator):
    """An operator with ``if`` and ``on_error`` around a step."""

    def __init__(self, operator_id: str, config: configs.TransformerConfig, report: Report, step: Step | None) -> None:
        super().__init__(operator_id, report)
        self._condition = Condition(config.if_) if config.if_ else None
        self._drops = config.on_error.startswith("drop")
        self._is_logged = not config.on_error.endswith("quiet")
        self._step = step

    def run(self, entries: Entries, rows: Rows) -> Rows:
        """Apply the step to the rows for which ``if`` is true. See :class:`Operator`."""
        selected, bad = self.select(entries, rows)
        if self._step is not None and len(selected):
            failures = self._step(entries, selected)
            if failures.any():
                bad = np.concatenate((bad, self.failed(selected, failures)))
        return rows if not len(bad) else rows[~np.isin(rows, bad)]

    def select(self, entries: Entries, rows: Rows) -> tuple[Rows, Rows]:
        """``(selected, dropped)``: the rows for which ``if`` is true, and those to drop because it has no value."""
        if self._condition is None or not len(rows):
            return rows, rows[:0]
        holds, failed = self._condition.test(entries, rows)
        bad = rows[failed]
        if len(bad):
            self.report.failed(self.id, _CONDITION_FAILED, len(bad), is_logged=self._is_logged)
            if self._drops:
                self.report.dropped("error", len(bad))
            else:
                bad = bad[:0]
        return np.ascontiguousarray(rows[holds]), bad

    def failed(self, rows: Rows, failures: Failures) -> Rows:
        """Report the failures, and return the rows to drop because of them."""
        codes, counts = np.unique(failures[failures > 0], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self.report.failed(self.id, FAILURES[code], count, is_logged=self._is_logged)
        bad = rows[failures > 0]
        if not self._drops:
            return bad[:0]
        self.report.dropped("error", len(bad))
        return bad


class Filter(Transformer):
    """Drops rows."""

    def __init__(self, operator_id: str, config: configs.FilterConfig, report: Report) -> None:
        super().__init__(operator_id, config, report, None)
        self._drop = Condition(config.expr)
        self._ratio = int(config.drop_ratio * 1000) / 1000
        self._random = np.random.default_rng()

    def run(self, entries: Entries, rows: Rows) -> Rows:
        """See :class:`Operator`. As in the Collector, an expression without a value drops the row."""
        selected, bad = self.select(entries, rows)
        holds, failed = self._drop.test(entries, selected)
        if failed.any():
            self.report.failed(self.id, _CONDITION_FAILED, int(failed.sum()), is_logged=self._is_logged)
            self.report.dropped("error", int(failed.sum()))
        if self._ratio < 1:
            holds &= self._random.random(len(selected)) < self._ratio
        if holds.any():
            self.report.dropped(_FILTERED, int(holds.sum()))
        bad = np.concatenate((bad, selected[holds | failed]))
        return rows if not len(bad) else rows[~np.isin(rows, bad)]


class Parser:
    """The step of a parser: parses, then reads time, severity, trace and scope from the result."""

    def __init__(self, config: configs.ParserConfig, parse: Step) -> None:
        self._parse = parse
        body = None if config.body is None else parse_field(config.body)
        self._body = body
        self._readers: list[Step] = []
        if config.timestamp is not None:
            self._readers.append(_time_step(config.timestamp))
        if config.severity is not None:
            self._readers.append(_severity_step(config.severity))
        if config.trace is not None:
            self._readers.append(_trace_step(config.trace))
        if config.scope_name is not None:
            self._readers.append(_scope_step(config.scope_name))

    def __call__(self, entries: Entries, rows: Rows) -> Failures:
        """See ``Step``."""
        failures = self._parse(entries, rows)
        if self._body is None and not self._readers:
            return failures
        is_parsed = failures == 0
        parsed = rows if is_parsed.all() else np.ascontiguousarray(rows[is_parsed])
        if self._body is not None:
            entries.move(parsed, self._body, parse_field("body"), True)
        found = np.zeros(len(parsed), np.uint8)
        for read in self._readers:
            read_failures = read(entries, parsed)
            found = np.where(found == 0, read_failures, found)
        failures[is_parsed] = found
        return failures


def _time_step(config: configs.TimeConfig) -> Step:
    path, reader = parse_field(config.parse_from), config.reader()
    return lambda entries, rows: read_time(entries, rows, path, reader)


def _severity_step(config: configs.SeverityConfig) -> Step:
    path = parse_field(config.parse_from)
    table = severity_table(config.preset, config.mapping, overwrite_text=config.overwrite_text)
    return lambda entries, rows: read_severity(entries, rows, path, table)


def _trace_step(config: configs.TraceConfig) -> Step:
    trace_id, span_id, flags = (
        parse_field(block.parse_from) for block in (config.trace_id, config.span_id, config.trace_flags)
    )
    return lambda entries, rows: read_trace(entries, rows, trace_id, span_id, flags)


def _scope_step(config: configs.ScopeNameConfig) -> Step:
    path = parse_field(config.parse_from)
    return lambda entries, rows: read_scope(entries, rows, path)


def _ends(config: configs.ParserConfig) -> tuple[Path, Path]:
    return parse_field(config.parse_from), parse_rootable_field(config.parse_to)


def _function_step(config: configs.ParserConfig, function: Callable[[str], Any]) -> Step:
    source, target = _ends(config)
    return lambda entries, rows: entries.apply(rows, source, target, function)


def _regex_step(config: configs.RegexParserConfig) -> Step:
    source, target = _ends(config)
    match = span_finder(config.regex)
    names = [(number, name) for name, number in compile_pattern(config.regex).groupindex.items()]
    return lambda entries, rows: entries.parse_groups(rows, source, target, match, names)


def _pairs_step(config: configs.KeyValueParserConfig) -> Step:
    source, target = _ends(config)
    pair, delimiter = (config.pair_delimiter or " ").encode(), config.delimiter.encode()
    return lambda entries, rows: parse_pairs(entries, rows, source, target, pair, delimiter)


def _csv_step(config: configs.CSVParserConfig) -> Step:
    delimiter = config.delimiter or ","
    mode = "lazyQuotes" if config.lazy_quotes else "ignoreQuotes" if config.ignore_quotes else "strict"
    separator = config.header_delimiter or delimiter
    if config.header:
        return _function_step(config, csv_function(config.header, delimiter, separator, mode))
    source, target = _ends(config)
    header_path = Path(1, [config.header_attribute], f"attributes.{config.header_attribute}")

    def step(entries: Entries, rows: Rows) -> Failures:
        failures = np.full(len(rows), _MISSING, np.uint8)
        headers = entries.values(rows, header_path)
        for header in {header for header in headers if isinstance(header, str)}:
            mask = np.fromiter((found == header for found in headers), np.bool_, len(rows))
            function = csv_function(header, delimiter, separator, mode)
            failures[mask] = entries.apply(np.ascontiguousarray(rows[mask]), source, target, function)
        return failures

    return step


def syslog_step(config: configs.ParserConfig, form: configs.SyslogFormat) -> Step:
    """Parses syslog messages of a form."""
    protocol = {"none": 0, "rfc3164": 1, "rfc5424": 2}[form.protocol.lower()]
    times = (
        strptime_reader("%b %d %H:%M:%S", form.location or "UTC", {})
        if protocol == 1
        else gotime_reader("2006-01-02T15:04:05.999999Z07:00", "UTC", {})
    )
    trailer = {None: -1, "LF": 10, "NUL": 0}[form.non_transparent_framing_trailer]
    octets_max = form.max_octets or 8192
    source, target = _ends(config)
    octets, skips = form.enable_octet_counting, form.allow_skip_pri_header and not form.enable_octet_counting
    return lambda entries, rows: read_syslog(
        entries, rows, source, target, protocol, times, octets, octets_max, skips, trailer
    )


def _json_step(config: configs.JSONParserConfig) -> Step:
    source, target = _ends(config)
    return lambda entries, rows: entries.parse_json(rows, source, target, config.parse_ints)


def _add_step(config: configs.AddConfig) -> Step:
    target = parse_rootable_field(config.field)
    value = config.value
    if isinstance(value, str) and value.startswith("EXPR(") and value.endswith(")"):
        computed = Value(value[5:-1])
        return lambda entries, rows: entries.set_values(rows, target, computed.of(entries, rows))
    return lambda entries, rows: entries.set_value(rows, target, value)


def _replace_step(config: configs.RegexReplaceConfig) -> Step:
    path = parse_field(config.field)
    regex = config.regex if not config.regex_name else r"\x1B\[[\x30-\x3F]*[\x20-\x2F]*[\x40-\x7E]"
    pattern = compile_pattern(regex)
    expand = Substitute(pattern, config.replace_with).expand

    def replaced(text: str) -> str:
        return replace_matches(pattern, text, expand)

    return lambda entries, rows: entries.apply(rows, path, path, replaced, skips_missing=True)


def _sanitize_step(config: configs.SanitizeUTF8Config) -> Step:
    path = parse_field(config.field)

    def step(entries: Entries, rows: Rows) -> Failures:
        is_text = entries.text_sizes(rows, path) >= 0
        is_missing = entries.is_nil(rows, path) != 0
        return np.where(is_text | is_missing, 0, _WRONG_TYPE).astype(np.uint8)

    return step


def _move_step(config: configs.MoveConfig | configs.CopyConfig, *, keeps: bool) -> Step:
    source, target = parse_field(config.from_), parse_rootable_field(config.to)
    return lambda entries, rows: entries.move(rows, source, target, keeps)


def _flatten_step(config: configs.FlattenConfig) -> Step:
    path = parse_field(config.field)
    names = [part.decode() for part in path.parts]
    parent = Path(path.root, names[:-1], path.text)
    return lambda entries, rows: entries.flatten(rows, path, parent)


def _parser_step(config: configs.ParserConfig) -> Step | None:
    match config:
        case configs.JSONParserConfig():
            return _json_step(config)
        case configs.RegexParserConfig():
            return _regex_step(config)
        case configs.KeyValueParserConfig():
            return _pairs_step(config)
        case configs.CSVParserConfig():
            return _csv_step(config)
        case configs.JSONArrayParserConfig():
            keys = config.header.split(",") if config.header else []
            return _function_step(config, json_array_function(keys))
        case configs.URIParserConfig():
            return _function_step(config, parse_uri)
        case configs.SyslogParserConfig():
            return syslog_step(config, config)
    return None


def _step(config: configs.TransformerConfig) -> Step | None:
    match config:
        case configs.ParserConfig():
            parse = _parser_step(config)
            return None if parse is None else Parser(config, parse)
        case configs.TimeParserConfig():
            return _time_step(config)
        case configs.SeverityParserConfig():
            return _severity_step(config)
        case configs.TraceParserConfig():
            return _trace_step(config)
        case configs.ScopeNameParserConfig():
            return _scope_step(config)
        case configs.AddConfig():
            return _add_step(config)
        case configs.MoveConfig():
            return _move_step(config, keeps=False)
        case configs.CopyConfig():
            return _move_step(config, keeps=True)
        case configs.RemoveConfig():
            removed = parse_rootable_field(config.field)
            return lambda entries, rows: entries.delete(rows, removed)
        case configs.RetainConfig():
            kept = [parse_field(text) for text in config.fields]
            return lambda entries, rows: entries.retain(rows, kept)
        case configs.FlattenConfig():
            return _flatten_step(config)
        case configs.AssignKeysConfig():
            path, keys = parse_field(config.field), list(config.keys)
            return lambda entries, rows: entries.assign_keys(rows, path, keys)
        case configs.RegexReplaceConfig():
            return _replace_step(config)
        case configs.UnquoteConfig():
            quoted = parse_field(config.field)
            return lambda entries, rows: entries.apply(rows, quoted, quoted, unquoted, skips_missing=True)
        case configs.SanitizeUTF8Config():
            return _sanitize_step(config)
    return None


def transformer_of(operator_id: str, config: configs.TransformerConfig, report: Report) -> Transformer:
    """The operator of a configuration, other than ``container``, ``recombine`` and ``router``."""
    if isinstance(config, configs.FilterConfig):
        return Filter(operator_id, config, report)
    return Transformer(operator_id, config, report, _step(config))
