"""OTLP over gRPC against a real server on the loopback: requests, answers, splitting, faults, and the ledger."""

import asyncio

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from collector.model import Signal
from collector.testing import FakeHost, RecordingTelemetry, batch, eventually, make_settings, traces
from exporters.otlp_grpc import factory

USED = {"transport": "http2"}


@pytest.fixture(autouse=True, params=["http2", "grpcio"])
def transport(request, monkeypatch):
    """Each test runs over both transports."""
    monkeypatch.setitem(USED, "transport", request.param)
    return request.param


SERVICES = {
    Signal.TRACES: ("trace.v1.TraceService", trace_service_pb2, "ExportTrace"),
    Signal.METRICS: ("metrics.v1.MetricsService", metrics_service_pb2, "ExportMetrics"),
    Signal.LOGS: ("logs.v1.LogsService", logs_service_pb2, "ExportLogs"),
}


class Backend:
    """An OTLP/gRPC server built from the official messages.

    It first answers from ``script``: bytes, a status code,
    or an event to wait for.

    """

    def __init__(self, *script, credentials=None, port=0):
        self.script = list(script)
        self.requests = []
        self.wires = []
        self.metadata = []
        self.credentials = credentials
        self.port = port

    async def __aenter__(self):
        self.server = grpc.aio.server()  # its limit is gRPC's own: 4 MiB a message
        handlers = []
        for service, module, prefix in SERVICES.values():
            request_type = getattr(module, f"{prefix}ServiceRequest")

            async def export(wire, context, request_type=request_type):
                self.wires.append(wire)
                self.requests.append(request_type.FromString(wire))
                self.metadata.append(dict(context.invocation_metadata()))
                answer = self.script.pop(0) if self.script else b""
                if isinstance(answer, asyncio.Event):
                    await answer.wait()
                    answer = b""
                if isinstance(answer, grpc.StatusCode):
                    await context.abort(answer, "as ordered")
                return answer

            handler = {"Export": grpc.unary_unary_rpc_method_handler(export)}
            handlers.append(grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{service}", handler))
        self.server.add_generic_rpc_handlers(tuple(handlers))
        if self.credentials:
            self.port = self.server.add_secure_port("localhost:0", self.credentials)
        else:
            self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(None)


class Rig:
    def __init__(self, backend, **config):
        host = "localhost" if backend.credentials else "127.0.0.1"
        config = {"endpoint": f"{host}:{backend.port}", "tls": {"insecure": True}, "timeout": "10s"} | USED | config
        self.telemetry = RecordingTelemetry()
        self.settings = make_settings(factory, telemetry=self.telemetry)
        self.exporter = factory.create(self.settings, factory.config_type.model_validate(config))
        self.clock = self.settings.clock

    async def __aenter__(self):
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
            await asyncio.wait({stopping}, timeout=0.1)  # its ten seconds must be enough on a busy machine
        await stopping

    async def settled(self):
        await eventually(lambda: not any(self.exporter.in_flight_items().values()), timeout_s=20)

    def outcome(self, signal=Signal.TRACES):
        ledger = self.telemetry.ledger
        return ledger.delivered[signal], ledger.dropped_count(signal), ledger.refused_count(signal)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_each_signal_arrives_as_it_was(signal, compression):
    sent = batch(signal, items=50)
    async with Backend() as backend, Rig(backend, compression=compression, headers={"x-scope-orgid": "acme"}) as rig:
        await rig.exporter.consume(sent)
        await rig.settled()
        assert backend.wires == [sent.wire]
        assert rig.outcome(signal) == (50, 0, 0)
        assert backend.metadata[0]["x-scope-orgid"] == "acme"
        assert backend.metadata[0]["user-agent"].startswith("tailrace/")


@pytest.mark.parametrize("rejected", [0, 3, 10])
async def test_items_rejected_in_a_partial_success_are_refused(rejected):
    answer = trace_service_pb2.ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = "too\nold"
    async with Backend(answer.SerializeToString()) as backend, Rig(backend) as rig:
        await rig.exporter.consume(traces(spans=10))
        await rig.settled()
        assert rig.outcome() == (10 - rejected, 0, rejected)
        (event,) = rig.telemetry.log.of_level("warning")
        assert (event.fields["rejected"], event.fields["message"]) == (rejected, "too old")


@pytest.mark.parametrize("answer", [b"", b"\n\x00"])
async def test_an_empty_partial_success_is_full_success(answer):
    async with Backend(answer) as backend, Rig(backend) as rig:
        await rig.exporter.consume(traces(spans=10))
        await rig.settled()
        assert rig.outcome() == (10, 0, 0)
        assert rig.telemetry.log.events == []


async def test_ok_with_an_answer_that_is_not_a_response_is_delivered_with_a_warning():
    """The backend has accepted the data."""
    async with Backend(b"\xff\xff\xff") as backend, Rig(backend) as rig:
        await rig.exporter.consume(traces(spans=10))
        await rig.settled()
        assert rig.outcome() == (10, 0, 0)
        (event,) = rig.telemetry.log.of_level("warning")
        assert event.fields["problem"] == "the server's response body is not a valid OTLP export response for traces"
        assert len(backend.wires) == 1


async def test_every_request_stays_below_the_backends_limit():
    sent = traces(spans=20_000)
    assert sent.size_bytes > 8 * 1024 * 1024 * 3 // 4
    async with Backend() as backend, Rig(backend, timeout="30s") as rig:
        await rig.exporter.consume(sent)
        await rig.settled()
        assert rig.outcome() == (20_000, 0, 0)
        assert len(backend.wires) > 1
        spans = [s for r in backend.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]
        assert len({s.span_id for s in spans}) == len(set(sent.field("span_id").tolist())) == len(spans)


async def test_only_the_failed_part_of_a_split_batch_is_sent_again():
    sent = traces(spans=60)
    async with (
        Backend(b"", grpc.StatusCode.UNAVAILABLE) as backend,
        Rig(backend, max_request_bytes=sent.size_bytes // 2) as rig,
    ):
        await rig.exporter.consume(sent)
        await eventually(lambda: len(backend.wires) == 2 and rig.exporter.health.last_error != "")
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.outcome() == (60, 0, 0)
        assert backend.wires[1] == backend.wires[2]
        assert len(set(backend.wires)) == len(backend.wires) - 1


async def test_the_status_decides_whether_to_retry():
    script = (grpc.StatusCode.UNAVAILABLE, b"", grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    async with Backend(*script) as backend, Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        for spans in (1, 2, 4, 8):
            await rig.exporter.consume(traces(spans=spans))
        await eventually(lambda: rig.exporter.health.last_error != "")
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.outcome() == (9, 0, 6)
        assert rig.telemetry.ledger.refused == {
            (Signal.TRACES, "grpc_unimplemented"): 2,
            (Signal.TRACES, "grpc_resource_exhausted"): 4,
        }


async def test_what_is_invalid_is_found_by_halving_the_request():
    """The other half of a request that is refused as invalid is delivered, and nothing is sent twice to no purpose."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with Backend(invalid, invalid, b"", invalid, b"") as backend, Rig(backend) as rig:
        await rig.exporter.consume(traces(spans=4))
        await rig.settled()
        assert rig.telemetry.ledger.refused == {(Signal.TRACES, "grpc_invalid_argument"): 1}
        assert rig.outcome() == (3, 0, 1)


async def test_a_backend_that_comes_back_gets_everything():
    gone = Backend()
    async with gone, Rig(gone, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        await gone.server.stop(None)
        await rig.exporter.consume(traces(spans=5))
        await eventually(lambda: rig.exporter.health.last_error != "")
        async with Backend(port=gone.port) as back:
            moving = asyncio.ensure_future(keep_moving(rig.clock))
            await eventually(lambda: rig.outcome() == (5, 0, 0), timeout_s=30)
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            assert len(back.wires) == 1


async def test_a_call_without_answer_ends_with_the_timeout():
    """It is the deadline of the call, which the backend knows as well; then the call is retried."""
    gate = asyncio.Event()
    async with Backend(gate) as backend, Rig(backend, timeout="200ms") as rig:
        await rig.exporter.consume(traces(spans=5))
        await eventually(lambda: "DEADLINE_EXCEEDED" in rig.exporter.health.last_error)
        gate.set()
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.outcome() == (5, 0, 0)


async def keep_moving(clock):
    """Let the time pass at a hundred times its speed."""
    while True:
        await clock.advance(1)
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)


async def test_once_connected_requests_need_no_task(transport):
    """Batches are sent within the call that adds them, with the same outcomes."""
    answer = trace_service_pb2.ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    statuses = (grpc.StatusCode.UNAVAILABLE, b"", grpc.StatusCode.UNIMPLEMENTED)
    async with Backend(b"", answer.SerializeToString(), b"\xff\xff\xff", *statuses) as backend, Rig(backend) as rig:
        await rig.exporter.consume(traces(spans=1))
        await rig.settled()
        for spans in (10, 20, 40, 80):
            before = asyncio.all_tasks()
            assert rig.exporter.try_consume(traces(spans=spans))
            assert (asyncio.all_tasks() == before) is (transport == "http2")
            if spans == 40:
                await eventually(lambda: "UNAVAILABLE" in rig.exporter.health.last_error)
                await rig.clock.advance(10)
            await rig.settled()
        assert rig.outcome() == (1 + 7 + 20 + 40, 0, 3 + 80)
        assert rig.telemetry.ledger.refused == {
            (Signal.TRACES, "partial_success"): 3,
            (Signal.TRACES, "grpc_unimplemented"): 80,
        }
        assert len(backend.wires) == 6, "only what failed was sent again"


async def test_an_error_while_reading_an_answer_drops_the_batch(transport, monkeypatch):
    """The outcome does not depend on whether a task sent the batch; later batches are sent."""
    async with Backend() as backend, Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.exporter.consume(traces(spans=1))
        await rig.settled()

        def fault(*_):
            raise RuntimeError("bug")

        with monkeypatch.context() as patch:
            patch.setattr("collector.delivery.otlp.partial_success", fault)
            assert rig.exporter.try_consume(traces(spans=2))
            await rig.settled()
        assert rig.exporter.try_consume(traces(spans=4))
        await rig.settled()
        assert rig.outcome() == (5, 2, 0)
        assert rig.telemetry.ledger.dropped == {(Signal.TRACES, "internal_error"): 2}


async def test_tls_and_mtls(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = authority.issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    server = grpc.ssl_server_credentials(
        [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())],
        authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    tls = {
        "ca_file": str(tmp_path / "ca.pem"),
        "cert_file": str(tmp_path / "cert.pem"),
        "key_file": str(tmp_path / "key.pem"),
    }
    async with Backend(credentials=server) as backend, Rig(backend, tls=tls) as rig:
        await rig.exporter.consume(traces(spans=5))
        await rig.settled()
        assert rig.outcome() == (5, 0, 0)


async def test_shutdown_under_load_loses_nothing():
    async with Backend() as backend:
        async with Rig(backend) as rig:
            for seed in range(40):
                await rig.exporter.consume(traces(spans=10, seed=seed))
        assert rig.outcome() == (400, 0, 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "endpoint is required"),
        ({"endpoint": "h:1", "transport": "grpcio", "compression": "zstd"}, "transport grpcio does not support zstd"),
        ({"endpoint": "h:1", "headers": {"grpc-x": "1"}}, "grpc-x"),
        ({"endpoint": "h:1", "unknown": 1}, "unknown"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


async def test_certificates_that_cannot_be_read_refuse_the_start():
    config = factory.config_type.model_validate(USED | {"endpoint": "h:1", "tls": {"ca_file": "/nowhere.pem"}})
    exporter = factory.create(make_settings(factory, component_id="otlp_grpc/a"), config)
    with pytest.raises(ValueError, match="exporters::otlp_grpc/a::tls::ca_file"):
        await exporter.start(FakeHost())
    await exporter.shutdown()
