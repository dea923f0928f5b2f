"""How batches travel: every pipeline receives them, faults stay where they occur, and the ledger balances."""

import asyncio

import pytest
import structlog

from collector.api import PermanentError, RetryableError
from collector.model import EMPTY_CONTEXT, MalformedBatch, Signal
from collector.testing import eventually, logs, metrics, traces, traces_request

TWO_PIPELINES = """
receivers: {source: {}}
processors: {every: {do: %s}}
exporters: {target/a: {}, target/b: {}}
service:
  pipelines:
    traces/a: {receivers: [source], processors: [every], exporters: [target/a]}
    traces/b: {receivers: [source], exporters: [target/b]}
"""

FAN_OUT = """
receivers: {source: {}}
exporters: {target/healthy: {}, target/sick: {do: %s}}
service:
  pipelines:
    traces: {receivers: [source], exporters: [target/sick, target/healthy]}
"""


def row(service, node, signal=Signal.TRACES):
    return next(row for row in service.ledger.snapshot() if row.node == node and row.signal is signal)


async def test_admits_a_request_and_says_what_was_taken(world):
    """The bytes arrive unchanged and the sender gets a receipt; an item with an invalid id is rejected."""
    async with world.running(TWO_PIPELINES % '""') as service:
        wire = traces_request(spans=10).SerializeToString()
        receipt = await world.source().consume_request(wire, EMPTY_CONTEXT)
        assert (receipt.accepted_count, receipt.rejected_count) == (10, 0)
        assert world.target("target/a").batches[0].wire == wire
        assert world.target("target/a").batches[0] is world.target("target/b").batches[0]  # shared, not copied
        message = traces_request(spans=3)
        message.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
        receipt = await world.source().consume_request(message.SerializeToString(), EMPTY_CONTEXT)
        assert (receipt.accepted_count, receipt.rejected_count) == (2, 1)
        assert receipt.message
        with pytest.raises(MalformedBatch):
            await world.source().consume_request(b"\x0a\xff", EMPTY_CONTEXT)
        door = row(service, "receivers/source")
        assert (door.received, door.out, door.rejected) == (13, 12, 1)


async def test_repaired_strings_are_counted(world):
    """A request with invalid UTF-8 in a name is accepted, repaired and counted."""
    async with world.running(TWO_PIPELINES % '""') as service:
        message = traces_request(spans=1)
        message.resource_spans[0].scope_spans[0].spans[0].name = "AAAA"
        await world.source().consume_request(message.SerializeToString().replace(b"AAAA", b"A\xff\xffA"), EMPTY_CONTEXT)
        assert 'tailrace_receiver_repaired_strings{receiver="source"} 1.0' in service.telemetry.render()


async def test_an_empty_request_is_accepted_and_goes_nowhere(world):
    """A request without items results in a receipt of zero."""
    async with world.running(TWO_PIPELINES % '""'):
        assert (await world.source().consume_request(b"", EMPTY_CONTEXT)).accepted_count == 0
        assert world.target("target/a").batches == []


async def test_counts_under_the_transport_the_receiver_names(world):
    """`over` counts one door under a transport; only transports that were named are shown."""
    async with world.running(TWO_PIPELINES % '""') as service:
        door = world.source().for_transport("grpc")
        assert world.source().for_transport("grpc") is door
        await door.consume(traces(spans=4))
        page = service.telemetry.render()
        assert 'otelcol_receiver_accepted_spans{receiver="source",transport="grpc"} 4.0' in page
        assert 'otelcol_receiver_accepted_spans{receiver="source"} ' not in page


@pytest.mark.parametrize(
    ("order", "kept", "reasons"),
    [
        ("half", 5, {"halved": 5}),
        ("half_own_reason", 5, {"mine": 5}),
        ("drop", 0, {"halved": 10}),
        ("raise", 0, {"error": 10}),
        ('""', 10, {}),
    ],
)
async def test_a_loss_is_counted_with_its_reason_and_the_sibling_pipeline_is_untouched(world, order, kept, reasons):
    """Items that a transform leaves out, drops, or loses by raising are counted with the reason."""
    async with world.running(TWO_PIPELINES % order) as service:
        await world.source().consume(traces(spans=10))
        assert world.target("target/a").item_count == kept
        assert world.target("target/b").item_count == 10
        assert row(service, "processors/every@traces/a").dropped == reasons


