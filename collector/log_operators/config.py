"""What users write under ``operators:``, with the Collector's types, keys and defaults.

Source: opentelemetry-collector-contrib pkg/stanza/docs/operators (v0.156).
"""

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collector.log_operators.conditions import Condition, Template, Value
from collector.log_operators.fields import parse_field, parse_rootable_field
from collector.log_operators.layouts import epoch_reader, gotime_reader, strptime_reader, zone_of
from collector.log_operators.severities import severity_table
from collector.log_operators.times import TimeReader
from collector.text.patterns import compile_pattern
from config import ByteSize, ComponentConfig, Duration

__all__ = [
    "AddConfig",
    "AnyOperatorConfig",
    "AssignKeysConfig",
    "CSVParserConfig",
    "ConditionText",
    "ContainerConfig",
    "CopyConfig",
    "FieldText",
    "FilterConfig",
    "FlattenConfig",
    "JSONArrayParserConfig",
    "JSONParserConfig",
    "KeyValueParserConfig",
    "MoveConfig",
    "NoopConfig",
    "OperatorConfig",
    "ParserConfig",
    "RecombineConfig",
    "RegexParserConfig",
    "RegexReplaceConfig",
    "RemoveConfig",
    "RetainConfig",
    "RootableFieldText",
    "RouterConfig",
    "SanitizeUTF8Config",
    "ScopeNameConfig",
    "ScopeNameParserConfig",
    "SeverityConfig",
    "SeverityParserConfig",
    "SyslogFormat",
    "SyslogParserConfig",
    "TemplateText",
    "TimeConfig",
    "TimeParserConfig",
    "TraceConfig",
    "TraceParserConfig",
    "TransformerConfig",
    "URIParserConfig",
    "UnquoteConfig",
]


def _field(text: str) -> str:
    parse_field(text)
    return text


def _rootable(text: str) -> str:
    parse_rootable_field(text)
    return text


def _condition(text: str) -> str:
    Condition(text)
    return text


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


FieldText = Annotated[str, AfterValidator(_field)]
"""A field such as ``body.level`` or ``attributes["http.status"]``."""
RootableFieldText = Annotated[str, AfterValidator(_rootable)]
"""A field, or ``attributes`` or ``resource`` as a whole."""
ConditionText = Annotated[str, AfterValidator(_condition)]
"""An expression that is true or false."""
_Outputs = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class OperatorConfig(ComponentConfig):
    """What all operators have."""

    id: str = ""
    """The name by which other operators refer to it in ``output``; by default its type."""


class TransformerConfig(OperatorConfig):
    """What all operators have but ``router``."""

    output: _Outputs = ()
    """The ids of the operators that get the entries; by default the next one in the list."""
    on_error: Literal["send", "send_quiet", "drop", "drop_quiet"] = "send"
    """What becomes of an entry that the operator cannot process: it is sent on as it is, or dropped.

    The quiet values do not log it.
    """
    if_: Annotated[str, AfterValidator(lambda text: _condition(text) if text else text)] = Field(default="", alias="if")
    """The operator only changes entries for which this expression is true; others pass."""


class TimeConfig(ComponentConfig):
    """How to read a time."""

    parse_from: FieldText
    """The field with the time."""
    layout_type: Literal["strptime", "gotime", "epoch"] = "strptime"
    """The kind of layout."""
    layout: str = Field(min_length=1)
    """``%Y-%m-%dT%H:%M:%S.%L%z`` (strptime), ``2006-01-02T15:04:05Z07:00`` (gotime); for epochs ``s``, ``ms``, ``us``,
    ``ns``, ``s.ms``, ``s.us`` or ``s.ns``.
    """
    location: str = ""
    """The time zone of times that name none, such as ``Europe/Berlin``; by default UTC if the layout ends with Z, else
    that of the machine.
    """
    time_zone_locations: dict[str, str] = Field(default_factory=dict)
    """Time zones by the abbreviations that times name, such as ``IST: Asia/Kolkata``."""

    @model_validator(mode="after")
    def _layout_is_valid(self) -> Self:
        self.reader()
        directive = "%Z" if self.layout_type == "strptime" else "MST"
        if self.time_zone_locations and directive not in self.layout:
            raise ValueError(f"time_zone_locations has no effect without {directive} in the layout")
        return self

    def reader(self) -> TimeReader:
        """The compiled layout.

        Raises:
            ValueError: The layout or a location is not valid.
        """
        if self.layout_type == "epoch":
            return epoch_reader(self.layout)
        make = strptime_reader if self.layout_type == "strptime" else gotime_reader
        return make(self.layout, self.location, self.time_zone_locations)


