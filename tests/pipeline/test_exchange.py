"""Which components a reload keeps, in which order it exchanges the others, and what requests experience meanwhile."""

import asyncio
import os
import signal

import aiohttp
import pytest

from collector.api import RetryableError
from collector.model import Context, Signal
from collector.service import exchange
from collector.testing import eventually, traces

CHAIN = """
receivers: {source: {version: %(source)s}}
processors: {holder: {do: "%(holder)s"}, every: {version: %(every)s}}
exporters: {target: {do: "%(target)s", version: %(exporter)s, holds: "%(holds)s"}}
extensions: {helper: {version: %(helper)s}}
service:
  extensions: [helper]
  pipelines:
    traces: {receivers: [source], processors: [%(processors)s], exporters: [target]}
"""
DEFAULTS = {
    "source": 0,
    "holder": "",
    "every": 0,
    "target": "",
    "exporter": 0,
    "holds": "",
    "helper": 0,
    "processors": "every, holder",
}
ALL = {
    "receivers/source",
    "processors/holder@traces",
    "processors/every@traces",
    "exporters/target",
    "extensions/helper",
}


def chain(**values) -> str:
    return CHAIN % {**DEFAULTS, **values}


def replaced(before, world) -> set[str]:
    return {key for key, component in world.made.items() if before.get(key) is not component}


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ({}, {}, set()),
        ({}, {"source": 1}, {"receivers/source"}),
        ({}, {"exporter": 1}, {"exporters/target"}),
        ({}, {"every": 1}, {"processors/every@traces"}),
        ({}, {"helper": 1}, {"extensions/helper"}),
        ({}, {"processors": "holder, every"}, set()),
        ({"processors": "every"}, {}, {"processors/holder@traces"}),
        (
            {"holder": "use_helper"},
            {"holder": "use_helper", "helper": 1},
            {"extensions/helper", "processors/holder@traces"},
        ),
        ({"holder": "report_failure"}, {"holder": "report_failure"}, {"processors/holder@traces"}),
    ],
)
async def test_only_what_has_changed_is_replaced(world, before, after, new):
    """A component also changes with an extension that it uses, and if it has failed for good."""
    async with world.running(chain(**before)) as service:
        made = dict(world.made)
        assert await service.reload(world.config(chain(**after)))
        assert replaced(made, world) == new
        assert {f"{node.name}" for node in service.graph.nodes()} == ALL
        await world.source().consume(traces(spans=3))
        await world.made["processors/holder@traces"].flush()
        assert world.target().item_count == 3


async def test_processors_of_one_id_stay_together(world):
    """They share state, so a further pipeline replaces the object in the first one as well."""
    one = chain()
    two = one + "    logs: {receivers: [source], processors: [every], exporters: [target]}\n"
    async with world.running(one) as service:
        made = dict(world.made)
        assert await service.reload(world.config(two))
        assert replaced(made, world) >= {"processors/every@traces", "processors/every@logs"}
        assert "processors/holder@traces" not in replaced(made, world)
        every = [world.made[f"processors/every@{signal}"] for signal in ("traces", "logs")]
        assert every[0].siblings is every[1].siblings


async def test_a_kept_component_emits_to_its_new_neighbours(world):
    """What the stage holds since before the reload goes to the new exporter; the old one gets nothing any more."""
    async with world.running(chain()) as service:
        await world.source().consume(traces(spans=4))
        old = world.target()
        assert await service.reload(world.config(chain(exporter=1)))
        await world.made["processors/holder@traces"].flush()
        assert (old.item_count, world.target().item_count) == (0, 4)


async def test_requests_wait_while_what_only_one_may_use_changes_hands(world):
    """The old exporter ends before the new one starts, and a request in between is answered afterwards."""
    async with world.running(chain(processors="every", holds="file x")) as service:
        old, ended, release = world.target(), asyncio.Event(), asyncio.Event()
        inner = old.shutdown

        async def slow() -> None:
            ended.set()
            await release.wait()
            await inner()

        old.shutdown = slow
        config = world.config(chain(processors="every", holds="file x", exporter=1))
        reloading = asyncio.ensure_future(service.reload(config))
        await ended.wait()
        assert service.ready()
        outcomes = []
        world.source().try_consume_request(traces(spans=2).wire, Context(), outcomes.append)
        consuming = asyncio.ensure_future(world.source().consume(traces(spans=3)))
        await asyncio.sleep(0)
        assert not consuming.done()
        release.set()
        assert await reloading
        await consuming
        await eventually(lambda: [outcome.accepted_count for outcome in outcomes] == [2])
        assert (old.item_count, world.target().item_count) == (0, 5)
        log = world.log[-3:]
    assert log.index("shutdown exporters/target") < log.index("start exporters/target")


async def test_a_file_that_an_earlier_graph_still_uses_is_waited_for(world):
    """The exporter was removed and drains; the next reload brings it back, and starts it when the old one has ended."""
    other = (
        chain(holds="file x")
        .replace("target: {do", "target/b: {do")
        .replace("exporters: [target]", "exporters: [target/b]")
    )
    async with world.running(chain(holds="file x")) as service:
        old, release = world.target(), asyncio.Event()
        inner = old.shutdown

        async def slow() -> None:
            await release.wait()
            await inner()

        old.shutdown = slow
        assert await service.reload(world.config(other.replace("file x", "file y")))
        reloading = asyncio.ensure_future(service.reload(world.config(chain(holds="file x"))))
        await eventually(lambda: service._draining)
        await eventually(lambda: world.target() is not old)
        assert world.log.count("start exporters/target") == 1
        release.set()
        assert await reloading
        assert world.log.count("start exporters/target") == 2
        await eventually(lambda: not service._draining)


