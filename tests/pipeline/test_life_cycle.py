"""Start, stop and reload: the order, the faults, and that the ledger balances."""

import asyncio
import json
import os
import re
import signal
import socket

import aiohttp
import orjson
import pytest

from collector.model import Signal
from collector.service import BuildError, StartError
from collector.testing import eventually, free_port, traces

CHAIN = """
receivers: {source: {do: %s}}
processors: {holder: {do: %s}, every: {}}
exporters: {target: {do: %s}}
extensions: {helper: {}}
service:
  extensions: [helper]
  pipelines:
    traces: {receivers: [source], processors: [every, holder], exporters: [target]}
"""
FINE = CHAIN % ('""', '""', '""')


def changed(text):
    """The same, with another configuration of every component."""
    return (
        text.replace("do:", "version: 1, do:")
        .replace("every: {}", "every: {version: 1}")
        .replace("helper: {}", "helper: {version: 1}")
    )


def dropped(service, node):
    return next(row.dropped for row in service.ledger.snapshot() if row.node == node and row.signal is Signal.TRACES)


async def test_starts_downstream_first_and_stops_upstream_first(world):
    """Components start in the order that the contract demands, and stop in reverse."""
    async with world.running(FINE):
        pass
    order = [
        "extensions/helper",
        "exporters/target",
        "processors/holder@traces",
        "processors/every@traces",
        "receivers/source",
    ]
    assert [line.removeprefix("start ") for line in world.log[:5]] == order
    assert [line.removeprefix("shutdown ") for line in world.log[5:]] == [
        order[4],
        order[3],
        order[2],
        order[1],
        order[0],
    ]


async def test_building_does_not_start(world):
    """`validate` makes a Service and discards it, so its shutdown must be safe."""
    service = world.service(FINE)
    await service.shutdown()
    assert world.log == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (CHAIN % ("fail_start", '""', '""'), "receivers::source::endpoint: the port is taken"),
        (CHAIN % ('""', '""', "fail_start"), "exporters::target: no such certificate"),
    ],
)
async def test_a_component_that_cannot_start_ends_those_that_did(world, text, path):
    """The message begins with the path of the component; everything that had started is shut down."""
    service = world.service(text)
    with pytest.raises(StartError, match="^" + re.escape(path)):
        await service.start()
    assert {line.split()[1] for line in world.log if line.startswith("start")} <= {
        line.split()[1] for line in world.log if line.startswith("shutdown")
    }
    await service.shutdown()


async def test_a_component_that_refuses_its_configuration_is_named(world):
    """An error while a component is constructed is reported with its path."""
    with pytest.raises(StartError, match=r"^--config yaml:4:13: exporters::target: refuses its configuration"):
        world.service(CHAIN % ('""', '""', "fail_create"))


async def test_everything_that_components_refuse_is_named_with_its_place(world):
    """Components of every kind, once each, with the keys that their errors begin with."""
    text = """
receivers: {source: {do: "fail_create:do: a"}}
processors: {every: {do: "fail_create:processors::every::do: b"}, holder: {}}
exporters:
  target: {do: "fail_create:exporters::target: c"}
  plain: {version: 5, do: "fail_create:version"}
connectors: {passer: {do: "fail_create:no key of it: e"}}
extensions: {helper: {do: "fail_create:"}}
service:
  extensions: [helper]
  pipelines:
    traces: {receivers: [source], processors: [every, holder], exporters: [target, passer]}
    traces/b: {receivers: [passer], processors: [holder, every], exporters: [target, plain]}
    logs: {receivers: [source], exporters: [target]}
"""
    with pytest.raises(BuildError) as caught:
        world.service(text)
    assert [
        (finding.line, finding.column, "::".join(finding.path), finding.message) for finding in caught.value.errors
    ] == [
        (2, 22, "receivers::source::do", "a"),
        (3, 22, "processors::every::do", "b"),
        (5, 3, "exporters::target", "c"),
        (6, 11, "exporters::plain::version", "refused"),
        (6, 23, "exporters::plain::do", "refused"),
        (7, 14, "connectors::passer", "no key of it: e"),
        (8, 14, "extensions::helper", "ValueError"),
    ]


