"""A grpc-go client makes unusual calls: the codes, messages and details it receives, and the connection afterwards."""

import json
import subprocess
import time

import pytest

from collector.testing import free_port

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:GRPC", max_recv_msg_size_mib: 1, include_metadata: trueTLSENGINE}
processors:
  attributes: {actions: [{key: text, action: upsert, from_context: metadata.x-text}, {key: many, action: upsert,
      from_context: metadata.x-many}]}
exporters: {file: {path: FOLDER/traces.jsonl}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [attributes], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file]}
    logs: {receivers: [otlp], exporters: [file]}
"""
# Resident memory is above any such limit: everything is refused once it was measured.
FULL = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"ENGINE}}}}
processors: {memory_limiter: {check_interval: 100ms, limit_mib: 1, spike_limit_mib: 0}}
exporters: {nop: {}}
service:
  telemetry: {logs: {level: error}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines: {traces: {receivers: [otlp], processors: [memory_limiter], exporters: [nop]}}
"""
SERVICES = [
    f"opentelemetry.proto.collector.{each}Service" for each in ("logs.v1.Logs", "metrics.v1.Metrics", "trace.v1.Trace")
]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def played(server, *arguments):
    """Run the program and return its results by case."""
    done = subprocess.run(
        [server.binary("sdk_go"), *arguments], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {each["case"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def told(module_gateway, server, certificates):
    """Return what the client received from the server of an engine, each case played once.

    It has the calls by case, and the spans that arrived by name.
    """
    known = {}

    def of(engine, security):
        if (engine, security) not in known:
            port = free_port()
            tls = (
                f", tls: {{cert_file: {certificates}/cert.pem, key_file: {certificates}/key.pem}}"
                if security == "TLS"
                else ""
            )
            running, folder = module_gateway(
                CONFIG.replace(":GRPC", f":{port}").replace("TLS", tls).replace("ENGINE", engine.server)
            )
            address = (
                [f"localhost:{port}", str(certificates / "ca.pem")] if security == "TLS" else [f"127.0.0.1:{port}"]
            )
            calls = played(server, "calls", *address)
            assert running.stop() == 0
            known[engine, security] = calls, spans_in(folder / "traces.jsonl")
        return known[engine, security]

    return of


def spans_in(file):
    found = {}
    for line in file.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                values = {each["key"]: each["value"]["stringValue"] for each in span.get("attributes", [])}
                found.setdefault(span["name"], []).append(values)
    return found


@pytest.fixture(params=["plaintext", "TLS"])
def calls(request, engine, told):
    return told(engine, request.param)


def test_plain_calls_succeed_and_malformed_ones_say_what_is_wrong(calls):
    """An empty request is a success; a malformed one is INVALID_ARGUMENT with the path of the field."""
    seen, spans = calls
    assert seen["plain"]["code"] == seen["empty"]["code"] == "OK"
    assert len(spans["plain"]) == 10
    malformed = seen["malformed"]
    assert (malformed["code"], malformed["message"] != "") == ("InvalidArgument", True)
    assert [json.loads(detail)["@type"] for detail in malformed["details"]] == [
        "type.googleapis.com/google.rpc.BadRequest"
    ]


def test_metadata_reaches_the_pipeline(calls):
    """Several values of one key keep their order; hundreds of keys, large values and binary values do no harm."""
    seen, spans = calls
    assert {seen[case]["code"] for case in ("metadata", "binary", "many values", "large metadata")} == {"OK"}
    assert spans["metadata"] == [{"text": "one;two, three"}]
    assert spans["many values"] == [{"many": ";".join(map(str, range(100)))}]
    assert spans["large metadata"] == [{"text": "t" * 12 * 1024}]


def test_metadata_without_bound_is_refused(calls):
    """With two mebibytes of metadata the call fails, and no data of it arrives."""
    seen, spans = calls
    assert seen["huge metadata"]["code"] != "OK"
    assert "huge metadata" not in spans


@pytest.mark.parametrize("unit", "umSMH")
def test_every_unit_of_grpc_timeout_is_read(calls, unit):
    """A deadline far in the future does not end the call."""
    assert calls[0][f"timeout {unit}"]["code"] == "OK"


def test_a_deadline_in_nanoseconds_is_read(calls):
    """The deadline is near (99 ms), so a busy machine may miss it; no other kind of error may occur."""
    assert calls[0]["timeout n"]["code"] in {"OK", "DeadlineExceeded"}


def test_gzip_is_taken(calls):
    """Both engines decompress it completely."""
    seen, spans = calls
    assert seen["gzip"]["code"] == "OK"
    assert len(spans["gzip"]) == 100


def test_zstd_is_taken_by_our_own_engine(calls, engine):
    """The Python core of gRPC does not support zstd."""
    seen, spans = calls
    assert seen["zstd"]["code"] == ("OK" if engine.name == "http2" else "Internal")
    assert len(spans.get("zstd", ())) == (100 if engine.name == "http2" else 0)


def test_an_unknown_encoding_is_refused(calls, engine):
    """The answer is UNIMPLEMENTED, with the supported encodings in grpc-accept-encoding.

    gRPC's Python core answers INTERNAL itself, before the call reaches us.
    """
    seen, spans = calls
    unknown = seen["unheard-of"]
    assert "unheard-of" not in spans
    assert unknown["code"] == ("Unimplemented" if engine.name == "http2" else "Internal")
    if engine.name == "http2":
        accepted = {**unknown.get("header", {}), **unknown.get("trailer", {})}["grpc-accept-encoding"]
        assert {"gzip", "zstd"} <= set(",".join(accepted).replace(" ", "").split(","))


@pytest.mark.parametrize("case", ["unknown method", "unknown service"])
def test_what_is_not_served_is_unimplemented(calls, case):
    """This covers unknown methods and unknown services."""
    assert (calls[0][case]["code"], calls[0][case]["message"] != "") == ("Unimplemented", True)


def test_message_sizes_are_bounded(calls):
    """A message of max_recv_msg_size_mib is accepted; a larger one, as sent or decompressed, is RESOURCE_EXHAUSTED."""
    seen, _ = calls
    assert seen["largest"]["code"] == "OK"
    assert seen["oversize"]["code"] == seen["bomb"]["code"] == "ResourceExhausted"


def test_cancelled_calls_and_missed_deadlines_end_alone(calls):
    """They end as cancelled, with an expired deadline, or with an answer, and in no other way."""
    found = calls[0]["cancelled"]["found"]
    assert found.keys() <= {"OK", "Canceled", "DeadlineExceeded"}
    assert sum(found.values()) == 100


def test_a_thousand_calls_at_a_time_succeed(calls):
    """All use one connection; calls above max_concurrent_streams wait at the client."""
    seen, spans = calls
    assert seen["many"]["found"] == {"OK": 1000}
    assert len(spans["many"]) == 10_000


def test_the_connection_survives_it_all(calls):
    """The last call succeeds like the first."""
    seen, spans = calls
    assert seen["afterwards"]["code"] == "OK"
    assert len(spans["afterwards"]) == 10


@pytest.fixture
def http2_calls(told, http2):
    return told(http2, "plaintext")[0]


def test_health_is_checked_and_watched(http2_calls):
    """The server and each of its services are serving; an unknown service is NOT_FOUND.

    A watch ends when its caller ends it.
    """
    for case in ("health", "health of a service", "watch"):
        assert (http2_calls[case]["code"], http2_calls[case]["found"]) == ("OK", "SERVING")
    assert http2_calls["health of nobody"]["code"] == "NotFound"
    assert http2_calls["watch ended"]["code"] == "Canceled"


def test_reflection_describes_the_services(http2_calls):
    """As grpcurl requests it: the list, the file of a symbol, an unknown symbol; the stream ends without an error."""
    assert set(http2_calls["reflection"]["found"]) >= {*SERVICES, "grpc.health.v1.Health"}
    assert "opentelemetry.proto.collector.logs.v1.LogsService/Export" in http2_calls["descriptor"]["found"]
    not_found = 5
    assert http2_calls["no such symbol"]["found"] == not_found
    assert http2_calls["reflection ended"]["code"] == "OK"


def test_a_full_gateway_says_when_to_come_again(engine, gateway, server):
    """UNAVAILABLE with RetryInfo in grpc-status-details-bin, as OTLP demands."""
    port = free_port()
    gateway(FULL.replace(":GRPC", f":{port}").replace("ENGINE", engine.server))
    deadline = time.monotonic() + 30
    while (refused := played(server, "refused", f"127.0.0.1:{port}")["refused"])["code"] == "OK":
        assert time.monotonic() < deadline
    assert (refused["code"], refused["message"] != "") == ("Unavailable", True)
    (detail,) = map(json.loads, refused["details"])
    assert detail["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
    assert float(detail["retryDelay"].removesuffix("s")) > 0
