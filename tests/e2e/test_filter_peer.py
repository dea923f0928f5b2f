"""The filter compared with the Go collector's: for each condition both keep the same items of the same data."""

import base64
import json

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ottl_data import logs_data, metrics_data, traces_data

from collector.model import Logs, Metrics, Signal, Traces
from collector.testing import free_port, make_settings
from processors.filter import factory
from processors.filter.config import FilterConfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SPAN = [
    'name == "GET /health"', 'name != "GET /health"', 'name > "GET /a"', 'name <= ""', "name == nil", "name == 1", "name != 1", "name < 1",
    'span.name == "GET /a"', 'not name == "GET /a"', 'not (name == "GET /a" or kind == 2)', 'name == "GET /a" and kind == SPAN_KIND_INTERNAL or kind == 5',
    'attributes["k"] == nil', 'attributes["k"] != nil', 'nil == attributes["k"]', 'attributes["k"] <= nil', 'attributes["k"] < nil', 'attributes["k"] >= nil',
    'attributes["k"] == 5', 'attributes["k"] != 5', 'attributes["k"] > 4', 'attributes["k"] <= 5.0', 'attributes["k"] < 2.5', '5.0 == attributes["k"]',
    'attributes["k"] == true', 'attributes["k"] < true', 'attributes["k"] >= false', 'attributes["k"] == "text"', 'attributes["k"] >= "t"', '"b" < attributes["k"]',
    'attributes["k"] == 0x0102', 'attributes["k"] > 0x01', 'attributes["k"] != 0x0102', 'attributes["k"] == attributes["other"]',
    'attributes["k"] == resource.attributes["k"]', 'attributes["k"] == [1, "a", 2.5]', 'attributes["k"] != []', 'attributes["k"] == {}',
    'attributes["k"] == {"x": {"y": 1}, "s": "<v>", "l": [1, 2, 3]}', 'attributes["k"]["x"]["y"] == 1', 'attributes["k"]["l"][1] == 2',
    'attributes["k"]["l"][9] == 2', 'attributes["k"][0] == 1', 'attributes["k"]["none"] == nil', 'not (attributes["k"]["none"] == 1)',
    'attributes["k"] + 1 == 6', 'attributes["k"] * 2 > 4.5', '-attributes["k"] == 3', '10 / attributes["k"] == 2', "-7 / 2 == -3 and kind == 1",
    'attributes["k"] / 2 == -1', 'attributes["k"] - attributes["other"] == 0', '(attributes["k"] + 1) * 2 >= 12', "1 + 2 * 3 - 4 == 3 and kind == 2", 'attributes["k"] - 1 > 0',
    'IsMatch(name, "^GET")', 'IsMatch(attributes["k"], "^[0-9.]+$")', 'IsMatch(attributes["k"], "x")', 'not IsMatch(attributes["k"], "e")', 'IsMatch(name, attributes["k"])', 'IsMatch(kind, "[34]")',
    'HasPrefix(name, "GET")', 'HasSuffix(attributes["k"], "t")', 'HasPrefix(attributes["k"], name)', 'Len(attributes["k"]) == 4', 'Len(attributes["k"]) > 0', "Len(attributes) == 2",
    "Len(events) > 1", "Len(links) == 1", "events != nil", 'IsString(attributes["k"])', 'IsInt(attributes["k"])', 'IsDouble(attributes["k"])', 'IsBool(attributes["k"])',
    'IsMap(attributes["k"])', 'IsList(attributes["k"])', "IsMap(attributes)", "IsList(events)", "IsString(trace_id)", 'not IsString(attributes["k"])',
    'Concat([name, kind, attributes["k"]], "-") == "GET /a-1-<nil>"', 'Concat(["a", attributes["k"]], ":") == "a:text"', 'ConvertCase(name, "lower") == "get /a"',
    'ToLowerCase(attributes["k"]) == "äöß straße"', 'ToUpperCase(attributes["k"]) == "ÄÖß STRAßE"', 'ToUpperCase(name) == "POST /B"', 'Int(attributes["k"]) == 10', 'Int(attributes["k"]) == nil', 'Int(attributes["k"]) == 1',
    'Int(attributes["k"]) < 3', 'Double(attributes["k"]) == 10', 'Double(attributes["k"]) < 0', 'Double(attributes["k"]) == nil', 'Bool(attributes["k"])', 'Bool(attributes["k"]) == false',
    'String(attributes["k"]) == "5"', 'String(attributes["k"]) == "0102"', 'IsMatch(String(attributes["k"]), "u003c")', 'String(attributes["k"]) == "[1,\\"a\\",2.5]"', 'String(attributes["k"]) == "1e+300"', 'String(attributes["k"]) == nil',
    'Substring(name, 0, 3) == "GET"', 'Substring(attributes["k"], 1, 2) == "ex"', 'Substring(attributes["k"], 0, 100) == "x"', 'Substring(attributes["k"], 0, 3, utf8_safe=true) == "Ä"', 'Split(attributes["k"], ",")[1] == "b"',
    'Split(attributes["k"], ",")[9] == "b"', 'Len(Split(attributes["k"], ",")) == 4', 'Trim(attributes["k"]) == "pad"', 'TrimPrefix(name, "GET ") == "/a"', 'TrimSuffix(name, "a") == "GET /"', 'Trim(name, "GE") == "T /a"',
    'Index(name, "/") == 4', 'Index(attributes["k"], "a") == 1', 'ContainsValue(attributes["k"], 1)', 'ContainsValue(attributes["k"], "a")', 'ContainsValue(attributes["k"], 2.5) == false', 'ContainsValue(["GET /a", "x"], name)', 'ParseInt(attributes["k"], 10) == 10',
    'ParseInt(attributes["k"], 16) > 15', 'ParseInt("0x1f", 0) == 31 and kind == 1', 'ParseJSON(attributes["k"])["x"][1] == 2', 'ParseJSON(attributes["k"])["y"] == "z"', 'Hex(attributes["k"]) == "0102"', 'Hex(name) == "504f5354202f62"',
    'Coalesce([attributes["other"], attributes["k"], "none"]) == "text"', 'Coalesce([attributes["k"]]) == nil', "IsRootSpan()", "not IsRootSpan()", "IsRootSpan() == true",
    'IsInCIDR(attributes["k"], ["10.0.0.0/8"])', 'IsInCIDR(attributes["k"], ["fe80::/10", "192.168.0.0/16"])', 'not IsInCIDR(attributes["k"], ["10.0.0.0/8"])',
    'end_time - start_time > Duration("500ms")', "end_time_unix_nano - start_time_unix_nano == 0", "Milliseconds(end_time - start_time) == 250", "Seconds(end_time - start_time) >= 1.002", "Minutes(end_time - start_time) == 0", "Nanoseconds(end_time - start_time) == 501000000",
    'Duration(attributes["k"]) == Duration("90m")', 'Duration("1.5s") == Duration("1s") + Duration("0.5s") and kind == 1', 'start_time + Duration("1s") < end_time', "UnixNano(start_time) == start_time_unix_nano and kind == 3", "UnixMilli(start_time) == 1700000000001", "UnixSeconds(end_time) > 1700000000",
    "start_time == end_time", "start_time == start_time_unix_nano", 'trace_id.string == "01010101010101010101010101010101"', "trace_id == TraceID(0x02020202020202020202020202020202)", 'trace_id == TraceID("03030303030303030303030303030303")', "trace_id != TraceID(0x02020202020202020202020202020202)",
    'TraceID(attributes["k"]) != trace_id', "trace_id == 0x02020202020202020202020202020202", "trace_id != nil", "trace_id < trace_id", 'span_id.string == "0000000000000005"', "span_id == SpanID(0x0000000000000005)", "parent_span_id == SpanID(0x0000000000000000)", 'parent_span_id.string == "0000000000000000"', "span_id == parent_span_id",
    'trace_state["a"] == "1"', 'trace_state["a"] == ""', 'trace_state["a"] == nil', 'trace_state == "bad"', 'trace_state["x@y"] == "z"', 'kind.string == "Server"', 'kind.deprecated_string == "SPAN_KIND_CLIENT"', "status.code == STATUS_CODE_ERROR", 'status.message == "boom"', 'status.message == ""', "flags == 1",
    'resource.attributes["service.name"] == "front"', 'resource.attributes["n"] == nil', 'resource.schema_url == "https://schema/1"', 'instrumentation_scope.name == "lib1"', 'scope.version == "1.2"', 'scope.attributes["level"] > 2', 'scope.name == ""',
    "true", "false", "not true", "true and kind == 1", "1 == 1.0", 'attributes["k"]["x"] == 1 and false', 'false and attributes["k"]["x"] == 1', 'kind == 1 or attributes["k"] + 1 == 2', 'attributes["k"] + 1 == 2 or kind == 1', 'kind == 1 and attributes["k"] + 1 == 6', "nil == nil", "nil != nil",
    "(((kind))) == 2", "-(-kind) == 2", "+kind == 2", '[kind, name] == [1, "GET /a"]', '{"a": kind} == {"a": 1}', 'attributes["k"] == Split("a", ",")', "1.5e0 == 1.5", ".5 < 1.", '"\\u0041\\x42\\103" == "ABC"', 'String(start_time) == "x"', 'String(end_time - start_time) == "250500000"', 'String(1.5) == "1.5"',
    'Index(attributes["k"], 2.5) == 2', "Len([1, 2]) == 2", 'IsMatch("abc", "b")', 'IsMatch(nil, "b")', 'String(attributes["k"]) == "NaN"', 'attributes["k"] == attributes["k"]',
]  # fmt: skip
SPANEVENT = [
    'name == "exception"', 'spanevent.name == ""', 'attributes["k"] != nil', 'attributes["k"] == 5 or name == "log"', 'span.name == "GET /a"', "span.kind == SPAN_KIND_SERVER", "time_unix_nano > 1700000000000000000",
    'resource.attributes["service.name"] == "back"', 'IsMatch(name, "o") and scope.name == "lib1"', 'time - span.start_time < Duration("0s")', "true", "false", 'attributes["k"] + 1 == 6', "Len(attributes) == 2",
]  # fmt: skip
METRIC = [
    'name == "g"', 'metric.name == "requests"', "type == METRIC_DATA_TYPE_SUM", "type == METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM or type == METRIC_DATA_TYPE_SUMMARY", "is_monotonic == true", "is_monotonic == nil", "is_monotonic != true",
    "aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA", "aggregation_temporality == nil", 'unit == "s"', 'description == ""', "Len(data_points) == 6", "IsList(data_points)", 'HasAttrKeyOnDatapoint("other")', 'HasAttrOnDatapoint("k", "text")', 'HasAttrOnDatapoint("id", "front0")',
    'HasAttrOnDatapoint("k", "")', 'resource.attributes["service.name"] == "front" and name == "g"', 'instrumentation_scope.name == "lib.back"', 'IsMatch(name, "^l.*y$")', "true",
]  # fmt: skip
DATAPOINT = [
    'attributes["k"] == "text"', "value_int > 10", "value_int == 0", "value_int == nil", "value_double >= 3.5", "value_double == nil", "value_double == 0.0", "count > 2", "count == nil", "sum == 0.0", "sum > 3", "sum == nil",
    "flags == FLAG_NO_RECORDED_VALUE", "time_unix_nano - start_time_unix_nano > 20", 'metric.name == "delta" and datapoint.value_int > 3', "metric.type == METRIC_DATA_TYPE_HISTOGRAM", "scale < 0", "zero_count == 1", "positive.offset > 0", "negative.offset == nil", "Len(exemplars) == 1",
    "exemplars == nil", "Len(quantile_values) == 1", "quantile_values == nil", 'attributes["k"] + 1 == 6', 'resource.attributes["service.name"] == "back"', "metric.is_monotonic == true and value_int != nil", "start_time < time", "Len(attributes) == 2", "true",
]  # fmt: skip
LOG = [
    "body == nil", 'body == "text"', "body != nil", "body == 5", "body > 4", 'body["x"]["y"] == 1', "body[0] == 1", 'body["none"] == nil', 'IsMatch(body, "e")', 'IsMatch(body.string, "^$")', 'body.string == "5"', 'body.string == "AQI="', 'IsMatch(body.string, "\\"s\\"")', "IsMap(body)", "IsList(body)",
    "severity_number >= SEVERITY_NUMBER_WARN", "severity_number == SEVERITY_NUMBER_UNSPECIFIED", "severity_number < SEVERITY_NUMBER_INFO and severity_number != SEVERITY_NUMBER_UNSPECIFIED", 'severity_text == "INFO"', 'ToUpperCase(severity_text) == "ERROR"', 'log.attributes["k"] == "text"', 'attributes["id"] == "front3"',
    "time_unix_nano > 1700000000000000020", "observed_time > time", "flags == 1", 'trace_id.string == "00000000000000000000000000000000"', "trace_id == TraceID(0x02020202020202020202020202020202)", "span_id != SpanID(0x0000000000000000)", 'event_name == "login"',
    'resource.attributes["service.name"] == "back"', 'scope.name == "front" or body == true', "body == 0x0102", 'body == [1, "a", 2.5]', "Len(body) > 3", "Double(body) < 0", "Int(body) == 10", 'String(body) == "0102"', "body == {}", 'body["l"][5] == 1', "true",
]  # fmt: skip
LISTED = [
    *((Signal.TRACES, {"traces": {"span": [text]}}) for text in SPAN),
    *((Signal.TRACES, {"traces": {"spanevent": [text]}}) for text in SPANEVENT),
    *((Signal.METRICS, {"metrics": {"metric": [text]}}) for text in METRIC),
    *((Signal.METRICS, {"metrics": {"datapoint": [text]}}) for text in DATAPOINT),
    *((Signal.LOGS, {"logs": {"log_record": [text]}}) for text in LOG),
    (Signal.TRACES, {"traces": {"resource": ['attributes["service.name"] == "front"'], "span": ["kind == 2"], "spanevent": ['name == "log"']}}),
    (Signal.METRICS, {"metrics": {"resource": ['attributes["service.name"] == "back"'], "metric": ['name == "g"'], "datapoint": ["value_int > 9"]}}),
    (Signal.LOGS, {"logs": {"resource": ['IsMatch(attributes["service.name"], "^b")'], "log_record": ["severity_number > 12"]}}),
    (Signal.TRACES, {"traces": {"span": ['attributes["k"] + 1 == 6', "kind == 4"]}}),
    (Signal.TRACES, {"traces": {"span": ["kind == 4"]}, "error_mode": "propagate"}),
    (Signal.TRACES, {"trace_conditions": ['span.name == "GET /a"', 'resource.attributes["service.name"] == "back"', 'spanevent.name == "exception"', 'scope.attributes["level"] == 4']}),
    (Signal.TRACES, {"trace_conditions": ['resource.attributes["service.name"] == "front" and IsRootSpan()']}),
    (Signal.TRACES, {"trace_conditions": ['resource.attributes["service.name"] == "front" and span.kind == SPAN_KIND_SERVER']}),
    (Signal.TRACES, {"trace_conditions": [{"context": "span", "conditions": ['name == "GET /a"', "span.kind == 3"]}, {"context": "scope", "conditions": ['name == "lib0"'], "error_mode": "silent"}]}),
    (Signal.TRACES, {"trace_conditions": [{"conditions": ['span.attributes["k"] == 5', 'scope.name == "lib1"']}, {"context": "resource", "conditions": ['attributes["n"] == 1']}]}),
    (Signal.METRICS, {"metric_conditions": ['metric.name == "g"', 'datapoint.value_int > 12 and metric.name == "delta"', 'scope.name == "lib.back"']}),
    (Signal.METRICS, {"metric_conditions": [{"context": "metric", "conditions": ["type == METRIC_DATA_TYPE_SUMMARY"]}, {"context": "datapoint", "conditions": ["count == 2"]}]}),
    (Signal.METRICS, {"metric_conditions": ['resource.attributes["service.name"] == "front" and HasAttrOnDatapoint("k", "text")']}),
    (Signal.LOGS, {"log_conditions": ["log.severity_number < SEVERITY_NUMBER_ERROR", 'log.body == "text"']}),
    (Signal.LOGS, {"log_conditions": [{"context": "log", "conditions": ["body != nil"]}, {"context": "resource", "conditions": ['attributes["service.name"] == "front"']}]}),
]  # fmt: skip
SIGNALS = {
    Signal.TRACES: (ExportTraceServiceRequest, Traces, traces_data, "trace.v1.TraceService"),
    Signal.METRICS: (ExportMetricsServiceRequest, Metrics, metrics_data, "metrics.v1.MetricsService"),
    Signal.LOGS: (ExportLogsServiceRequest, Logs, logs_data, "logs.v1.LogsService"),
}


