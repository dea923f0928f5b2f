"""Probes are answered as the Collector answers them."""

import socket

import aiohttp
import pytest

from collector.api import HealthCheck, Status
from collector.testing import FakeClock, FakeHost, make
from extensions.health_check import factory


async def get(extension, path="/"):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{extension.port}{path}") as response:
        return response.status, await response.text()


async def started(host, clock=None, **options):
    config = factory.config_type.model_validate({"endpoint": "127.0.0.1:0", **options})
    extension = make(factory, config, clock=clock or FakeClock())
    await extension.start(host)
    return extension


async def test_reports_since_when_the_service_is_ready():
    """503 before the service is ready, then 200 with upSince and uptime, on every path."""
    host, clock = FakeHost(), FakeClock()
    host.is_ready = False
    extension = await started(host, clock)
    assert (await get(extension))[0] == 503
    host.is_ready = True
    assert (await get(extension, "/any/path"))[0] == 200
    clock.move(3723.5)
    status, text = await get(extension)
    assert status == 200
    assert '"status":"Server available"' in text
    assert '"upSince":"2023-11-14T22:13:20+00:00"' in text
    assert '"uptime":"1h2m3.5s"' in text
    await extension.shutdown()
    await extension.shutdown()


async def test_answers_only_on_its_path_with_the_configured_body():
    """Other paths are answered with 404."""
    host = FakeHost()
    extension = await started(host, path="/healthz", response_body={"healthy": "fine", "unhealthy": "wait"})
    assert await get(extension, "/healthz") == (200, "fine")
    host.is_ready = False
    assert await get(extension, "/healthz") == (503, "wait")
    assert (await get(extension, "/"))[0] == 404
    await extension.shutdown()


@pytest.mark.parametrize(("enabled", "status"), [(False, 200), (True, 503)])
async def test_failing_exporters_count_only_if_enabled(enabled, status):
    """check_collector_pipeline.enabled decides whether a failing exporter changes the answer."""
    host = FakeHost()
    host.add_health_check("exporter a", lambda: HealthCheck("exporter a", healthy=False))
    extension = await started(host, check_collector_pipeline={"enabled": enabled})
    assert (await get(extension))[0] == status
    await extension.shutdown()


def check(status=Status.OK, failing_s=0.0, queue_age_s=0.0):
    return HealthCheck(
        "exporter a", healthy=True, message="down", status=status, failing_s=failing_s, queue_age_s=queue_age_s
    )


@pytest.mark.parametrize(
    ("component_health", "result", "status"),
    [
        ({}, check(Status.RECOVERABLE_ERROR, 1e6, 1e6), 200),
        ({}, check(Status.PERMANENT_ERROR, 1e6), 200),
        ({}, check(Status.FATAL_ERROR), 503),
        ({"include_permanent_errors": True}, check(Status.PERMANENT_ERROR), 503),
        ({"include_permanent_errors": True}, check(Status.RECOVERABLE_ERROR, 1e6), 200),
        ({"include_recoverable_errors": True}, check(Status.RECOVERABLE_ERROR, 299), 200),
        ({"include_recoverable_errors": True}, check(Status.RECOVERABLE_ERROR, 301), 503),
        (
            {"include_recoverable_errors": True, "recovery_duration": "10s"},
            check(Status.RECOVERABLE_ERROR, 11),
            503,
        ),
        ({"max_queue_age": "1m"}, check(queue_age_s=59), 200),
        ({"max_queue_age": "1m"}, check(queue_age_s=61), 503),
    ],
)
async def test_which_states_of_components_count(component_health, result, status):
    """The conditions of ``component_health`` decide, for probes and for the readiness on the admin port alike."""
    host = FakeHost()
    host.add_health_check("exporter a", lambda: result)
    extension = await started(host, component_health=component_health)
    assert (await get(extension))[0] == status
    (reason,) = (readiness() for readiness in host.readiness_checks)
    assert bool(reason) == (status == 503)
    assert reason.startswith("exporter a: ") or not reason
    await extension.shutdown()


async def test_a_taken_port_names_the_key():
    """The message names the key that moves the listener to another port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(OSError, match="extensions::health_check::endpoint"):
            await started(FakeHost(), endpoint=f"127.0.0.1:{holder.getsockname()[1]}")


def test_a_path_begins_with_a_slash():
    """Any other path would never match and is refused."""
    with pytest.raises(ValueError, match="the path must begin with /, got 'healthz'"):
        factory.config_type.model_validate({"path": "healthz"})
