"""``use_v2``: the states of components over HTTP and gRPC, as the Collector's healthcheckv2 shows them."""

import json

import aiohttp
import grpc
import pytest

from collector.api import HealthCheck, Overview, PipelineOverview, Status
from collector.model import Signal
from collector.registry import Registry
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, make_settings
from collector.transport.grpc.health import _Request, _Response
from extensions.health_check import factory

HTTP, GRPC = {"endpoint": "127.0.0.1:0"}, {"endpoint": "127.0.0.1:0"}


class Service(FakeHost):
    """Two pipelines with one exporter each; ``fail`` puts one of them into a state."""

    def __init__(self):
        super().__init__()
        self.checks_now = []
        self.statuses_now = {
            "extensions/health_check": "ok",
            **dict.fromkeys(("receivers/otlp", "processors/batch@traces", "connectors/count"), "ok"),
            **dict.fromkeys(("exporters/otlp_grpc/a", "exporters/otlp_grpc/b"), "ok"),
        }

    def fail(self, exporter, status, failing_s=0.0):
        name = f"exporters/otlp_grpc/{exporter}"
        self.statuses_now[name] = f"{status}: no connection"
        self.checks_now = [HealthCheck(name, healthy=False, status=status, failing_s=failing_s)]

    def health(self):
        return self.checks_now

    def configuration(self):
        return {"exporters": {"otlp_grpc/a": {"headers": {"x": "[REDACTED]"}}}}

    def overview(self):
        return Overview(
            version="1",
            instance_id="i",
            start_time_unix_nano=FakeClock().time_unix_nano(),
            pipelines=(
                PipelineOverview("traces", Signal.TRACES, ("otlp",), ("batch",), ("otlp_grpc/a", "count")),
                PipelineOverview("logs", Signal.LOGS, ("otlp",), (), ("otlp_grpc/b",)),
            ),
            extensions=("health_check",),
            statuses=self.statuses_now,
        )


class Running:
    def __init__(self, **options):
        self.host, self.telemetry = Service(), RecordingTelemetry()
        settings = make_settings(factory, clock=FakeClock(), telemetry=self.telemetry)
        config = {"use_v2": True, "http": HTTP, "grpc": GRPC, **options}
        self.sut = factory.create(settings, factory.config_type.model_validate(config))

    async def __aenter__(self):
        await self.sut.start(self.host)
        return self

    async def __aexit__(self, *_):
        await self.sut.shutdown()

    async def get(self, path):
        url = f"http://127.0.0.1:{self.sut.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    async def check(self, service=""):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.sut.grpc_port}") as channel:
            call = channel.unary_unary("/grpc.health.v1.Health/Check")
            return _Response.FromString(await call(_Request(service=service).SerializeToString())).status


async def test_everything_is_ok():
    """The verbose answer has the components of each pipeline, the other one has not."""
    async with Running() as running:
        status, document = await running.get("/status?verbose")
        assert status == 200
        time = "2023-11-14T22:13:20+00:00"
        ok = {"healthy": True, "status": "StatusOK", "status_time": time}
        assert document == {
            "start_time": time,
            **ok,
            "components": {
                "extensions": {**ok, "components": {"extension:health_check": ok}},
                "pipeline:traces": {
                    **ok,
                    "components": dict.fromkeys(
                        ("receiver:otlp", "processor:batch", "exporter:otlp_grpc/a", "connector:count"), ok
                    ),
                },
                "pipeline:logs": {**ok, "components": dict.fromkeys(("receiver:otlp", "exporter:otlp_grpc/b"), ok)},
            },
        }
        assert await running.get("/status") == (200, {"start_time": time, **ok})
        assert await running.get("/status?verbose=false") == (200, {"start_time": time, **ok})
        assert [await running.check(name) for name in ("", "traces", "logs")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("component_health", "status", "failing_s", "expected"),
    [
        (None, Status.RECOVERABLE_ERROR, 1e6, 200),
        (None, Status.PERMANENT_ERROR, 1e6, 200),
        (None, Status.FATAL_ERROR, 0, 500),
        ({}, Status.PERMANENT_ERROR, 0, 200),
        ({"include_permanent_errors": True}, Status.PERMANENT_ERROR, 0, 500),
        ({"include_recoverable_errors": True}, Status.RECOVERABLE_ERROR, 299, 200),
        ({"include_recoverable_errors": True}, Status.RECOVERABLE_ERROR, 301, 500),
        ({"include_recoverable_errors": True, "recovery_duration": "1m"}, Status.RECOVERABLE_ERROR, 61, 500),
    ],
)
async def test_which_errors_make_a_pipeline_and_the_service_unhealthy(component_health, status, failing_s, expected):
    """The other pipeline stays healthy; HTTP and gRPC agree."""
    async with Running(component_health=component_health) as running:
        running.host.fail("a", status, failing_s)
        for path, service in (("/status", ""), ("/status?pipeline=traces", "traces")):
            code, document = await running.get(path)
            assert (code, document["error"]) == (expected, "no connection")
            if component_health is not None:
                assert document["healthy"] == (expected == 200)
            assert await running.check(service) == (1 if expected == 200 else 2)
        assert (await running.get("/status?pipeline=logs"))[0] == 200
        assert await running.check("logs") == 1