def go_config(folder, health, port):
    cases = list(enumerate(LISTED))
    return json.dumps({
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
        "processors": {f"filter/{index}": {"error_mode": "ignore", **config} for index, (_, config) in cases},
        "exporters": {f"file/{index}": {"path": f"{folder}/{index}.jsonl"} for index, _ in cases},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "fatal"}},
            "pipelines": {
                f"{signal.value}/{index}": {"receivers": ["otlp"], "processors": [f"filter/{index}"], "exporters": [f"file/{index}"]}
                for index, (signal, _) in cases
            },
        },
    })  # fmt: skip


def kept(request):
    """Return what identifies each item: a span with its events, a point with its metric and id, a record by its id."""
    found = []
    for resource in request.ListFields()[0][1] if request.ListFields() else ():
        for scope in next(value for field, value in resource.ListFields() if field.name.startswith("scope_")):
            for item in next(
                (value for field, value in scope.ListFields() if field.name in {"spans", "metrics", "log_records"}), ()
            ):
                if item.DESCRIPTOR.name == "Span":
                    found.append((item.span_id.hex(), [event.name for event in item.events]))
                elif item.DESCRIPTOR.name == "Metric":
                    points = getattr(item, item.WhichOneof("data")).data_points
                    found.extend((item.name, identity(point)) for point in points)
                else:
                    found.append((identity(item),))
    return sorted(map(str, found))


