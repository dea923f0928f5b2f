"""Which HTTP statuses each exporter sends again, and which it refuses.

Source: OTLP specification "Retryable Response Codes"; Prometheus remote-write specification 1.0 "Retries & Backoff";
grafana/loki pkg/distributor (429 and 5xx are worth a retry).
"""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collector.api import ComponentKind
from collector.model import Signal
from collector.registry import Registry
from collector.testing import FakeHost, RecordingTelemetry, eventually, logs, make_settings, metrics, traces

CLIENT = [400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 421, 422, 425, 426, 431, 451]
STATUSES = [300, 301, 302, 303, 307, 308, *CLIENT, 429, 500, 501, 502, 503, 504, 505, 507, 508, 511, 599]
SERVER = {status for status in STATUSES if status >= 500}
CASES = {
    "otlp_http": (Signal.TRACES, lambda: traces(spans=1), {429, 502, 503, 504}),
    "loki": (Signal.LOGS, lambda: logs(records=1), {429, *SERVER}),
    "prometheus_remote_write": (Signal.METRICS, lambda: metrics(points=1), {429, *SERVER}),
}


@pytest.mark.parametrize("component_type", CASES)
async def test_the_statuses_that_are_sent_again(component_type):
    """Without retries, what would be sent again is dropped; everything else is refused with the status as reason."""
    signal, make, expected = CASES[component_type]
    status = 0

    async def answer(request):
        await request.read()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    telemetry = RecordingTelemetry()
    factory = Registry().find(ComponentKind.EXPORTER, component_type)
    config = factory.config_type.model_validate(
        {"endpoint": str(server.make_url("/")), "retry_on_failure": {"enabled": False}}
    )
    exporter = factory.create(make_settings(factory, telemetry=telemetry, signals={signal}), config)
    await exporter.start(FakeHost())
    try:
        for number, status in enumerate(STATUSES, 1):  # `answer` reads the status
            await exporter.consume(make())
            await eventually(lambda: not telemetry.value("otelcol_exporter_queue_size"))
            lost = sum(telemetry.ledger.dropped.values()) + sum(telemetry.ledger.refused.values())
            assert lost == number, status
        refused = {reason for _, reason in telemetry.ledger.refused}
        assert refused == {f"http_{status}" for status in STATUSES if status not in expected}
        assert set(telemetry.ledger.dropped) == {(signal, "retry_disabled")}
        assert telemetry.ledger.dropped[signal, "retry_disabled"] == len(expected)
    finally:
        await exporter.shutdown()
        await server.close()
