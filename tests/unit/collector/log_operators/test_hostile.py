"""Whatever the bytes, the operators do no harm and make valid records."""

from hypothesis import given, settings
from hypothesis import strategies as st
from log_operator_rig import block_of, pipeline_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.log_operators import Splitter

PIPELINES = [
    pipeline_of(operators)
    for operators in (
        [{"type": "json_parser"}, {"type": "flatten", "field": "attributes.a"}, {"type": "trace_parser"}],
        [
            {"type": "json_parser", "parse_to": "body", "parse_ints": True},
            {"type": "move", "from": "body.a", "to": "body"},
        ],
        [{"type": "key_value_parser"}, {"type": "key_value_parser", "delimiter": "::", "pair_delimiter": "ab"}],
        [{"type": "csv_parser", "header": "a,b"}],
        [{"type": "syslog_parser", "protocol": "rfc3164"}],
        [{"type": "syslog_parser", "protocol": "rfc5424"}],
        [{"type": "syslog_parser", "protocol": "rfc5424", "enable_octet_counting": True}],
        [{"type": "syslog_parser", "protocol": "rfc5424", "non_transparent_framing_trailer": "NUL"}],
        [{"type": "syslog_parser", "protocol": "none"}],
        [{"type": "container", "add_metadata_from_filepath": False}],
        [
            {"type": "regex_parser", "regex": r"^(?P<a>\S*) ?(?P<b>.*)?(?P<c>x)?"},
            {"type": "unquote", "field": "attributes.a"},
        ],
        [{"type": "time_parser", "parse_from": "body", "layout": "%a, %d %b %Y %H:%M:%S.%f %z %Z"}],
        [
            {
                "type": "time_parser",
                "parse_from": "body",
                "layout_type": "gotime",
                "layout": "Jan _2 __2 3:04:05.000PM MST -07:00",
            }
        ],
        [{"type": "time_parser", "parse_from": "body", "layout_type": "epoch", "layout": "s.ns"}],
        [{"type": "severity_parser", "parse_from": "body"}, {"type": "uri_parser"}],
        [{"type": "filter", "expr": 'body matches "^\\\\d{2}[a-f]\\\\S" or body contains "x"'}],
    )
]
PIECES = st.sampled_from(
    [
        b'{"a":', b"}", b"[", b"]", b'"', b"\\", b"\\u12", b"\\ud800", b"null", b"1e", b"-", b"0", b" ", b"<13>", b"<34>1 ",
        b"2003-10-11T22:14:15.003Z", b"Oct 11 22:14:15 ", b"host ", b"app[1]: ", b"[id a=", b"=", b"::", b"ab", b"stdout F ",
        b"99 ", b"\x00", b"\xff", b"\xc3", b"\xe2\x82\xac", b"Mon, ", b"UTC", b"+02:00", b"1715000000.5", b"'", b"`", b"\t",
    ]
)  # fmt: skip
LINES = st.lists(st.lists(PIECES | st.binary(max_size=6), max_size=10).map(b"".join), max_size=6)


@settings(max_examples=300)
@given(st.sampled_from(PIPELINES), LINES)
def test_any_lines_become_valid_records(pipeline, lines):
    """What comes out is a valid request that every protobuf parser reads, with valid UTF-8."""
    made = [*pipeline.process(block_of(lines)), *pipeline.flush()]
    for logs in made:
        request = ExportLogsServiceRequest.FromString(logs.wire)
        assert logs.item_count == sum(
            len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs
        )


@given(LINES, st.sampled_from(["utf-8", "utf-16le", "big5", "nop"]), st.integers(1, 20))
def test_any_bytes_are_split(lines, encoding, size):
    """Every byte is in an entry or left for later, in any encoding."""
    data = b"\n".join(lines)
    splitter = Splitter(encoding=encoding, max_log_size=size)
    split = splitter.split(data, is_end=True)
    assert split.consumed == len(data)
    assert (
        pipeline_of([]).process(block_of([split.text[a:b] for a, b in zip(split.starts, split.ends, strict=True)]))
        is not None
    )