async def test_a_component_that_never_ends_is_left_behind_with_its_items_counted(world):
    """The drain has a time limit; items that hang in a stage and an exporter are dropped with the reason shutdown."""
    service = world.service(CHAIN % ('""', "hang_shutdown", "hang_shutdown"), shutdown_timeout_s=0.0)
    await service.start()
    await world.source().consume(traces(spans=4))
    await service.shutdown()
    assert dropped(service, "processors/holder@traces") == {"shutdown": 4}
    assert dropped(service, "exporters/target") == {"shutdown": 7}


async def test_sigterm_drains_and_loses_nothing(world):
    """After a real signal run_until_stopped returns, held items are flushed, and every accepted item was delivered."""
    service = world.service(FINE)
    await service.start()
    running = asyncio.ensure_future(service.run_until_stopped())
    await eventually(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
    for seed in range(20):
        await world.source().consume(traces(spans=10, seed=seed))
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    await service.shutdown()
    assert world.target().item_count == 200
    assert service.ledger.imbalances() == []


async def test_a_second_stop_cuts_the_drain_short(world):
    """Each component then has one last second instead of the whole timeout."""
    service = world.service(CHAIN % ('""', '""', "hang_shutdown"), shutdown_timeout_s=3600.0)
    await service.start()
    service.stop()
    await service.run_until_stopped()
    ending = asyncio.ensure_future(service.shutdown())
    await eventually(lambda: world.target().stopped)
    service.stop()
    async with asyncio.timeout(10):
        await ending


def holding(order, source='""'):
    """A chain whose holder follows ``order``."""
    return CHAIN % (source, f'"{order}"', '""')


async def test_a_reload_hands_over_what_a_stage_holds(world):
    """The successor holds the batches, nothing is delivered twice, and the predecessor saw the new configuration."""
    async with world.running(holding("hand_over")) as service:
        await world.source().consume(traces(spans=4))
        old, old_target = world.made["processors/holder@traces"], world.target()
        assert await service.reload(world.config(holding("hand_over, again")))
        new = world.made["processors/holder@traces"]
        assert old.successor_config.do == "hand_over, again"
        assert (old.held_items(), new.held_items(), old_target.item_count) == (0, 4, 0)
        assert service.ledger.imbalances() == []
        await new.flush()
        assert world.target() is old_target
        assert old_target.item_count == 4


async def test_a_rollback_keeps_what_a_stage_holds(world):
    """The new graph took the batches over before it failed to start; the previous configuration continues with them."""
    async with world.running(holding("hand_over")) as service:
        await world.source().consume(traces(spans=4))
        assert not await service.reload(world.config(holding("hand_over", source="fail_start")))
        assert service.ready()
        assert world.made["processors/holder@traces"].held_items() == 4
        assert service.ledger.imbalances() == []


async def test_a_stage_that_fails_to_hand_over_is_flushed(world):
    """An exception in hand_over does not stop the reload, and nothing is lost."""
    async with world.running(holding("hand_over_raise")) as service:
        await world.source().consume(traces(spans=4))
        old_target = world.target()
        assert await service.reload(world.config(FINE))
        assert service.ready()
        assert old_target.item_count == 4


@pytest.mark.parametrize("order", ["hand_over, take_over_raise", "hand_over, refuse"])
async def test_what_no_successor_takes_over_is_dropped_and_counted(world, order):
    """Whether a component refuses the state or fails to use it, the ledger balances and the reload succeeds."""
    async with world.running(holding(order)) as service:
        await world.source().consume(traces(spans=4))
        assert await service.reload(world.config(changed(holding(order))))
        assert service.ready()
        assert dropped(service, "processors/holder@traces") == {"shutdown": 4}
        assert service.ledger.imbalances() == []


async def test_reload_swaps_the_graph(world):
    """With other components of the same ids, the counters and the shared state of the service continue."""
    async with world.running(FINE) as service:
        await world.source().consume(traces(spans=4))
        old_source, old_target = world.made["receivers/source"], world.target()
        more = (
            changed(FINE)
            .replace("target: {", "target/new: {version: 1}, target: {")
            .replace("exporters: [target]", "exporters: [target, target/new]")
        )
        assert await service.reload(world.config(more))
        assert old_target.item_count == 4  # flushed first
        assert world.made["receivers/source"] is not old_source
        assert world.made["receivers/source"].everybody is old_source.everybody
        await eventually(lambda: old_source.stopped)
        assert service.ready()
        await world.source().consume(traces(spans=6))
        await world.made["processors/holder@traces"].flush()
        assert world.target("target/new").item_count == 6
        assert next(row.received for row in service.ledger.snapshot() if row.node == "receivers/source") == 10


async def test_what_a_stage_keeps_without_handing_it_over_is_dropped_and_counted(world):
    """A stage that neither flushes nor hands over its items loses them, and the ledger shows it."""
    lossy = CHAIN % ('""', "lose", '""')
    async with world.running(lossy) as service:
        await world.source().consume(traces(spans=3))
        assert await service.reload(world.config(changed(lossy)))
        await eventually(lambda: dropped(service, "processors/holder@traces") == {"shutdown": 3})


async def test_a_reload_that_cannot_be_built_stops_nothing(world):
    """The previous graph is not touched."""
    async with world.running(FINE) as service:
        before = list(world.log)
        made = dict(world.made)
        assert not await service.reload(world.config(CHAIN % ('""', '""', "fail_create")))
        assert world.log == before
        assert service.ready()
        await made["receivers/source"].outputs[Signal.TRACES].consume(traces(spans=3))
        await made["processors/holder@traces"].flush()
        assert made["exporters/target"].item_count == 3


async def test_a_reload_that_cannot_start_brings_the_old_configuration_back(world):
    """The process continues with the configuration that worked."""
    async with world.running(FINE) as service:
        old = service.config
        assert not await service.reload(world.config(CHAIN % ("fail_start", '""', '""')))
        assert service.config is old
        assert service.ready()
        await world.source().consume(traces(spans=3))
        await world.made["processors/holder@traces"].flush()
        assert world.target().item_count == 3


async def test_sighup_reloads_and_survives_a_bad_file(world):
    """The loader raises at the first signal and returns a configuration at the second."""
    answers = [ValueError("line 3"), world.config(changed(FINE))]
    calls = []

    def load():
        calls.append(1)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    service = world.service(FINE, load=load)
    await service.start()
    running = asyncio.ensure_future(service.run_until_stopped())
    await eventually(lambda: signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL)
    first = world.made["receivers/source"]
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: len(calls) == 1)
    assert service.ready()
    assert world.made["receivers/source"] is first
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: len(calls) == 2 and service.ready() and first.stopped)
    service.stop()
    await running
    await service.shutdown()