@pytest.mark.parametrize(("order", "reason"), [("raise", "error"), ("consume_error", "error"), ("try_raise", "error")])
async def test_a_failing_exporter_disturbs_nobody(world, order, reason):
    """Its items are counted as dropped, the receiver does not notice, and the healthy exporter gets each batch once."""
    async with world.running(FAN_OUT % order) as service:
        for seed in range(3):
            await world.source().consume(traces(spans=10, seed=seed))
        await eventually(lambda: world.target("target/healthy").item_count == 30)
        await eventually(lambda: row(service, "exporters/target/sick").dropped == {reason: 30})


async def test_an_exporter_that_hangs_delays_nobody_and_drops_for_itself_alone(world):
    """A hundred batches pass; the exporter holds 64 and drops the others, and the shutdown accounts for those 64."""
    async with world.running(FAN_OUT % "hang") as service:
        async with asyncio.timeout(5):
            for seed in range(100):
                await world.source().consume(traces(spans=1, seed=seed))
        assert world.target("target/healthy").item_count == 100
        sick = row(service, "exporters/target/sick")
        assert (sick.held, sick.dropped) == (64, {"queue_full": 36})
        assert service.ledger.imbalances() == []
        world.target("target/sick").release.set()
        await eventually(lambda: world.target("target/sick").item_count == 64)


async def test_a_shutdown_counts_what_a_hanging_exporter_held(world):
    """Nothing vanishes: the ledger balances, with the reason shutdown."""
    service = world.service(FAN_OUT % "hang")
    await service.start()
    for seed in range(5):
        await world.source().consume(traces(spans=2, seed=seed))
    await service.shutdown()
    assert row(service, "exporters/target/sick").dropped == {"shutdown": 10}
    assert service.ledger.imbalances() == []


@pytest.mark.parametrize(("order", "error"), [("wait_refuse", PermanentError), ("wait_retry", RetryableError)])
async def test_the_result_of_a_waiting_exporter_reaches_the_receiver_after_all_have_the_batch(world, order, error):
    """The sender gets the error although the healthy exporter has the batch; it counts as failed, not as accepted."""
    async with world.running(FAN_OUT % order) as service:
        with pytest.raises(error):
            await world.source().consume(traces(spans=10))
        assert world.target("target/healthy").item_count == 10
        page = service.telemetry.render()
        assert 'otelcol_receiver_failed_spans{receiver="source"} 10.0' in page
        assert 'otelcol_receiver_accepted_spans{receiver="source"} 0.0' in page


async def test_while_a_waiting_exporter_waits_the_others_have_the_batch(world):
    """The healthy exporter has the batch first, although it is listed second."""
    async with world.running(FAN_OUT % "wait_hang"):
        task = asyncio.ensure_future(world.source().consume(traces(spans=3)))
        await eventually(lambda: world.target("target/healthy").item_count == 3)
        assert not task.done()
        world.target("target/sick").release.set()
        await task


async def test_a_full_queue_that_must_not_lose_refuses_at_the_door_before_anything_is_committed(world):
    """The request is refused before any exporter has it, so that a resend does not duplicate anything."""
    async with world.running(FAN_OUT % "blocks_on_overflow") as service:
        world.target("target/sick").room = False
        with pytest.raises(RetryableError) as refusal:
            await world.source().consume_request(traces_request(spans=4).SerializeToString(), EMPTY_CONTEXT)
        assert refusal.value.reason == "queue_full"
        assert world.target("target/healthy").item_count == 0
        assert row(service, "receivers/source").refused == {"queue_full": 4}
        world.target("target/sick").room = True
        await world.source().consume_request(traces_request(spans=4).SerializeToString(), EMPTY_CONTEXT)
        assert world.target("target/healthy").item_count == world.target("target/sick").item_count == 4


async def test_a_request_no_exporter_has_room_for_is_refused(world):
    """A request is accepted if one exporter has room for it, and refused if none has."""
    async with world.running(FAN_OUT % '""'):
        world.target("target/sick").room = world.target("target/healthy").room = False
        with pytest.raises(RetryableError):
            await world.source().consume(traces(spans=4))
        world.target("target/healthy").room = True
        await world.source().consume(traces(spans=4))
        assert world.target("target/healthy").item_count == 4