def identity(item):
    return next(pair.value.string_value for pair in item.attributes if pair.key == "id")


def go_kept(file, message_type):
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        found.extend(kept(json_format.ParseDict(ids_as_protobuf(json.loads(line)), message_type())))
    return sorted(found)


def ids_as_protobuf(value):
    """Convert ids from hex, as in OTLP/JSON, to base64, as in protobuf's own JSON."""
    if isinstance(value, list):
        return [ids_as_protobuf(each) for each in value]
    if not isinstance(value, dict):
        return value
    is_id = {"traceId", "spanId", "parentSpanId"}
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in is_id else ids_as_protobuf(each)
        for key, each in value.items()
    }  # fmt: skip


def test_keeps_what_the_go_collector_keeps(server, tmp_path):
    """Both keep the same items for each condition, all of which the Go collector accepts."""
    program = server.binary("otelcol")
    health, port = free_port(), free_port()
    (tmp_path / "go.json").write_text(go_config(tmp_path, health, port))
    data = {signal: make() for signal, (_, _, make, _) in SIGNALS.items()}
    with (
        server.running([program, f"--config={tmp_path}/go.json"], f"http://127.0.0.1:{health}/", tmp_path),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        for signal, (_, _, _, service) in SIGNALS.items():
            export = channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export", bytes, bytes)
            export(data[signal].SerializeToString(), timeout=60, wait_for_ready=True)
    differences = []
    decided = 0
    for index, (signal, config) in enumerate(LISTED):
        message_type, batch_type, *_ = SIGNALS[signal]
        batch = batch_type.from_wire(data[signal].SerializeToString())
        out = factory.create(make_settings(factory, signals={signal}), FilterConfig.model_validate(config)).transform(
            batch
        )
        ours = kept(message_type.FromString(out.wire)) if out is not None else []
        theirs = go_kept(tmp_path / f"{index}.jsonl", message_type)
        decided += 0 < len(theirs) < len(kept(data[signal]))
        if ours != theirs:
            differences.append(
                f"{config}: only we keep {sorted(set(ours) - set(theirs))[:5]}, only Go {sorted(set(theirs) - set(ours))[:5]}"
            )
    assert not differences, "\n".join(differences)
    assert decided > len(LISTED) * 0.6  # most conditions tell items apart