@pytest.mark.parametrize(
    "fault", [{"holder": "hand_over, fail_start"}, {"exporter": 1, "target": "fail_start", "holds": "x"}]
)
async def test_a_reload_that_fails_late_restores_what_it_has_ended(world, fault):
    """The swap had begun. The previous configuration continues with its state, and requests go on."""
    before = {"holder": "hand_over", "holds": "x"}
    async with world.running(chain(**before)) as service:
        await world.source().consume(traces(spans=4))
        kept = world.made["receivers/source"]
        config = service.config
        assert not await service.reload(world.config(chain(**{**before, **fault})))
        assert service.ready()
        assert service.config is config
        assert world.made["receivers/source"] is kept
        await world.source().consume(traces(spans=2))
        holders = [node.component for node in service.graph.processors if str(node.id) == "holder"]
        assert holders[0].held_items() == 6
        assert service.ledger.imbalances() == []
        await holders[0].flush()
        (target,) = [node.component for node in service.graph.exporters]
        assert target.item_count == 6
        assert await service.reload(world.config(chain(**{**before, "exporter": 2})))


async def test_a_stage_that_does_not_end_does_not_stop_the_requests(world, monkeypatch):
    """After a few seconds the reload goes on; the old stage ends in the background, and its items are counted."""
    monkeypatch.setattr(exchange, "_SWAP_S", 0.05)
    async with world.running(chain(holder="hang_shutdown"), shutdown_timeout_s=1.0) as service:
        await world.source().consume(traces(spans=4))
        assert await service.reload(world.config(chain(holder="again")))
        await world.source().consume(traces(spans=2))
        await world.made["processors/holder@traces"].flush()
        assert world.target().item_count == 2
        await eventually(lambda: not service._draining)
        row = next(row for row in service.ledger.snapshot() if row.node == "processors/holder@traces")
        assert row.dropped == {"shutdown": 4}


async def test_a_receiver_without_pipelines_refuses_what_still_arrives(world):
    """Its connections are being closed; the sender is told to try again."""
    logs = chain().replace("traces: {receivers", "logs: {receivers")
    async with world.running(chain()) as service:
        door = world.source()
        assert await service.reload(world.config(logs))
        with pytest.raises(RetryableError, match="removed by a reload"):
            await door.consume(traces(spans=2))
        assert await service.reload(world.config(chain()))
        await world.source().consume(traces(spans=2))


async def test_a_receiver_that_cannot_start_answers_what_it_has_taken(world):
    """A new receiver took a request before another component failed to start: the request is refused, not lost."""
    more = (
        chain()
        .replace("source: {version: 0}", "source: {version: 0}, source/b: {}, source/c: {do: fail_start}")
        .replace("receivers: [source]", "receivers: [source, source/b, source/c]")
    )
    async with world.running(chain()) as service:
        outcomes = []
        made = world.made
        reloading = asyncio.ensure_future(service.reload(world.config(more)))
        await eventually(lambda: "receivers/source/b" in made)
        made["receivers/source/b"].outputs[Signal.TRACES].try_consume_request(
            traces(spans=2).wire, Context(), outcomes.append
        )
        assert not await reloading
        await eventually(lambda: len(outcomes) == 1)
        assert isinstance(outcomes[0], RetryableError)


async def test_a_shutdown_gives_up_a_reload_that_has_to_wait(world):
    """It waits for a file of an old exporter that does not end; the running graph is ended without the new one."""
    service = world.service(chain(holds="file x"), shutdown_timeout_s=0.5)
    await service.start()
    world.target().shutdown = asyncio.Event().wait
    assert await service.reload(world.config(chain(holds="file y", target="other").replace("target", "target/b")))
    reloading = asyncio.ensure_future(service.reload(world.config(chain(holds="file x", exporter=1))))
    await eventually(lambda: service._reloading is not None and "exporters/target" in world.made)
    await service.shutdown()
    assert not await reloading
    assert world.log.count("start exporters/target") == 1
    assert service.ledger.imbalances() == []


async def test_hangups_before_a_reload_begins_share_it(world):
    """Ten signals while the service starts make one reload."""
    loaded = []

    def load():
        loaded.append(1)
        return world.config(chain(exporter=len(loaded)))

    service = world.service(chain(), load=load)
    await service.start()
    service.handle_signals()
    for _ in range(10):
        os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: len(loaded) >= 1 and not service._reloads)
    assert len(loaded) < 10
    await asyncio.gather(*[service.request_reload() for _ in range(10)])
    assert len(loaded) <= 4
    await service.shutdown()
    assert await service.request_reload() == "the service is shutting down"


async def post(service, **headers):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{service.admin_port}/-/reload", headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_the_admin_port_reloads(world):
    """The answer says whether the new configuration runs, and why not; other machines and web pages may not ask."""
    answers = [world.config(chain(exporter=1), metrics='address: "127.0.0.1:0"'), ValueError("line 3: no")]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with world.running(chain(), metrics='address: "127.0.0.1:0"', load=load) as service:
        old = world.target()
        assert await post(service, Host="evil.example") == (
            403,
            {"error": "this path is only available to clients on this host"},
        )
        assert (await post(service, Origin="http://evil.example"))[0] == 403
        assert world.target() is old
        assert await post(service) == (200, {"status": "reloaded"})
        assert world.target() is not old
        status, answer = await post(service, Origin=f"http://localhost:{service.admin_port}")
        assert status == 500
        assert answer["error"].endswith("the previous one keeps running: line 3: no")
    async with world.running(chain(), metrics='address: "127.0.0.1:0"') as service:
        assert (await post(service))[0] == 501