async def test_memory_refuses_before_validation(world):
    """Above the budget the request is refused with a retryable error, and nothing stays charged."""
    async with world.running(TWO_PIPELINES % '""') as service:
        service.admission.limit(soft_bytes=100, hard_bytes=200, rss=lambda: 0)
        with pytest.raises(RetryableError) as refusal:
            await world.source().consume_request(traces_request(spans=40).SerializeToString(), EMPTY_CONTEXT)
        assert refusal.value.reason == "memory_limit"
        assert refusal.value.retry_after_s
        assert service.admission.used_bytes == 0


STAGES = """
receivers: {source: {}}
processors: {holder: {do: %s}, every: {do: half}}
exporters: {target: {}}
service:
  pipelines:
    traces: {receivers: [source], processors: [every, holder], exporters: [target]}
    logs: {receivers: [source], processors: [holder], exporters: [target]}
"""


async def test_a_stage_holds_and_flushes_and_its_memory_counts(world):
    """There is one stage object per pipeline; what it holds is in the ledger and charged to the budget."""
    async with world.running(STAGES % '""') as service:
        await world.source().consume(traces(spans=10))
        await world.source(signal=Signal.LOGS).consume(logs(records=3))
        assert row(service, "processors/holder@traces").held == 5
        assert row(service, "processors/holder@logs", Signal.LOGS).held == 3
        assert service.ledger.imbalances() == []
        assert service.admission.used_bytes > 0
        await world.made["processors/holder@traces"].flush()
        assert row(service, "processors/holder@traces").held == 0
        assert world.target().item_count == 5
    assert world.target().item_count == 8  # shutdown flushed the logs


async def test_a_stage_that_raises_loses_that_batch_only(world):
    """The batch is counted with the reason error, and the service continues."""
    async with world.running(STAGES % "raise") as service:
        await world.source().consume(traces(spans=10))
        assert row(service, "processors/holder@traces").dropped == {"error": 5}


async def test_what_a_stage_does_not_flush_is_counted(world):
    """Items that a stage does not flush at its shutdown are counted as dropped, with the reason shutdown."""
    async with world.running(STAGES % "lose") as service:
        await world.source().consume(traces(spans=10))
    assert row(service, "processors/holder@traces").dropped == {"shutdown": 5}


CONNECTED = """
receivers: {source: {}}
processors: {every: {}}
exporters: {target/a: {}, target/b: {do: %s}}
connectors: {passer: {}}
service:
  pipelines:
    traces/in: {receivers: [source], processors: [every], exporters: [passer]}
    traces/a: {receivers: [passer], processors: [every], exporters: [target/a]}
    traces/b: {receivers: [passer], exporters: [target/b]}
    metrics: {receivers: [source], exporters: [target/a]}
"""


async def test_a_connector_joins_pipelines_and_room_is_asked_through_it(world):
    """There is one connector object; exporters behind it that must not lose data refuse requests at the door."""
    async with world.running(CONNECTED % "blocks_on_overflow") as service:
        await world.source().consume(traces(spans=6))
        await world.source(signal=Signal.METRICS).consume(metrics(points=5))
        assert (world.target("target/a").item_count, world.target("target/b").item_count) == (11, 6)
        assert row(service, "connectors/passer").received == row(service, "connectors/passer").out == 6
        world.target("target/b").room = False
        with pytest.raises(RetryableError):
            await world.source().consume(traces(spans=6))
        await world.source(signal=Signal.METRICS).consume(metrics(points=5))  # it does not reach b
        assert world.made["processors/every@traces/in"] is not world.made["processors/every@traces/a"]
        first, second = world.made["processors/every@traces/in"], world.made["processors/every@traces/a"]
        assert first.siblings is second.siblings
        assert world.made["receivers/source"].everybody is second.everybody is not second.siblings


async def test_a_result_comes_back_through_a_connector(world):
    """The result of the waiting exporter behind it reaches the receiver; the sibling has the batch."""
    async with world.running(CONNECTED % "wait_refuse"):
        with pytest.raises(PermanentError):
            await world.source().consume(traces(spans=6))
        assert world.target("target/a").item_count == 6