async def get(service, path):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{service.admin_port}{path}") as response,
    ):
        return response.status, await response.text(), response.content_type


async def test_the_admin_port_shows_metrics_health_ledger_and_component_routes(world):
    """Each path is requested once."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service:
        await world.source().consume(traces(spans=4))
        status, text, kind = await get(service, "/metrics")
        assert (status, kind) == (200, "text/plain")
        node = 'component="processors/holder"'
        assert f'tailrace_items_held{{{node},pipeline="traces",signal="traces"}} 4.0' in text
        assert f'tailrace_items_total{{{node},outcome="received",pipeline="traces",signal="traces"}} 4.0' in text
        for path in ("/health", "/health/ready", "/health/live"):
            assert (await get(service, path))[0] == 200
        document = json.loads((await get(service, "/health"))[1])
        assert document["status"] == "healthy"
        assert document["uptime_seconds"] >= 0
        assert document["version"]
        keys = {"name", "healthy", "status", "message", "queue_age_seconds", "duration_ms"}
        assert keys == set(document["checks"][0])
        books = json.loads((await get(service, "/ledger"))[1])
        assert books["balanced"]
        assert {node["node"] for node in books["nodes"]} >= {"receivers/source", "exporters/target"}
        assert json.loads((await get(service, "/hello?name=you"))[1]) == {"hello": "you"}
        assert (await get(service, "/nothing"))[0] == 404
        service._is_ready = False
        assert (await get(service, "/health/ready"))[0] == 503
        assert (await get(service, "/health"))[0] == 503
        assert (await get(service, "/health/live"))[0] == 200


async def test_an_extension_may_make_the_service_not_ready(world):
    """The answer tells why; liveness and the other checks do not change."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service:
        assert (await get(service, "/health/ready"))[0] == 200
        world.made["extensions/helper"].unready_reason = "the queue is too old"
        status, text, _ = await get(service, "/health/ready")
        assert (status, json.loads(text)["reasons"]) == (503, ["the queue is too old"])
        assert (await get(service, "/health/live"))[0] == (await get(service, "/health"))[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "status", "answer"),
    [
        ("/act?name=x", {}, 200, {"done": "x"}),
        ("/act?name=x", {"Origin": "http://localhost:8888"}, 200, {"done": "x"}),
        ("/act", {"Origin": "http://evil.example"}, 403, None),
        ("/act", {"Origin": "null"}, 403, None),
        ("/act", {"Host": "evil.example"}, 403, None),
        ("/act?bad=1", {}, 400, {"error": "that is not possible"}),
        ("/hello", {}, 404, None),
    ],
)
async def test_an_action_is_a_post_from_this_machine(world, path, headers, status, answer):
    """A page of a web site in a browser on this machine cannot cause one, and neither can a GET."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{service.admin_port}{path}"
        async with session.post(url, headers=headers) as response:
            assert response.status == status
            if answer is not None:
                assert await response.json() == answer
        if path.startswith("/act"):
            assert (await get(service, path))[0] == 404


async def test_the_page_and_what_it_loads(world):
    """The page loads nothing from other servers, and no site may put it into a frame."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service:
        for path, kind in (("/", "text/html"), ("/ui/page.js", "text/javascript"), ("/ui/page.css", "text/css")):
            status, text, content_type = await get(service, path)
            assert (status, content_type) == (200, kind)
            assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{service.admin_port}/") as response,
        ):
            policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8888", 200),
        ("127.0.0.1", 200),
        ("[::1]:8888", 200),
        ("evil.example:8888", 403),
        ("evil.example", 403),
        ("10.0.0.1:80", 403),
    ],
)
async def test_what_is_local_is_not_told_to_a_page_elsewhere(world, host, status):
    """A foreign name that resolves to our address passes the same-origin rule; its Host header reveals it."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{service.admin_port}/hello", headers={"Host": host}) as response:
            assert response.status == status
        async with session.get(f"http://127.0.0.1:{service.admin_port}/health", headers={"Host": host}) as response:
            assert response.status == 200


async def test_components_share_a_route(world):
    """Each component answers under a key of its own."""
    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service:
        first, second = list(service._hosts().values())[:2]

        async def one(query):
            return {"a": 1}

        async def other(query):
            return {"b": 2}

        first.add_admin_route("/both", one)
        second.add_admin_route("/both", other)
        assert orjson.loads((await get(service, "/both"))[1]) == {"a": 1, "b": 2}


async def test_a_taken_admin_port_is_named_with_its_owner_and_key(world):
    """The error names both, and no component was started."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port()))
        holder.listen()
        service = world.service(FINE, metrics=f'address: "127.0.0.1:{holder.getsockname()[1]}"')
        with pytest.raises(StartError, match=rf"service::telemetry::metrics::address.*pid {os.getpid()}"):
            await service.start()
    assert not any(line.startswith("start") for line in world.log)