class SeverityConfig(ComponentConfig):
    """How to read a severity."""

    parse_from: FieldText
    """The field with the severity."""
    preset: str = "default"
    """The texts that are known: ``default`` (names, aliases and numbers), ``otel`` (names and numbers) or ``none``."""
    mapping: dict[str, Any] = Field(default_factory=dict)
    """Further texts by severity: a text, a number, a range (``{min: 400, max: 499}``, ``4xx``), or a list of these."""
    overwrite_text: bool = False
    """Whether the text of the severity becomes its standard name."""

    @model_validator(mode="after")
    def _mapping_is_valid(self) -> Self:
        severity_table(self.preset, self.mapping, overwrite_text=self.overwrite_text)
        return self


class _TraceField(ComponentConfig):
    parse_from: FieldText


class TraceConfig(ComponentConfig):
    """How to read the ids of a trace and a span. Fields that are missing are left out."""

    trace_id: _TraceField = _TraceField(parse_from="body.trace_id")
    """The field with 32 hexadecimal digits."""
    span_id: _TraceField = _TraceField(parse_from="body.span_id")
    """The field with 16 hexadecimal digits."""
    trace_flags: _TraceField = _TraceField(parse_from="body.trace_flags")
    """The field with 2 hexadecimal digits."""


class ScopeNameConfig(ComponentConfig):
    """How to read the name of the scope."""

    parse_from: FieldText
    """The field with the name of the logger."""


class ParserConfig(TransformerConfig):
    """What all parsers have."""

    parse_from: FieldText = "body"
    """The field to parse."""
    parse_to: RootableFieldText = "attributes"
    """Where the result goes. A map is merged with what is there."""
    body: FieldText | None = None
    """A field of the result that becomes the body."""
    timestamp: TimeConfig | None = None
    """Reads the time from the result."""
    severity: SeverityConfig | None = None
    """Reads the severity from the result."""
    trace: TraceConfig | None = None
    """Reads trace and span ids from the result."""
    scope_name: ScopeNameConfig | None = None
    """Reads the name of the scope from the result."""

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.body is not None and self.parse_to == "body":
            raise ValueError("body cannot be used with parse_to: body")
        return self


class JSONParserConfig(ParserConfig):
    """Parses a JSON object."""

    type: Literal["json_parser"]
    parse_ints: bool = False
    """Whether numbers without a fraction become integers; otherwise all numbers become doubles."""


class _Cache(ComponentConfig):
    size: int = Field(default=0, ge=0, le=65535)


class RegexParserConfig(ParserConfig):
    """Parses a text with the named groups of a regular expression."""

    type: Literal["regex_parser"]
    regex: str = Field(min_length=1)
    """A regular expression of RE2 with named groups: ``^(?P<time>\\S+) (?P<message>.*)$``."""
    cache: _Cache = _Cache()
    """The Collector's cache of results: accepted, because distinct texts of a block are always parsed once."""

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        if not compile_pattern(self.regex).groupindex:
            raise ValueError("regex: has no named group (example: ^(?P<message>.*)$)")
        return self


class KeyValueParserConfig(ParserConfig):
    """Parses pairs such as ``a=1 b="x y"``."""

    type: Literal["key_value_parser"]
    delimiter: str = Field(default="=", min_length=1)
    """What is between key and value."""
    pair_delimiter: str = ""
    """What is between pairs; by default a space."""

    @model_validator(mode="after")
    def _delimiters_differ(self) -> Self:
        if self.delimiter == (self.pair_delimiter or " "):
            raise ValueError("delimiter and pair_delimiter must differ")
        return self


