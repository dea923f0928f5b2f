"""Redactions by ours and by the Go collector's processor over the same requests.

``tests/data/redaction_golden.json`` has a digest of what the Collector made of each case:
``python tests/support/redaction_cases.py PROGRAM`` records it, with the program that ``make backends`` builds as ``ottl``.
"""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList

from collector.model import Signal, batch_type
from collector.testing import make_settings
from processors.redaction import factory

GOLDEN = Path(__file__).parents[1] / "data" / "redaction_golden.json"
HMAC_KEY = "0123456789abcdef" * 4

TEXTS = [
    "", "plain", "4111111111111111", "mail ada@example.com and bob@example.com", "two\nlines\n", "\n", "äöü 4111111111111111 ß",
    "ada@mycompany.com", "sk-ABCDEF0123456789", "a" * 300, "5105105105105100,4012888888881881", "\u00a0 x", "true", "12345",
]  # fmt: skip
URLS = [
    "/users/fdklsd/j4elk/23993/job/2", "123", "/123", "123/", "123/ljgdflgjf", "/**", "/u/2", "/v1/products/22j", "/products//org/3",
    "/v1/k6-test-runs/1", "/attach", "/usuarios/fdklsd/j4elk/23993/trabajo/2", "/Benutzer/x/Arbeit/2", "/user-space/", "/api/hello.world.again",
    "GET /user_space/", "/attach?session_id=ddfsdsf&track_id=sj", "/attach#section-1", "HTTP GET", "?", "attach12?", "1?", "*&", "12#", "/a#", "/1#",
    "a#", "/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/i/j/k?x=1", "https://shop.example.com/cart/77?token=s", "/zxcvwerjasc", "/nmnjcviburili", "/a/zxcvwerjasc?q",
    "/ä/b", "/aä/b", "/a\u00e9b", "/x-1/y_2", "/.../..", "/ /", "/w/index.php/*", "", "/Zürich/12",
]  # fmt: skip
STATEMENTS = [
    "SELECT * FROM users WHERE id = 123", "INSERT INTO users (name, age) VALUES ('John', 30)", "select a from t where b in (1,2,3) and c='it''s'",
    "UPDATE t1 SET x=-1.5e-3, y = +2, z=0x1F, o=0719 WHERE k=TRUE or j is NULL", "SELECT * FROM t -- comment 12 'x'\nWHERE a=1", "SELECT /* c 1 */ 1",
    "SELECT 'unterminated", "SELECT 'esc\\'aped' , 'x' ESCAPE '\\'", 'SELECT "col1"."tab2" FROM "t3" WHERE a="b4"', "SELECT $1, $22, :name1, @p1, @@version2",
    "SELECT $tag$secret$tag$, $$x$$, $func$SELECT 'x' FROM t1$func$", "SELECT a->>'b', a#>>'{1,2}', a@>'{}', a?|array['x'], x::int4", "SELECT md5('x'), f2(3), abc123(4)",
    "SELECT a FROM t WHERE b=?-1 AND c<>+7 AND d=?", "SELECT `col1` FROM `t2`", "SELECT x FROM t WHERE n=1#2", "   SELECT 1   ", "SELECT TRUE, false,null)", "SELECT truex, nullable, TRUE=1",
    "SELECT * FROM a/b WHERE c.d1.e2 = 5", "SELECT é1, ñ2 FROM tä3 WHERE x='é'", "SELECT 1\x002", "", "EXEC p 1,'2'", "select 1.2.3, 1e5, 1e+5x, .5, -.5", "a--b", "SELECT * FROM t WHERE a=--1",
    "BEGIN; COMMIT;", "SELECT N'x', E'\\n', b'1'",
]  # fmt: skip
COMMANDS = [
    "SET user:123 john", "GET user:123", 'SET greeting "hello world" EX 60', "AUTH secret", "AUTH user secret", "HMSET h f1 v1 f2 v2 f3", "MSET a 1 b 2", "GEOADD k 1 2 m 3 4 n",
    "ZADD k NX CH 1 a 2 b", "ZADD k", "CONFIG SET requirepass x", "CONFIG GET y", "BITFIELD k SET u8 0 200 GET u8 1", "LPUSH k a b c", "LINSERT k BEFORE p v", "SADD k", "HSET h f v\nGET x\n  SET a b",
    "set lower v", "UNKNOWN a b", "", "   ", "SETEX k 10 v", "GET k\n", 'RESTORE k 0 "a\\"b" REPLACE',
]  # fmt: skip
QUERIES = [
    '{"find": "users", "filter": {"age": 30}}', '{"a": [1, "x", {"b": null}], "c": {}, "d": []}', "[1, 2]", '"text"', "12", "not json", '{"a": "\\u0041\\"", "b": -1.5e3, "c": true}', "{}", ' { "k" : "v" }',
    '{"query":{"match":{"title":"test"}}}',
]  # fmt: skip
CACHE = ["set mykey 0 60 5\r\nsecret\r\n", "get mykey", "  get a b  ", ""]
SYSTEMS = {
    "mysql": STATEMENTS, "postgresql": STATEMENTS, "redis": COMMANDS, "valkey": COMMANDS, "memcached": CACHE, "mongodb": QUERIES, "opensearch": QUERIES, "elasticsearch": QUERIES, "cassandra": STATEMENTS[:3], "": STATEMENTS[:3],
}  # fmt: skip
DATABASES = ("sql", "redis", "valkey", "memcached", "mongo", "opensearch", "es")
# The Collector ignores the attributes of these two.
_EVERY_DATABASE = {
    name: {"enabled": True, "attributes": [] if name in {"opensearch", "es"} else ["db.statement"]}
    for name in DATABASES
}
_BLOCKED = {
    "allow_all_keys": True,
    "blocked_values": ["4[0-9]{12}(?:[0-9]{3})?", "(5[1-5][0-9]{14})", "[a-z]+@[a-z.]+"],
}

CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {"summary": "debug"},
    "keys": {"allowed_keys": ["text", "number", "k1"], "ignored_keys": ["free"], "ignored_key_patterns": ["^safe_"], "summary": "debug"},
    "info": {"allowed_keys": ["text", "free"], "blocked_values": ["1"], "summary": "info"},
    "silent": {"allowed_keys": ["text"], "blocked_values": ["1"], "summary": "silent"},
    "other summary": {"allow_all_keys": True, "summary": "warn"},
    "values": {**_BLOCKED, "summary": "debug"},
    "allowed values": {**_BLOCKED, "allowed_values": [".+@mycompany.com", "^true$"], "summary": "debug"},
    "blocked keys": {"allow_all_keys": True, "blocked_key_patterns": [".*token.*", "number$"], "allowed_values": ["^plain"], "summary": "debug"},
    "all types": {"allow_all_keys": True, "redact_all_types": True, "blocked_values": ["[0-9]{2,}", "true"], "summary": "debug"},
    "all types, keys": {"allow_all_keys": True, "redact_all_types": True, "blocked_key_patterns": [".*"], "summary": "debug"},
    "empty matches": {"allow_all_keys": True, "blocked_values": ["x*"], "summary": "debug"},
    "lines": {"allow_all_keys": True, "blocked_values": ["(?m)^t.*$"], "summary": "debug"},
    "md5": {**_BLOCKED, "hash_function": "md5"},
    "sha1": {**_BLOCKED, "hash_function": "SHA1", "blocked_key_patterns": ["token"]},
    "sha3": {**_BLOCKED, "hash_function": "sha3"},
    "hmac-sha256": {**_BLOCKED, "hash_function": "hmac-sha256", "hmac_key": HMAC_KEY},
    "hmac-sha512": {**_BLOCKED, "hash_function": "hmac-sha512", "hmac_key": HMAC_KEY},
    "urls": {"allow_all_keys": True, "url_sanitizer": {"enabled": True, "attributes": ["http.url"]}, "summary": "debug"},
    "urls, not names": {"allow_all_keys": True, "url_sanitizer": {"enabled": True, "attributes": ["http.url"], "sanitize_span_name": False}},
    "urls off": {"allow_all_keys": True, "url_sanitizer": {"attributes": ["http.url"]}},
    "urls, allowed values": {"allow_all_keys": True, "allowed_values": ["^/a"], "url_sanitizer": {"enabled": True, "attributes": ["http.url"]}},
    "databases": {"allow_all_keys": True, "db_sanitizer": _EVERY_DATABASE, "summary": "debug"},
    "databases, not names": {"allow_all_keys": True, "db_sanitizer": {**_EVERY_DATABASE, "sanitize_span_name": False}},
    "sql": {"allow_all_keys": True, "db_sanitizer": {"sql": {"enabled": True, "attributes": ["db.statement"]}}},
    "redis without attributes": {"allow_all_keys": True, "db_sanitizer": {"redis": {"enabled": True}}},
    "both": {"allow_all_keys": True, "url_sanitizer": {"enabled": True, "attributes": ["http.url"]}, "db_sanitizer": {"sql": {"enabled": True, "attributes": ["db.statement"]}, "mongo": {"enabled": True}}, "blocked_values": ["secret"]},
}  # fmt: skip