async def test_metrics_are_answered_while_the_event_loop_is_busy(world):
    """The answer is the last page, with its age; afterwards it is the present one again."""
    import threading
    import urllib.request

    async with world.running(FINE, metrics='address: "127.0.0.1:0"') as service:
        await get(service, "/metrics")
        answers = []

        def scrape():
            with urllib.request.urlopen(f"http://127.0.0.1:{service.admin_port}/metrics", timeout=30) as answer:
                answers.append((answer.headers, answer.read()))

        client = threading.Thread(target=scrape)
        client.start()
        client.join()  # this is the event loop's thread: nothing else happens on it until the answer is there
        (headers, page) = answers[0]
        assert headers["Age"] is not None
        assert b"otelcol_process_uptime" in page
        await asyncio.to_thread(scrape)
        assert answers[1][0]["Age"] is None


async def get_text(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def test_a_reload_applies_a_changed_metrics_address_and_identity(world):
    """The page moves to the new port, and target_info has the new name and instance."""
    old_port, new_port = free_port(), free_port()
    async with world.running(FINE, metrics=f'address: "127.0.0.1:{old_port}"') as service:
        metrics = f'address: "127.0.0.1:{new_port}"'
        resource = "service.name: renamed, service.instance.id: me, service.version: null, team: search"
        config = world.config(FINE, metrics=f"{metrics}}}, resource: {{{resource}")
        assert await service.reload(config)
        assert service.admin_port == new_port
        assert service.instance_id == "me"
        text = await get_text(f"http://127.0.0.1:{new_port}/metrics")
        assert 'target_info{service_instance_id="me",service_name="renamed",team="search"} 1' in text
        with pytest.raises(aiohttp.ClientConnectionError):
            await get_text(f"http://127.0.0.1:{old_port}/metrics")


async def test_a_reload_to_a_metrics_address_in_use_stops_nothing(world):
    """The address is tried before the running graph is touched."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy, port = taken.getsockname()[1], free_port()
        async with world.running(FINE, metrics=f'address: "127.0.0.1:{port}"') as service:
            before = list(world.log)
            assert not await service.reload(world.config(FINE, metrics=f'address: "127.0.0.1:{busy}"'))
            assert world.log == before
            assert service.ready()
            assert service.admin_port == port


async def test_a_reload_passes_changed_log_settings_on(world):
    """The command-line program owns the log; the service tells it what has changed."""
    applied = []
    service = world.service(FINE, configure_logs=applied.append)
    await service.start()
    config = world.config(FINE, metrics="level: none}, logs: {level: debug")
    assert await service.reload(config)
    assert await service.reload(config)
    await service.shutdown()
    assert [logs.level for logs in applied] == ["debug"]


async def test_a_reload_requested_during_the_start_comes_after_it(world):
    """SIGHUP while components start neither ends the process nor is lost."""
    started, release = asyncio.Event(), asyncio.Event()
    service = world.service(FINE, load=lambda: world.config(changed(FINE)))
    target = world.target()
    inner = target.start

    async def slow(host):
        started.set()
        await release.wait()
        await inner(host)

    target.start = slow
    starting = asyncio.ensure_future(service.start())
    await started.wait()
    service._on_hangup()
    await asyncio.sleep(0)
    assert not service.ready()
    release.set()
    await starting
    await eventually(lambda: world.target() is not target and service.ready())
    await service.shutdown()


async def test_a_successor_that_fails_after_it_took_the_items_keeps_them(world):
    """They are delivered once, and not counted as dropped as well."""
    async with world.running(holding("hand_over, adopt_and_raise")) as service:
        await world.source().consume(traces(spans=4))
        assert await service.reload(world.config(changed(holding("hand_over, adopt_and_raise"))))
        assert service.ledger.imbalances() == []
    assert dropped(service, "processors/holder@traces") == {}
    assert world.target().item_count == 4


async def test_a_rollback_keeps_the_instance_id(world):
    """Not that of the configuration which could not be started, nor that of the first one."""

    def identified(instance_id, source='""'):
        text = CHAIN % (source, '""', '""')
        return world.config(text, metrics=f"level: none}}, resource: {{service.instance.id: {instance_id}")

    async with world.running(FINE) as service:
        assert await service.reload(identified("a"))
        source = world.made["receivers/source"]
        assert not await service.reload(identified("b", source="fail_start"))
        assert source.settings.instance_id == service.instance_id == "a"
        assert not source.stopped
        assert await service.reload(world.config(changed(FINE)))
        assert world.made["receivers/source"].settings.instance_id == "a"


async def test_a_reload_can_change_the_host_of_the_metrics_address_alone(world):
    """The port cannot be bound twice, so the servers change places."""
    port = free_port()
    async with world.running(FINE, metrics=f'address: "127.0.0.1:{port}"') as service:
        assert await service.reload(world.config(FINE, metrics=f'address: "0.0.0.0:{port}"'))
        assert service.admin_port == port
        assert "otelcol_" in await get_text(f"http://127.0.0.1:{port}/metrics")


async def test_a_shutdown_during_a_reload_leaves_nothing_behind(world):
    """It ends both graphs, and the admin server that the reload had begun."""
    ports = [free_port(), free_port()]
    service = world.service(
        CHAIN % ('""', "hang_shutdown", '""'), metrics=f'address: "127.0.0.1:{ports[0]}"', shutdown_timeout_s=0.2
    )
    await service.start()
    await world.source().consume(traces(spans=4))
    config = world.config(FINE, metrics=f'address: "127.0.0.1:{ports[1]}"')
    reloading = asyncio.ensure_future(service.reload(config))
    await eventually(lambda: "shutdown processors/holder@traces" in world.log)
    await service.shutdown()
    await asyncio.gather(reloading, return_exceptions=True)
    for port in ports:
        with pytest.raises(aiohttp.ClientConnectionError):
            await get_text(f"http://127.0.0.1:{port}/metrics")
    started = {line.split()[1] for line in world.log if line.startswith("start")}
    assert started == {line.split()[1] for line in world.log if line.startswith("shutdown")}
    assert dropped(service, "processors/holder@traces") == {"shutdown": 4}
    assert service.ledger.imbalances() == []
