"""Configurations of log operators with lines for them, which the Go collector and we must turn into the same records."""

JSON = [
    '{"time":"2024-05-06T07:08:09.123456Z","level":"INFO","message":"started","n":1,"big":12345678901234567890,"f":1.5}',
    '{"time":"2024-05-06T07:08:10Z","level":"warning","message":"a \\"b\\" \\u00e9\\n\\ud83d\\ude00","nested":{"a":{"b":[1,"x",null,true]}}}',
    '{"time":"bad","level":"nothing","message":""}',
    '{"a":1,"a":2,"b":{},"c":[],"d":null,"e":-0.5e3,"g":1e2,"h":123456789.125}',
    "not json",
    '{"unclosed": ',
    "[1,2,3]",
    '"text"',
    "{}",
]
ACCESS = [
    '192.168.0.1 - bob [06/May/2024:07:08:09 +0200] "GET /a?b=1 HTTP/1.1" 200 512',
    '10.0.0.2 - - [06/May/2024:07:08:10 -0330] "POST /x HTTP/2" 503 0',
    '10.0.0.2 - - [06/May/2024:07:08:11 +0000] "GET /health HTTP/1.1" 404 17',
    "garbage line",
]
ACCESS_REGEX = r'^(?P<ip>\S+) - (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<method>\S+) (?P<target>\S+) [^"]*" (?P<status>\d+) (?P<size>\d+)$'
LINES = ["first line", "ERROR second", "WARN third thing", "  indented", "ERROR fourth", "last"]
TRACE = "\n".join
STACK = [
    "2024-05-06 ERROR boom",
    "  at a.b(c.java:1)",
    "  at d.e(f.java:2)",
    "2024-05-06 INFO fine",
    "2024-05-06 ERROR again",
    "Caused by: x",
]
RFC3164 = [
    "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
    "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
    "<165>Aug 24 05:34:00 mymachine myproc[10]: %% It's time to make the do-nuts.",
    "<191>Dec  1 01:02:03 host app: ",
    "<0>Jan 31 23:59:59 host kernel: panic",
    "no priority",
    "<999>Oct 11 22:14:15 host app: too high",
    "<14>Oct 41 22:14:15 host app: bad day",
    "<14>Jul 04 01:02:03 host-1.example.com postfix/smtp[123]: status=sent (250 ok)",
]
RFC5424 = [
    "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed for lonvick",
    "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
    '<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"] An event',
    '<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [a@1 x="1"][b@2 y="a\\"b\\]c\\\\d"]',
    "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - - a message",
    "<34>1 2003-10-11T22:14:15Z host",
    "<34>2003-10-11T22:14:15.003Z no version",
    "<200>1 2003-10-11T22:14:15.003Z host app - - - priority too high",
]
CRI = [
    "2024-04-13T07:59:37.505201169-05:00 stdout F crio line",
    "2024-04-13T07:59:38.505201169Z stdout P split ",
    "2024-04-13T07:59:38.605201169Z stdout P up ",
    "2024-04-13T07:59:38.705201169Z stdout F line",
    "2024-04-13T07:59:39.505201169Z stderr F single",
    "2024-04-13T07:59:40.1Z stdout F",
]
DOCKER = [
    '{"log":"INFO: a docker line\\n","stream":"stdout","time":"2024-04-13T07:59:37.505201169Z"}',
    '{"log":"second","stream":"stderr","time":"2024-04-13T07:59:38.5Z"}',
    "neither",
]
PARSE_JSON = {"type": "json_parser"}


def _time(layout, **rest):
    return [{"type": "time_parser", "parse_from": "body", "layout": layout, **rest}]


def _case(operators, lines, **file_log):
    return operators, lines, file_log