def _value(value: Any) -> AnyValue:
    result = AnyValue()
    match value:
        case bool():
            result.bool_value = value
        case int():
            result.int_value = value
        case float():
            result.double_value = value
        case bytes():
            result.bytes_value = value
        case str():
            result.string_value = value
        case dict():
            result.kvlist_value.SetInParent()
            result.kvlist_value.values.extend(_attributes(value))
        case list():
            result.array_value.SetInParent()
            result.array_value.values.extend(_value(item) for item in value)
    return result


def _attributes(values: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _mixed() -> Iterable[dict[str, Any]]:
    for index, text in enumerate(TEXTS):
        yield {
            "text": text, "free": text, "safe_x": text, "my.token": text, "k1": index, "number": 4111111111111111 if index % 2 else 12.5,
            "flag": index % 3 == 0, "list": ["a", 12345], "map": {"x": text, "n": 77}, "bytes": b"\x01\x02", "none": None,
        }  # fmt: skip
    yield {
        "redaction.masked.keys": "old,k1",
        "redaction.masked.count": 2,
        "text": "4111111111111111",
        "redaction.redacted.keys": "",
        "redaction.ignored.count": "x",
    }
    yield {}


def traces() -> ExportTraceServiceRequest:
    """Spans with every kind of attribute, events, and names of HTTP and database spans."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(
        _attributes({"service.name": "shop", "text": "4111111111111111", "host.token": "t"})
    )
    scope = group.scope_spans.add()
    scope.scope.name = "lib"
    scope.scope.attributes.extend(_attributes({"text": "ada@example.com"}))
    for attributes in _mixed():
        span = scope.spans.add(name="GET /users/12", kind=2, attributes=_attributes(attributes))
        span.events.add(
            name="exception",
            attributes=_attributes({"text": attributes.get("text", ""), "exception.message": "4111111111111111"}),
        )
        span.events.add(name="empty")
    names = request.resource_spans.add().scope_spans.add()
    for index, url in enumerate(URLS):
        more = {"http.method": "GET"} if index % 2 else {}
        names.spans.add(name=url, kind=index % 5, attributes=_attributes({"http.url": url, "other": url, **more}))
    for index, (system, statements) in enumerate(SYSTEMS.items()):
        for number, statement in enumerate(statements):
            key = "db.system.name" if index % 2 else "db.system"
            known = {key: system.upper() if number % 2 else system}
            if system == "mysql":  # what the Collector does with these depends on what it did before
                known = {key: "postgresql"}
            names.spans.add(
                name=statement,
                kind=number % 5,
                attributes=_attributes({**known, "db.statement": statement, "other": statement}),
            )
    return request


def logs() -> ExportLogsServiceRequest:
    """Records with texts, numbers, maps and lists as bodies."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(_attributes({"service.name": "shop", "text": "4111111111111111"}))
    scope = group.scope_logs.add()
    bodies: list[Any] = [
        *TEXTS, *URLS, *(text for texts in SYSTEMS.values() for text in texts), 4111111111111111, 12.5, True, b"\x01", [], {},
        ["4111111111111111", ["ada@example.com", {"text": "4111111111111111"}]],
        {"text": "4111111111111111", "free": {"text": "4111111111111111"}, "k1": {"text": {"number": 4111111111111111, "other": 1}, "list": [1, "ada@example.com"]}, "my.token": "t", "number": 12},
        {"text": {"safe_a": 1, "my.token": 7}, "map": {"text": "true"}},
    ]  # fmt: skip
    attributes = list(_mixed())
    for index, body in enumerate(bodies):
        record = scope.log_records.add(attributes=_attributes(attributes[index % len(attributes)]))
        record.body.CopyFrom(_value(body))
    record = scope.log_records.add(
        attributes=_attributes(
            {"redaction.body.masked.keys": "a", "redaction.body.masked.count": 3, "db.statement": "SELECT 1"}
        )
    )
    record.body.string_value = "4111111111111111"
    for system, statements in SYSTEMS.items():
        for statement in statements:
            known = {"db.system.name": "postgresql" if system == "mysql" else system} if system else {}
            attributes_ = _attributes({**known, "db.statement": statement, "http.url": statement})
            scope.log_records.add(attributes=attributes_).body.string_value = "4111111111111111"
    return request


def metrics() -> ExportMetricsServiceRequest:
    """Points of every type."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(_attributes({"service.name": "shop", "text": "ada@example.com"}))
    scope = group.scope_metrics.add()
    for name in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        metric = scope.metrics.add(name=name)
        for attributes in _mixed():
            getattr(metric, name).data_points.add(time_unix_nano=1, attributes=_attributes(attributes))
    metric = scope.metrics.add(name="statements")
    for statement in STATEMENTS:
        metric.gauge.data_points.add(
            as_int=1, attributes=_attributes({"db.system": "sqlite", "db.statement": statement, "http.url": "/a/12"})
        )
    scope.metrics.add(name="none")
    return request


REQUESTS = {"traces": traces(), "logs": logs(), "metrics": metrics()}
CASES = [(signal, name) for signal in REQUESTS for name in CONFIGS]


def ours(signal: str, config: dict[str, Any]) -> list[Any]:
    """What we make of a request."""
    settings = make_settings(factory, signals={Signal(signal)})
    processor = factory.create(settings, factory.config_type.model_validate(config))
    wire = processor.transform(batch_type(Signal(signal)).from_wire(REQUESTS[signal].SerializeToString())).wire
    return rows(signal, wire)


def theirs(program: str) -> dict[str, list[Any]]:
    """What the Collector makes of each case."""
    lines = [
        json.dumps({
            "signal": signal, "processor": "redaction", "config": CONFIGS[name],
            "data": base64.b64encode(REQUESTS[signal].SerializeToString()).decode(),
        }) for signal, name in CASES
    ]  # fmt: skip
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    found = {}
    for (signal, name), line in zip(CASES, done.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        found[f"{signal}: {name}"] = (
            rows(signal, base64.b64decode(answer["data"])) if "data" in answer else [str(answer)]
        )
    return found


def rows(signal: str, wire: bytes) -> list[Any]:
    """The attributes of every row, with names and bodies, as plain values; the order of attributes does not count."""
    return [_row(item) for item in _items(type(REQUESTS[signal]).FromString(wire))]


def _items(request: Any) -> Iterable[Message]:
    for group in (
        *getattr(request, "resource_spans", ()),
        *getattr(request, "resource_logs", ()),
        *getattr(request, "resource_metrics", ()),
    ):
        yield group.resource
        for scope in (
            *getattr(group, "scope_spans", ()),
            *getattr(group, "scope_logs", ()),
            *getattr(group, "scope_metrics", ()),
        ):
            yield scope.scope
            for span in getattr(scope, "spans", ()):
                yield span
                yield from span.events
            yield from getattr(scope, "log_records", ())
            for metric in getattr(scope, "metrics", ()):
                kind = metric.WhichOneof("data")
                yield from getattr(metric, kind).data_points if kind else ()


def _row(item: Any) -> Any:
    found: dict[str, Any] = {pair.key: _plain(pair.value) for pair in item.attributes}
    if hasattr(item, "body"):
        found["(body)"] = _plain(item.body)
    if hasattr(item, "name"):
        found["(name)"] = item.name
    return dict(sorted(found.items()))


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner: Any = getattr(value, kind)
    if isinstance(inner, KeyValueList):
        return {"map": dict(sorted((pair.key, _plain(pair.value)) for pair in inner.values))}
    if kind == "array_value":
        return [_plain(item) for item in inner.values]
    return {kind: inner.hex() if isinstance(inner, bytes) else inner}


def digest(found: list[Any]) -> str:
    """A digest of rows."""
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:20]


def golden() -> dict[str, str]:
    """The digest of what the Collector made of each case."""
    found: dict[str, str] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Record what the Collector makes of all cases."""
    table = {case: digest(found) for case, found in theirs(sys.argv[1]).items()}
    GOLDEN.write_text(json.dumps(table, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