HELD = """
receivers: {source: {}}
processors: {holder: {do: "%s"}}
exporters: {target: {}}
service: {pipelines: {traces: {receivers: [source], processors: [holder], exporters: [target]}}}
"""
TWO_STAGES = """
receivers: {source: {}}
processors: {holder: {}, holder/2: {do: hang}}
exporters: {target: {}}
service: {pipelines: {traces: {receivers: [source], processors: [holder, holder/2], exporters: [target]}}}
"""
JOINED = """
receivers: {source: {}}
connectors: {passer: {do: "%s"}}
exporters: {target: {}}
service:
  pipelines:
    traces: {receivers: [source], exporters: [passer]}
    metrics: {receivers: [source], exporters: [passer]}
    traces/2: {receivers: [passer], exporters: [target]}
    metrics/2: {receivers: [passer], exporters: [target]}
"""
PLAIN_EXPORTER = """
receivers: {source: {}}
exporters: {plain: {do: "%s"}}
service: {pipelines: {traces: {receivers: [source], exporters: [plain]}}}
"""


@pytest.mark.parametrize(
    ("order", "delivered", "dropped", "refused"),
    [
        ("", 10, {}, {}),
        ("drop_some", 7, {"too_large": 3}, {}),
        ("refuse", 0, {}, {"http_400": 10}),
        ("retry", 0, {"error": 10}, {}),
        ("raise", 0, {"error": 10}, {}),
    ],
)
async def test_the_service_accounts_for_an_exporter_that_does_not(world, order, delivered, dropped, refused):
    """Items are delivered when ``consume`` returns, except those that the exporter counted itself."""
    async with world.running(PLAIN_EXPORTER % order) as service:
        await world.source().consume(traces(spans=10))
        await eventually(lambda: world.made["exporters/plain"].entered == 1 and not service.ledger.imbalances())
        found = row(service, "exporters/plain")
        assert (found.delivered, found.dropped, found.refused, found.held) == (delivered, dropped, refused, 0)


@pytest.mark.parametrize(
    ("order", "sentences"),
    [("count_all, raise", ["the component failed, but no items are lost"]), ("count_all, refuse", [])],
)
async def test_a_failure_that_loses_nothing_is_not_reported_as_a_loss(world, order, sentences):
    """An exporter that raises after it has counted all items of a batch: no log line and no reason tells of 0 items."""
    with structlog.testing.capture_logs() as events:
        async with world.running(PLAIN_EXPORTER % order) as service:
            await world.source().consume(traces(spans=10))
            await eventually(lambda: world.made["exporters/plain"].entered == 1 and not service.ledger.imbalances())
            found = row(service, "exporters/plain")
            assert (found.delivered, found.dropped, found.refused, found.held) == (10, {}, {}, 0)
    assert [event["event"] for event in events if event["log_level"] == "error"] == sentences


async def test_a_plain_exporter_that_waits_reports_to_the_sender(world):
    """The batch is accounted for, and the receiver gets the error."""
    async with world.running(PLAIN_EXPORTER % "wait, refuse") as service:
        with pytest.raises(PermanentError):
            await world.source().consume(traces(spans=10))
        assert row(service, "exporters/plain").refused == {"http_400": 10}


async def test_what_a_plain_exporter_is_working_on_is_in_flight(world):
    """Batches inside ``consume`` are held, not delivered; a shutdown drops them with its reason."""
    async with world.running(PLAIN_EXPORTER % "hang", shutdown_timeout_s=0.1) as service:
        await world.source().consume(traces(spans=4))
        await world.source().consume(traces(spans=5))
        await eventually(lambda: world.made["exporters/plain"].entered == 2)
        assert (row(service, "exporters/plain").held, row(service, "exporters/plain").delivered) == (9, 0)
        assert service.ledger.imbalances() == []
    assert row(service, "exporters/plain").dropped == {"shutdown": 9}


async def test_a_plain_exporter_finishes_what_it_is_working_on_before_it_is_shut_down(world):
    """Batches that are inside ``consume`` when the service stops or reloads are delivered within the time-out."""
    async with world.running(PLAIN_EXPORTER % "hang", shutdown_timeout_s=10) as service:
        await world.source().consume(traces(spans=4))
        first = world.made["exporters/plain"]
        await eventually(lambda: first.entered == 1)
        assert await service.reload(world.config((PLAIN_EXPORTER % "hang").replace("do:", "version: 1, do:")))
        assert row(service, "exporters/plain").held == 4
        first.release.set()
        await eventually(lambda: row(service, "exporters/plain").delivered == 4)
        await world.source().consume(traces(spans=5))
        second = world.made["exporters/plain"]
        assert second is not first
        asyncio.get_running_loop().call_later(0.05, second.release.set)
    assert row(service, "exporters/plain").delivered == 9