CASES = {
    "no_operators": _case([], LINES),
    "json": _case([PARSE_JSON], JSON),
    "json_ints": _case([{"type": "json_parser", "parse_ints": True}], JSON),
    "json_to_body": _case([{"type": "json_parser", "parse_to": "body"}], JSON),
    "json_to_field": _case([{"type": "json_parser", "parse_to": "attributes.parsed"}], JSON),
    "json_to_resource": _case([{"type": "json_parser", "parse_to": "resource"}], JSON),
    "json_to_body_field": _case([{"type": "json_parser", "parse_to": "body.inner"}], JSON),
    "json_body": _case([{"type": "json_parser", "body": "attributes.message"}], JSON),
    "json_time_severity": _case(
        [
            {
                "type": "json_parser",
                "timestamp": {"parse_from": "attributes.time", "layout": "%Y-%m-%dT%H:%M:%S.%LZ"},
                "severity": {"parse_from": "attributes.level"},
            }
        ],
        JSON,
    ),
    "json_gotime": _case(
        [
            {
                "type": "json_parser",
                "timestamp": {
                    "parse_from": "attributes.time",
                    "layout_type": "gotime",
                    "layout": "2006-01-02T15:04:05.999Z07:00",
                },
            }
        ],
        JSON,
    ),
    "json_drop": _case([{"type": "json_parser", "on_error": "drop"}], JSON),
    "json_drop_quiet": _case([{"type": "json_parser", "on_error": "drop_quiet"}], JSON),
    "json_send_quiet": _case([{"type": "json_parser", "on_error": "send_quiet"}], JSON),
    "json_if": _case([{"type": "json_parser", "if": 'body startsWith "{"'}], JSON),
    "json_if_matches": _case([{"type": "json_parser", "if": 'body matches "^{.*}$"', "on_error": "drop"}], JSON),
    "json_trace": _case(
        [
            {
                "type": "json_parser",
                "trace": {
                    "trace_id": {"parse_from": "attributes.t"},
                    "span_id": {"parse_from": "attributes.s"},
                    "trace_flags": {"parse_from": "attributes.f"},
                },
            }
        ],
        [
            '{"t":"480140f3d770a5ae32f0a22b6a812cff","s":"92c3792d54ba94f3","f":"01"}',
            '{"t":"480140F3D770A5AE32F0A22B6A812CFF"}',
            '{"s":"92c3792d54ba94f3"}',
            '{"t":"zz"}',
            "{}",
        ],
    ),
    "json_scope": _case(
        [{"type": "json_parser", "scope_name": {"parse_from": "attributes.logger"}}],
        ['{"logger":"a.b"}', '{"logger":"c"}', '{"logger":"a.b","n":1}', '{"x":1}', '{"logger":5}'],
    ),
    "trace_parser": _case(
        [{"type": "json_parser", "parse_to": "body"}, {"type": "trace_parser"}],
        ['{"trace_id":"480140f3d770a5ae32f0a22b6a812cff","span_id":"92c3792d54ba94f3","trace_flags":"00"}', "{}"],
    ),
    "scope_name_parser": _case(
        [PARSE_JSON, {"type": "scope_name_parser", "parse_from": "attributes.logger", "on_error": "drop"}],
        ['{"logger":"a.b"}', '{"logger":"c"}', '{"x":1}'],
    ),
    "regex": _case([{"type": "regex_parser", "regex": ACCESS_REGEX}], ACCESS),
    "regex_time_severity": _case(
        [
            {
                "type": "regex_parser",
                "regex": ACCESS_REGEX,
                "timestamp": {"parse_from": "attributes.time", "layout": "%d/%b/%Y:%H:%M:%S %z"},
                "severity": {
                    "parse_from": "attributes.status",
                    "mapping": {"info": "2xx", "warn": {"min": 400, "max": 499}, "error": ["5xx"]},
                },
            }
        ],
        ACCESS,
    ),
    "regex_optional_group": _case([{"type": "regex_parser", "regex": r"^(?P<a>\w+)( (?P<b>\w+))?( .*)?$"}], LINES),
    "regex_drop": _case([{"type": "regex_parser", "regex": r"^ERROR (?P<rest>.*)", "on_error": "drop"}], LINES),
    "regex_from_attribute": _case(
        [
            {"type": "regex_parser", "regex": ACCESS_REGEX},
            {
                "type": "regex_parser",
                "parse_from": "attributes.target",
                "regex": r"^/(?P<page>\w+)",
                "parse_to": "attributes.url",
            },
        ],
        ACCESS,
    ),
    "key_value": _case(
        [{"type": "key_value_parser"}],
        ["a=1 b=two", "k=\"quoted text\" x='y z'", "nothing", "a=b=c", "a=1  b=2 ", 'x="unclosed', "=v", "k="],
    ),
    "key_value_delimiters": _case(
        [{"type": "key_value_parser", "delimiter": ":", "pair_delimiter": "!"}], ["a:1!b: 2 !c:3", "x=1", "a:!b:"]
    ),
    "csv": _case(
        [{"type": "csv_parser", "header": "a,b,c"}],
        ["1,2,3", '"x,y","a ""q""",z', "1,2", "1,2,3,4", 'a,b"c,d', "", ",,"],
    ),
    "csv_tab": _case(
        [{"type": "csv_parser", "header": "a|b", "header_delimiter": "|", "delimiter": "\t"}], ["1\t2", "x y\tz", "1,2"]
    ),
    "csv_lazy": _case([{"type": "csv_parser", "header": "a,b", "lazy_quotes": True}], ['a "b,c', '"a"b",c', "1,2"]),
    "csv_ignore": _case([{"type": "csv_parser", "header": "a,b", "ignore_quotes": True}], ['"a,b"', '"x', 'a,"b']),
    "csv_header_attribute": _case(
        [
            {"type": "add", "field": "attributes.header", "value": "x,y"},
            {"type": "csv_parser", "header_attribute": "header", "parse_to": "attributes.row"},
        ],
        ["1,2", "3,4", "5"],
    ),
    "json_array": _case(
        [{"type": "json_array_parser", "parse_to": "body"}], ['[1,"a",true,null,{"x": [1, 2]}]', "[]", "nope", '["b"]']
    ),
    "json_array_header": _case(
        [{"type": "json_array_parser", "header": "a,b,c"}], ['[1,"x",false]', "[1,2]", '[{"k":"v"},null,3]']
    ),
    "json_array_assign_keys": _case(
        [
            {"type": "json_array_parser", "parse_to": "body"},
            {"type": "assign_keys", "field": "body", "keys": ["a", "b"]},
        ],
        ['[1,"x"]', "[1,2,3]", "text"],
    ),
    "uri": _case(
        [{"type": "uri_parser"}],
        [
            "https://user:pw@example.com:8443/a/b%20c?x=1&x=2&y=%41+b",
            "/path/only?q=a",
            "?a=1&b=2",
            "http://[::1]:80/",
            "relative/path",
            "ftp://HOST",
            "http://bad host/",
        ],
    ),
    # The Go collector 0.156 panics on "2024-02-30 00:00:00" and turns times before 1970 into such far ahead.
    "time_strptime": _case(
        _time("%Y-%m-%d %H:%M:%S.%f"),
        ["2024-05-06 07:08:09.123", "2024-5-6 7:8:9", "2024-13-01 00:00:00", "2024-05-06 07:08:09.123456789"],
    ),
    "time_month_names": _case(
        _time("%a %b %e %H:%M:%S %Y"),
        ["Mon May  6 07:08:09 2024", "mon MAY 16 07:08:09 2024", "Xyz May 6 07:08:09 2024"],
    ),
    "time_12_hours": _case(
        _time("%m/%d/%y %I:%M:%S %p"),
        ["05/06/24 01:02:03 PM", "5/6/70 12:00:00 AM", "05/06/24 13:00:00 PM", "05/06/24 1:2:3 am"],
    ),
    "time_offsets": _case(
        _time("%Y-%m-%dT%H:%M:%S%z"),
        [
            "2024-05-06T07:08:09+02:00",
            "2024-05-06T07:08:09-0330",
            "2024-05-06T07:08:09Z",
            "2024-05-06T07:08:09+05",
            "2024-05-06T07:08:09",
        ],
    ),
    "time_location": _case(
        _time("%Y-%m-%d %H:%M:%S", location="America/New_York"),
        ["2024-01-15 12:00:00", "2024-07-15 12:00:00", "2024-11-03 00:59:59", "2024-03-10 03:00:00"],
    ),
    "time_abbreviation": _case(
        _time("%Y-%m-%d %H:%M:%S %Z", location="America/New_York"),
        [
            "2024-01-15 12:00:00 EST",
            "2024-07-15 12:00:00 EDT",
            "2024-07-15 12:00:00 UTC",
            "2024-07-15 12:00:00 CET",
            "2024-07-15 12:00:00 QQQ",
        ],
    ),
    "time_zone_locations": _case(
        _time("%Y-%m-%d %H:%M:%S %Z", time_zone_locations={"IST": "Asia/Kolkata"}),
        ["2024-01-15 12:00:00 IST", "2024-01-15 12:00:00 UTC"],
    ),
    "time_gotime": _case(
        _time("Jan _2 2006 15:04:05.000", layout_type="gotime", location="Europe/Berlin"),
        ["May  6 2024 07:08:09.123", "May 16 2024 07:08:09.123", "May 6 2024 07:08:09", "May  6 2024 07:08:09.12"],
    ),
    "time_gotime_rfc": _case(
        _time("2006-01-02T15:04:05Z07:00", layout_type="gotime"),
        ["2024-05-06T07:08:09Z", "2024-05-06T07:08:09.5+01:00", "2024-05-06T07:08:09,25Z", "2024-05-06 07:08:09Z"],
    ),
    "time_gotime_weekday": _case(
        _time("Monday, 02-Jan-06 15:04:05 MST", layout_type="gotime"),
        ["Monday, 06-May-24 07:08:09 UTC", "Monday, 06-May-24 07:08:09 GMT", "Tuesday, 06-May-24 07:08:09 EST"],
    ),
    "time_groups": _case(_time("%D %T"), ["05/06/2024 07:08:09", "5/6/24 7:8:9", "x"]),
    "time_epoch_s": _case(_time("s", layout_type="epoch"), ["1715000000", "abc", "1715000000.5", ""]),
    "time_epoch_ms": _case(_time("ms", layout_type="epoch"), ["1715000000123", "1"]),
    "time_epoch_s_ms": _case(_time("s.ms", layout_type="epoch"), ["1715000000.123", "1715000000", "1.5"]),
    "time_epoch_s_ns": _case(_time("s.ns", layout_type="epoch"), ["1715000000.123456789", "1715000000.000000001"]),
    "time_epoch_numbers": _case(
        [PARSE_JSON, {"type": "time_parser", "parse_from": "attributes.t", "layout_type": "epoch", "layout": "s.ms"}],
        ['{"t":1715000000.123}', '{"t":1715000000}', '{"t":"1715000000.5"}', '{"t":true}', "{}"],
    ),
    "time_epoch_float": _case(
        [PARSE_JSON, {"type": "time_parser", "parse_from": "attributes.t", "layout_type": "epoch", "layout": "ms"}],
        ['{"t":1715000000123}', '{"t":1715000000123.9}'],
    ),
    "severity": _case(
        [{"type": "severity_parser", "parse_from": "body"}],
        ["info", "INFO", "Warning", "err3", "FATAL4", "9", "24", "25", "notice", "trace2"],
    ),
    "severity_mapping": _case(
        [
            {
                "type": "severity_parser",
                "parse_from": "body",
                "preset": "none",
                "mapping": {"error": "oops", "info": ["ok", 7], "fatal": {"min": 50, "max": 52}, "warn": "3xx"},
                "overwrite_text": True,
            }
        ],
        ["OOPS", "ok", "7", "51", "53", "301", "info"],
    ),
    "severity_otel": _case(
        [{"type": "severity_parser", "parse_from": "body", "preset": "otel"}], ["warn", "warning", "17"]
    ),
    "severity_numbers": _case(
        [PARSE_JSON, {"type": "severity_parser", "parse_from": "attributes.l"}],
        ['{"l":9}', '{"l":17.0}', '{"l":1.5}', '{"l":true}', '{"l":null}', "{}"],
    ),
    "move": _case(
        [
            PARSE_JSON,
            {"type": "move", "from": "attributes.message", "to": "body"},
            {"type": "move", "from": "attributes.level", "to": "attributes.log.level"},
            {"type": "move", "from": "attributes.nested", "to": "resource.nested"},
        ],
        JSON,
    ),
    "move_map_to_body": _case([PARSE_JSON, {"type": "move", "from": "attributes.nested", "to": "body"}], JSON),
    "move_body_to_attribute": _case([{"type": "move", "from": "body", "to": "attributes.original"}], LINES),
    "copy": _case(
        [
            {"type": "json_parser", "parse_to": "body"},
            {"type": "copy", "from": "body.nested.a", "to": 'attributes["x.y"]'},
            {"type": "copy", "from": "body.level", "to": "resource.level"},
        ],
        JSON,
    ),
    "add": _case(
        [
            {"type": "add", "field": "attributes.text", "value": "x"},
            {"type": "add", "field": "attributes.number", "value": 5},
            {"type": "add", "field": "attributes.flag", "value": True},
            {"type": "add", "field": "attributes.list", "value": ["a", 1]},
            {"type": "add", "field": "attributes.map", "value": {"a": {"b": 1.5}}},
            {"type": "add", "field": 'resource["service.name"]', "value": "shop"},
            {"type": "add", "field": "attributes.made", "value": 'EXPR(body + "!")'},
            {"type": "add", "field": "attributes.upper", "value": "EXPR(upper(body))"},
        ],
        LINES,
    ),
    "remove": _case(
        [
            PARSE_JSON,
            {"type": "remove", "field": "attributes.nested.a"},
            {"type": "remove", "field": "attributes.n", "on_error": "drop"},
        ],
        JSON,
    ),
    "remove_attributes": _case([PARSE_JSON, {"type": "remove", "field": "attributes"}], JSON),
    "remove_body": _case([{"type": "remove", "field": "body"}], LINES),
    "retain": _case(
        [
            {"type": "json_parser", "parse_to": "body"},
            {"type": "retain", "fields": ["body.level", "body.nested.a", "body.absent"]},
        ],
        JSON,
    ),
    "retain_attributes": _case([PARSE_JSON, {"type": "retain", "fields": ["attributes.level", "attributes.n"]}], JSON),
    "flatten": _case([{"type": "json_parser", "parse_to": "body"}, {"type": "flatten", "field": "body.nested"}], JSON),
    "flatten_nested": _case([PARSE_JSON, {"type": "flatten", "field": "attributes.nested.a"}], JSON),
    "regex_replace": _case(
        [{"type": "regex_replace", "field": "body", "regex": r"(\w+) (\w+)", "replace_with": "${2}-$1."}], LINES
    ),
    "regex_replace_ansi": _case(
        [{"type": "regex_replace", "field": "body", "regex_name": "ansi_control_sequences"}],
        ["\x1b[31mred\x1b[0m plain", "none"],
    ),
    "unquote": _case(
        [{"type": "unquote", "field": "body"}],
        ['"a \\"b\\" \\n \\u00e9 \\x41 \\101"', "`raw \\n`", "'x'", "'xy'", "plain", '"unclosed', '""'],
    ),
    "filter": _case([{"type": "filter", "expr": 'body startsWith "ERROR"'}], LINES),
    "filter_not": _case([{"type": "filter", "expr": 'not (body contains "r")'}], LINES),
    "filter_field": _case(
        [PARSE_JSON, {"type": "filter", "expr": 'attributes.level == "INFO" or attributes.n == 1'}], JSON
    ),
    "filter_in": _case([PARSE_JSON, {"type": "filter", "expr": 'attributes.level in ["INFO", "nothing"]'}], JSON),
    "filter_has_key": _case([PARSE_JSON, {"type": "filter", "expr": '"level" in attributes'}], JSON),
    "filter_nil": _case([PARSE_JSON, {"type": "filter", "expr": "attributes.level == nil"}], JSON),
    "filter_body_error": _case([{"type": "filter", "expr": 'body.level == "x"'}], LINES),
    "filter_numbers": _case(
        [PARSE_JSON, {"type": "filter", "expr": "(attributes.f ?? 0) > 1.2 && len(attributes) >= 3"}], JSON
    ),
    "filter_ternary": _case([{"type": "filter", "expr": 'len(body) > 8 ? body endsWith "h" : true'}], LINES),
    "filter_index": _case(
        [{"type": "filter", "expr": 'body[0:5] == "ERROR" and attributes["log.file.name"] != ""'}], LINES
    ),
    "filter_functions": _case(
        [{"type": "filter", "expr": 'lower(trim(body)) matches "error|warn" and indexOf(body, "third") < 0'}], LINES
    ),
    "router": _case(
        [
            {
                "type": "router",
                "routes": [
                    {"expr": 'body startsWith "ERROR"', "output": "errors"},
                    {"expr": 'body startsWith "WARN"', "output": ["warnings"], "attributes": {"routed": "yes"}},
                ],
                "default": "others",
            },
            {"type": "add", "id": "errors", "field": "attributes.kind", "value": "error", "output": "end"},
            {"type": "add", "id": "warnings", "field": "attributes.kind", "value": "warning", "output": "end"},
            {"type": "add", "id": "others", "field": "attributes.kind", "value": "other", "output": "end"},
            {"type": "noop", "id": "end"},
        ],
        LINES,
    ),
    "router_without_default": _case(
        [
            {"type": "router", "routes": [{"expr": 'body contains "ERROR"', "output": "end"}]},
            {"type": "noop", "id": "end"},
        ],
        LINES,
    ),
    "two_outputs": _case(
        [
            {"type": "noop", "output": ["a", "b"]},
            {"type": "add", "id": "a", "field": "attributes.copy", "value": 1, "output": "end"},
            {"type": "add", "id": "b", "field": "attributes.copy", "value": 2, "output": "end"},
            {"type": "noop", "id": "end"},
        ],
        LINES,
    ),
    "recombine_first": _case(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                "is_first_entry": 'body matches "^[0-9]{4}-"',
                "force_flush_period": "300ms",
            }
        ],
        STACK,
    ),
    "recombine_last": _case(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                "combine_with": " | ",
                "is_last_entry": 'body endsWith ";"',
                "force_flush_period": "300ms",
            }
        ],
        ["select", "1;", "single;", "open", "end"],
    ),
    "recombine_newest": _case(
        [
            {"type": "regex_parser", "regex": r"^(?P<first>\w+)"},
            {
                "type": "recombine",
                "combine_field": "body",
                "is_last_entry": 'body contains ";"',
                "overwrite_with": "newest",
                "force_flush_period": "300ms",
            },
        ],
        ["select", "one;", "two", "three;"],
    ),
    "recombine_limits": _case(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                "is_first_entry": 'body == "start"',
                "max_batch_size": 3,
                "max_unmatched_batch_size": 2,
                "force_flush_period": "300ms",
            }
        ],
        ["a", "b", "c", "start", "d", "e", "f", "g", "start", "h"],
    ),
    "recombine_size": _case(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                "is_last_entry": 'body == "end"',
                "max_log_size": 10,
                "force_flush_period": "300ms",
            }
        ],
        ["aaaa", "bbbb", "cccc", "dd", "end", "eeeeeeeeeeeeee", "end"],
    ),
    "container": _case(
        [{"type": "container", "add_metadata_from_filepath": False}], [*CRI, *DOCKER], include_file_path=True
    ),
    "container_docker": _case(
        [{"type": "container", "format": "docker", "add_metadata_from_filepath": False}], [*DOCKER, CRI[0]]
    ),
    "container_drop": _case([{"type": "container", "add_metadata_from_filepath": False, "on_error": "drop"}], DOCKER),
    "syslog_rfc3164": _case([{"type": "syslog_parser", "protocol": "rfc3164"}], RFC3164),
    "syslog_rfc3164_location": _case(
        [{"type": "syslog_parser", "protocol": "rfc3164", "location": "Europe/Berlin", "on_error": "drop"}], RFC3164
    ),
    "syslog_rfc5424": _case([{"type": "syslog_parser", "protocol": "rfc5424"}], RFC5424),
    "syslog_without_priority": _case(
        [{"type": "syslog_parser", "protocol": "rfc3164", "allow_skip_pri_header": True}],
        [line.partition(">")[2] or line for line in RFC3164[:3]] + RFC3164[:1],
    ),
    "syslog_octets": _case(
        [{"type": "syslog_parser", "protocol": "rfc5424", "enable_octet_counting": True}],
        [f"{len(line)} {line}" for line in RFC5424[:4]],
    ),
    "sanitize_utf8": _case([{"type": "sanitize_utf8"}, {"type": "sanitize_utf8", "field": "attributes.none"}], LINES),
    "chain": _case(
        [
            {
                "type": "regex_parser",
                "regex": r"^(?P<level>[A-Z]+) (?P<rest>.*)$",
                "if": 'body matches "^[A-Z]+ "',
                "id": "r",
            },
            {"type": "severity_parser", "parse_from": "attributes.level", "if": "attributes.level != nil"},
            {"type": "move", "from": "attributes.rest", "to": "body", "if": "attributes.rest != nil"},
            {"type": "remove", "field": "attributes.level", "if": "attributes.level != nil"},
            {"type": "add", "field": "attributes.seen", "value": "EXPR(len(body))"},
        ],
        LINES,
    ),
}