class CSVParserConfig(ParserConfig):
    """Parses a row of separated values."""

    type: Literal["csv_parser"]
    header: str = ""
    """The names of the values, separated by the delimiter."""
    header_attribute: str = ""
    """The attribute that has the header; either this or ``header`` is required."""
    header_delimiter: str = ""
    """What separates the names; by default the delimiter."""
    delimiter: str = ""
    """One character; by default a comma."""
    lazy_quotes: bool = False
    """Whether quotes may stand inside of values."""
    ignore_quotes: bool = False
    """Whether quotes have no meaning."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if bool(self.header) == bool(self.header_attribute):
            raise ValueError("either header or header_attribute is required")
        if self.lazy_quotes and self.ignore_quotes:
            raise ValueError("only one of lazy_quotes and ignore_quotes can be true")
        for key, value in (("delimiter", self.delimiter), ("header_delimiter", self.header_delimiter)):
            if len(value) > 1 or value in {"\n", "\r", '"'}:
                raise ValueError(f"{key}: {value!r} is not allowed; it must be one character, such as ';'")
        separator = self.header_delimiter or self.delimiter or ","
        if self.header and separator not in self.header:
            raise ValueError(f"header: {self.header!r} does not contain the delimiter {separator!r}")
        return self


class JSONArrayParserConfig(ParserConfig):
    """Parses a JSON array."""

    type: Literal["json_array_parser"]
    header: str = ""
    """The names of the values, separated by commas; without them the result is a list."""

    @model_validator(mode="after")
    def _list_has_a_place(self) -> Self:
        path = parse_rootable_field(self.parse_to)
        if not self.header and path.is_root and path.text != "body":
            raise ValueError(f"parse_to: {self.parse_to} cannot hold a list; write a field such as attributes.values")
        return self


class URIParserConfig(ParserConfig):
    """Parses a URI, or a query that begins with a question mark."""

    type: Literal["uri_parser"]


class SyslogFormat(ComponentConfig):
    """The form of syslog messages."""

    protocol: str
    """``rfc3164``, ``rfc5424`` or ``none``, in any case."""
    location: str = "UTC"
    """The time zone of times of RFC 3164, such as ``Europe/Berlin``."""
    enable_octet_counting: bool = False
    """Whether messages begin with their length (RFC 6587)."""
    max_octets: int = Field(default=8192, ge=0)
    """The longest message with its length in front; 0 means 8192."""
    allow_skip_pri_header: bool = False
    """Whether messages may lack the priority."""
    non_transparent_framing_trailer: Literal["LF", "NUL"] | None = None
    """What ends a message of RFC 5424 (RFC 6587)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        protocol = self.protocol.lower()
        if protocol not in {"rfc3164", "rfc5424", "none"}:
            raise ValueError(f"protocol: {self.protocol!r} must be rfc3164, rfc5424 or none")
        if self.non_transparent_framing_trailer is not None and self.enable_octet_counting:
            raise ValueError("only one of enable_octet_counting and non_transparent_framing_trailer can be used")
        if self.non_transparent_framing_trailer is not None and protocol != "rfc5424":
            raise ValueError("non_transparent_framing_trailer needs protocol: rfc5424")
        zone_of(self.location)
        return self


class SyslogParserConfig(ParserConfig, SyslogFormat):
    """Parses syslog messages."""

    type: Literal["syslog_parser"]


class ContainerConfig(ParserConfig):
    """Parses the log files of Docker, containerd and CRI-O, and puts lines together that were split."""

    type: Literal["container"]
    format: Literal["", "docker", "crio", "containerd"] = ""
    """The format; empty: found out for each line."""
    add_metadata_from_filepath: bool = True
    """Whether the names of pod, namespace and container are read from the attribute ``log.file.path``."""
    max_log_size: ByteSize = 1024 * 1024
    """The size from which a split line is sent without waiting for its end; 0: no limit."""


class TimeParserConfig(TransformerConfig, TimeConfig):
    """Reads the time."""

    type: Literal["time_parser"]


class SeverityParserConfig(TransformerConfig, SeverityConfig):
    """Reads the severity."""

    type: Literal["severity_parser"]


class TraceParserConfig(TransformerConfig, TraceConfig):
    """Reads trace and span ids."""

    type: Literal["trace_parser"]


class ScopeNameParserConfig(TransformerConfig, ScopeNameConfig):
    """Reads the name of the scope."""

    type: Literal["scope_name_parser"]