async def test_what_a_plain_exporter_counts_belongs_to_the_batch_it_is_working_on(world):
    """Two batches at a time: each lost 3 items, one is delivered otherwise, the other fails."""
    async with world.running(PLAIN_EXPORTER % "drop_some, hang, raise") as service:
        await world.source().consume(traces(spans=10))
        plain = world.made["exporters/plain"]
        await eventually(lambda: plain.entered == 1)
        assert service.ledger.imbalances() == []
        first_release, plain.release = plain.release, asyncio.Event()
        assert not first_release.is_set()
        await world.source().consume(traces(spans=10))
        await eventually(lambda: plain.entered == 2)
        assert row(service, "exporters/plain").held == 14
        assert service.ledger.imbalances() == []
        plain.release.set()
        await eventually(lambda: row(service, "exporters/plain").dropped == {"too_large": 6, "error": 7})
        assert row(service, "exporters/plain").held == 7
        plain.entered = 1
        first_release.set()
        await eventually(lambda: row(service, "exporters/plain").delivered == 7)


async def test_a_refusal_in_a_plain_call_counts_as_refused(world):
    """As in ``consume``, less what the exporter counted itself."""
    async with world.running(PLAIN_EXPORTER % "try, refuse") as service:
        await world.source().consume(traces(spans=10))
        found = row(service, "exporters/plain")
        assert (found.dropped, found.refused, found.delivered) == ({"too_large": 3}, {"http_400": 7}, 0)


async def test_a_sender_that_goes_away_ends_what_a_waiting_plain_exporter_does(world):
    """The items are counted with a reason and are in flight no longer."""
    async with world.running(PLAIN_EXPORTER % "wait, hang") as service:
        sending = asyncio.ensure_future(world.source().consume(traces(spans=10)))
        await eventually(lambda: world.made["exporters/plain"].entered == 1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        found = row(service, "exporters/plain")
        assert (found.held, found.dropped) == (0, {"cancelled": 10})
        assert service.ledger.imbalances() == []


async def test_a_stage_that_refuses_loses_that_batch_only(world):
    """Its error is its own, not that of an exporter behind it, so its items are counted here."""
    async with world.running(HELD % "refuse") as service:
        with pytest.raises(RetryableError, match="the lookup failed"):
            await world.source().consume(traces(spans=10))
        assert row(service, "processors/holder@traces").dropped == {"unavailable": 10}


async def test_a_stage_that_hangs_at_the_end_loses_its_batch_with_a_reason(world):
    """What the stage before it flushes into it is cancelled when the time is over."""
    async with world.running(TWO_STAGES, shutdown_timeout_s=0.1) as service:
        await world.source().consume(traces(spans=10))
    assert row(service, "processors/holder/2@traces").dropped == {"shutdown": 10}


async def test_a_connector_that_refuses_loses_that_batch_only(world):
    """The caller learns of it."""
    async with world.running(JOINED % "refuse") as service:
        with pytest.raises(PermanentError, match="cannot convert"):
            await world.source().consume(traces(spans=10))
        assert row(service, "connectors/passer").dropped == {"unsupported": 10}


async def test_what_a_connector_holds_is_counted_by_signal(world):
    """Each signal's row balances by itself."""
    async with world.running(JOINED % "hold") as service:
        await world.source().consume(traces(spans=10))
        await world.source(signal=Signal.METRICS).consume(metrics(points=7))
        held = {each.signal: each.held for each in service.ledger.snapshot() if each.node == "connectors/passer"}
        assert held == {Signal.TRACES: 10, Signal.METRICS: 7}
        assert service.ledger.imbalances() == []


async def test_an_exporter_that_is_busy_does_not_flood_the_log(world):
    """Each lost batch is counted, and a line names the first of them."""
    with structlog.testing.capture_logs() as lines:
        async with world.running(FAN_OUT % "hang", shutdown_timeout_s=0.1) as service:
            for seed in range(200):
                await world.source().consume(traces(spans=1, seed=seed))
            assert row(service, "exporters/target/sick").dropped == {"queue_full": 136}
    assert len([line for line in lines if "already works on as many batches" in line["event"]]) == 1