async def test_the_error_that_counts_comes_first():
    """If only recoverable errors count, they are shown rather than a permanent one."""
    for component_health, shown in (({}, "PermanentError"), ({"include_recoverable_errors": True}, "RecoverableError")):
        async with Running(component_health=component_health) as running:
            running.host.fail("a", Status.PERMANENT_ERROR)
            running.host.fail("b", Status.RECOVERABLE_ERROR)
            assert (await running.get("/status"))[1]["status"] == f"Status{shown}"


async def test_a_service_that_starts_or_stops_is_unavailable():
    async with Running() as running:
        running.host.is_ready = False
        assert (await running.get("/status"))[1]["status"] == "StatusStarting"
        running.host.is_ready = True
        assert (await running.get("/status"))[0] == 200
        running.host.is_ready = False
        status, document = await running.get("/status")
        assert (status, document["status"]) == (503, "StatusStopping")
        assert await running.check() == 2


async def test_unknown_pipelines_and_paths_are_404():
    async with Running() as running:
        assert (await running.get("/status?pipeline=other"))[0] == 404
        assert (await running.get("/"))[0] == 404
        assert (await running.get("/config"))[0] == 404
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await running.check("other")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_paths_can_be_moved_and_the_configuration_shown():
    """Secrets are redacted, which the service has done already."""
    http = {**HTTP, "status": {"path": "/health"}, "config": {"enabled": True, "path": "/health/config"}}
    async with Running(http=http, grpc=None) as running:
        assert (await running.get("/health"))[0] == 200
        assert await running.get("/health/config") == (200, running.host.configuration())
        assert running.sut.grpc_port == 0
    async with Running(http={**HTTP, "status": {"enabled": False}}) as running:
        assert (await running.get("/status"))[0] == 404


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_v2": True}, "use_v2 needs http or grpc"),
        ({"use_v2": True, "http": {"status": {"path": "status"}}}, "the path must begin with /"),
        ({"use_v2": True, "http": {"config": {"path": "x"}}}, "the path must begin with /"),
    ],
)
def test_what_cannot_work_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"use_v2": True, "http": HTTP, "path": "/x"}, ["path"]),
        ({"endpoint": "127.0.0.1:0", "grpc": GRPC}, ["grpc"]),
        (
            {"endpoint": "127.0.0.1:0", "check_collector_pipeline": {"enabled": True, "interval": "1m"}},
            ["check_collector_pipeline::interval"],
        ),
        ({"endpoint": "127.0.0.1:0"}, None),
    ],
)
async def test_keys_without_effect_are_named_once(config, keys):
    running = Running(**{"use_v2": False, "http": None, "grpc": None, **config})
    async with running:
        warnings = [event for event in running.telemetry.log.events if event.level == "warning"]
        assert [event.fields["keys"] for event in warnings] == ([keys] if keys else [])


def test_all_names_of_the_type_are_known():
    registry = Registry()
    kind = factory.kind
    assert {
        registry.find(kind, name).component_type for name in ("healthcheck", "healthcheckv2", "health_check_v2")
    } == {"health_check"}