def _expression_in(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("EXPR(") and value.endswith(")"):
        Value(value[5:-1])
    return value


class AddConfig(TransformerConfig):
    """Sets a field."""

    type: Literal["add"]
    field: FieldText
    """The field."""
    value: Annotated[Any, AfterValidator(_expression_in)]
    """A value, or an expression: ``EXPR(body.a + "x")``."""


class MoveConfig(TransformerConfig):
    """Moves a field."""

    type: Literal["move"]
    from_: FieldText = Field(alias="from")
    """The field."""
    to: FieldText
    """Its new place."""


class CopyConfig(TransformerConfig):
    """Copies a field."""

    type: Literal["copy"]
    from_: FieldText = Field(alias="from")
    """The field."""
    to: FieldText
    """The place of the copy."""


class RemoveConfig(TransformerConfig):
    """Removes a field."""

    type: Literal["remove"]
    field: RootableFieldText
    """The field, or ``attributes`` or ``resource`` as a whole."""


class RetainConfig(TransformerConfig):
    """Removes all fields but some."""

    type: Literal["retain"]
    fields: tuple[FieldText, ...] = Field(min_length=1)
    """The fields that stay. Those of a root of which none is named all stay."""


class FlattenConfig(TransformerConfig):
    """Moves the fields of a map one level up."""

    type: Literal["flatten"]
    field: FieldText
    """The map."""


class AssignKeysConfig(TransformerConfig):
    """Makes a map of a list."""

    type: Literal["assign_keys"]
    field: FieldText
    """The list."""
    keys: tuple[str, ...] = Field(min_length=1)
    """The keys of its values."""


class RegexReplaceConfig(TransformerConfig):
    """Replaces what a pattern matches."""

    type: Literal["regex_replace"]
    field: FieldText
    """The field with the text."""
    regex: str = ""
    """The pattern."""
    regex_name: Literal["", "ansi_control_sequences"] = ""
    """A known pattern instead of ``regex``."""
    replace_with: str = ""
    """The replacement, in which ``$1`` and ``${name}`` are groups."""

    @model_validator(mode="after")
    def _has_one_pattern(self) -> Self:
        if bool(self.regex) == bool(self.regex_name):
            raise ValueError("either regex or regex_name is required")
        compile_pattern(self.regex)
        return self


class UnquoteConfig(TransformerConfig):
    """Takes away the quotes around a text, with its escapes."""

    type: Literal["unquote"]
    field: FieldText
    """The field with the text."""


class SanitizeUTF8Config(TransformerConfig):
    """Replaces invalid bytes of a text. Texts are always valid here, so it only reports fields that are no texts."""

    type: Literal["sanitize_utf8"]
    field: FieldText = "body"
    """The field with the text."""


class FilterConfig(TransformerConfig):
    """Drops entries."""

    type: Literal["filter"]
    expr: ConditionText
    """Entries for which this is true are dropped."""
    drop_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    """The part of them that is dropped."""


class NoopConfig(TransformerConfig):
    """Changes nothing; other operators can name it as their output."""

    type: Literal["noop"]


def _template(text: str) -> str:
    Template(text)
    return text


TemplateText = Annotated[str, AfterValidator(_template)]
"""A text, in which there may be expressions: ``EXPR(...)``."""


class _Route(ComponentConfig):
    expr: ConditionText
    """The first route for which this is true gets the entry."""
    output: _Outputs = Field(min_length=1)
    """The ids of the operators that get it."""
    attributes: dict[str, TemplateText] = Field(default_factory=dict)
    """Attributes to set on it."""


class RouterConfig(OperatorConfig):
    """Sends entries to operators by conditions."""

    type: Literal["router"]
    routes: tuple[_Route, ...] = ()
    """The conditions, tested in this order."""
    default: _Outputs = ()
    """The operators that get entries for which no route's condition is true; without them, such entries are dropped."""


class RecombineConfig(TransformerConfig):
    """Puts consecutive entries together."""

    type: Literal["recombine"]
    combine_field: FieldText
    """The field whose texts are put together."""
    is_first_entry: ConditionText | None = None
    """True for the first entry of a group."""
    is_last_entry: ConditionText | None = None
    """True for the last entry of a group; either this or ``is_first_entry`` is required."""
    combine_with: str = "\n"
    """What is put between the texts."""
    max_batch_size: int = Field(default=1000, ge=0)
    """The most entries in a group; 0: no limit."""
    max_unmatched_batch_size: int = Field(default=100, ge=0)
    """The most entries in a group of which none has matched yet; 0: no limit."""
    max_log_size: ByteSize = 0
    """The size of the text from which a group is sent; 0: 64 MiB."""
    overwrite_with: Literal["oldest", "newest", ""] = "oldest"
    """Whether the other fields are those of the first or of the last entry."""
    force_flush_period: Duration = Field(default=5.0, gt=0)
    """A group that is not complete is sent after this time."""
    source_identifier: FieldText = 'attributes["log.file.path"]'
    """The field that tells sources apart; entries of different sources are not put together."""
    max_sources: int = Field(default=1000, gt=0)
    """The most sources with an open group; when there are more, all groups are sent."""

    @model_validator(mode="after")
    def _has_one_condition(self) -> Self:
        if (self.is_first_entry is None) == (self.is_last_entry is None):
            raise ValueError("either is_first_entry or is_last_entry is required")
        return self


AnyOperatorConfig: TypeAlias = Annotated[
    AddConfig
    | AssignKeysConfig
    | ContainerConfig
    | CopyConfig
    | CSVParserConfig
    | FilterConfig
    | FlattenConfig
    | JSONArrayParserConfig
    | JSONParserConfig
    | KeyValueParserConfig
    | MoveConfig
    | NoopConfig
    | RecombineConfig
    | RegexParserConfig
    | RegexReplaceConfig
    | RemoveConfig
    | RetainConfig
    | RouterConfig
    | SanitizeUTF8Config
    | ScopeNameParserConfig
    | SeverityParserConfig
    | SyslogParserConfig
    | TimeParserConfig
    | TraceParserConfig
    | UnquoteConfig
    | URIParserConfig,
    Field(discriminator="type"),
]
"""One operator; ``type`` says which."""
