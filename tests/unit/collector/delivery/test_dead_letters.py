"""What cannot be delivered is kept: which data, with which labels, and what happens without room for it."""

import asyncio

import numpy as np
import pytest
from delivery_rig import OK, Backend, Probe, Rig, down

from collector.api import PermanentError, TooLargeError
from collector.delivery import ExporterConfig, Part
from collector.delivery.dead_letters import dead_letter_queue
from collector.model import Signal
from collector.testing import FakeStorage, eventually, traces
from config.blocks import DeadLetterConfig

REFUSED = PermanentError("label name\nis invalid", reason="http_400")


class KeepingRig(Rig):
    """A rig whose exporter keeps dead letters in a storage that outlives it."""

    def __init__(self, backend, type_=Probe, *, storage=None, max_size="1MiB", include_overflow=False, **config):
        dead_letter = {"storage": "disk", "max_size": max_size, "include_overflow": include_overflow}
        super().__init__(backend, type_, dead_letter=dead_letter, **config)
        self.storage = storage or FakeStorage()
        self.host.extensions["disk"] = self.storage

    @property
    def letters(self):
        """Labels and batch of each letter about traces, oldest first."""
        queue = self.storage.queues[dead_letter_queue("probe/a", Signal.TRACES)]
        return [(stored.labels, batch) for stored, batch in queue.batches.values()]

    @property
    def kept(self):
        """Reason and number of items of each letter."""
        return [(labels["reason"], batch.item_count) for labels, batch in self.letters]

    def lost(self, reason):
        return self.telemetry.value("tailrace_exporter_dead_letter_lost_items", data_type="traces", reason=reason)


async def test_refused_data_is_kept_with_its_reason():
    """It counts as refused all the same, and the ledger says how much of it is kept."""
    batch = traces(spans=3)
    async with KeepingRig(Backend(REFUSED)) as rig:
        await rig.consume(batch, traces(spans=5))
        await rig.settled()
        assert rig.reasons("refused") == {"http_400": 3}
        assert rig.telemetry.ledger.dead_lettered == {Signal.TRACES: 3}
        assert rig.telemetry.value("tailrace_exporter_dead_letter_items", data_type="traces") == 3
        assert rig.telemetry.value("tailrace_exporter_dead_letter_bytes", data_type="traces") == batch.size_bytes
    ((labels, kept),) = rig.letters
    assert kept.wire == batch.wire
    assert labels == {
        "exporter": "probe/a",
        "signal": "traces",
        "reason": "http_400",
        "error": "label name is invalid",
    }


async def test_data_that_is_given_up_is_kept():
    async with KeepingRig(Backend(default=down()), retry_on_failure={"max_elapsed_time": "30s"}) as rig:
        await rig.consume(traces(spans=3))
        await rig.clock.advance(60)
        assert rig.kept == [("retries_exhausted", 3)]


async def test_only_the_items_to_blame_are_kept():
    """A batch is halved until they are found; they are one letter."""

    class Picky(Probe):
        isolated_reasons = frozenset({"http_400"})

    def ids(payload):
        return payload.field("span_id").tolist()

    def answer(payload):
        return REFUSED if bad & set(ids(payload)) else 0

    batch = traces(spans=64)
    bad = {ids(batch)[5], ids(batch)[40]}
    async with KeepingRig(Backend(default=answer), Picky) as rig:
        await rig.consume(batch)
        await rig.settled()
        assert rig.delivered == 62
        assert rig.kept == [("http_400", 2)]
    ((_, kept),) = rig.letters
    assert set(ids(kept)) == bad


@pytest.mark.parametrize("limit", [0, 90_000])
async def test_an_exporter_with_another_payload_keeps_the_rows_that_were_refused(limit):
    """Whatever order its requests have, and however they were cut."""

    class Lines(Probe):
        isolated_reasons = frozenset({"http_400"})

        def encode(self, batch):
            rows = np.arange(batch.item_count)[::-1]
            ids = batch.field("span_id")[rows]
            return [
                Part(ids[part], len(part), size_bytes=10_000 * len(part), rows=rows[part])
                for part in np.array_split(np.arange(len(rows)), 2)
            ]

        def cut(self, part):
            middle = part.item_count // 2
            return [
                Part(ids, len(ids), part.shard, 10_000 * len(ids))
                for ids in (part.payload[:middle], part.payload[middle:])
                if len(ids)
            ]

    def answer(payload):
        if limit and 10_000 * len(payload) > limit:
            return TooLargeError("too large", reason="http_413")
        return REFUSED if bad & set(payload.tolist()) else 0

    batch = traces(spans=64)
    bad = {batch.field("span_id").tolist()[row] for row in (5, 40, 41)}
    async with KeepingRig(Backend(default=answer), Lines) as rig:
        await rig.consume(batch)
        await rig.settled()
        assert rig.delivered == 61
        assert rig.kept == [("http_400", 3)]
    assert set(rig.letters[0][1].field("span_id").tolist()) == bad


async def test_an_exporter_with_another_payload_keeps_the_whole_batch_once():
    class Lines(Probe):
        def encode(self, batch):
            return [Part(f"line {number}", 1, size_bytes=10) for number in range(batch.item_count)]

    backend = Backend(REFUSED, None, PermanentError("other", reason="http_403"), default=None)
    async with KeepingRig(backend, Lines) as rig:
        await rig.consume(traces(spans=4))
        await rig.settled()
        assert rig.reasons("refused") == {"http_400": 1, "http_403": 1}
        assert rig.telemetry.ledger.dead_lettered == {Signal.TRACES: 2}
        assert rig.kept == [("http_400", 4)]


async def test_data_with_which_the_exporter_fails_is_kept():
    async with KeepingRig(Backend(ValueError("bug"))) as rig:
        await rig.consume(traces(spans=3))
        await rig.settled()
        assert rig.kept == [("internal_error", 3)]
        assert rig.letters[0][0]["error"] == "ValueError: bug"


async def test_what_a_shutdown_leaves_behind_is_kept():
    backend = Backend()
    backend.gate.clear()
    async with KeepingRig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.consume(traces(spans=3), traces(spans=4))
    assert rig.reasons("dropped") == {"shutdown": 7}
    assert rig.kept == [("shutdown", 3), ("shutdown", 4)]


@pytest.mark.parametrize(("include_overflow", "expected"), [(False, []), (True, [("queue_full", 4)])])
async def test_data_without_room_in_the_queue_is_kept_if_configured(include_overflow, expected):
    backend = Backend()
    backend.gate.clear()
    async with KeepingRig(
        backend, include_overflow=include_overflow, sending_queue={"queue_size": 1, "num_consumers": 1}
    ) as rig:
        await rig.consume(traces(spans=3), traces(spans=4))
        await rig.clock.advance(0)
        assert rig.kept == expected
        backend.gate.set()


@pytest.mark.parametrize(("error", "expected"), [(down(), []), (REFUSED, [("http_400", 3)])])
async def test_what_the_caller_sends_again_is_not_kept(error, expected):
    """A caller that waits for the result learns of the failure. What is refused for good, it gives up as well."""
    async with KeepingRig(
        Backend(default=error), sending_queue={"wait_for_result": True}, retry_on_failure={"enabled": False}
    ) as rig:
        with pytest.raises(type(error)):
            await rig.consume(traces(spans=3))
        assert rig.kept == expected
        rig.received = 3


async def test_the_oldest_letters_make_room_and_are_counted():
    async with KeepingRig(Backend(default=REFUSED), max_size=traces(spans=3).size_bytes * 2) as rig:
        for _ in range(4):
            await rig.consume(traces(spans=3))
            await rig.settled()
        assert rig.kept == [("http_400", 3)] * 2
        assert rig.lost("evicted") == 6
        await rig.consume(traces(spans=1000))
        await rig.settled()
        assert rig.kept == [("http_400", 3)] * 2, "what never fits does not push out anything"
        assert rig.lost("storage_full") == 1000


async def test_a_storage_that_fails_costs_the_letters_only():
    """Delivery goes on, and the loss is counted."""
    async with KeepingRig(Backend(REFUSED)) as rig:
        queue = rig.storage.queues[dead_letter_queue("probe/a", Signal.TRACES)]
        queue.has_room = lambda size_bytes: True
        queue.fail_with = OSError("no space left on device")
        await rig.consume(traces(spans=3), traces(spans=5))
        await rig.settled()
        assert (rig.delivered, rig.reasons("refused"), rig.lost("storage_failed")) == (5, {"http_400": 3}, 3)
        assert not rig.telemetry.ledger.dead_lettered


async def test_the_batch_is_not_settled_before_its_letter_is_stored():
    """Otherwise a crash in between would lose it from the queue and from the dead letters."""
    async with KeepingRig(Backend(REFUSED)) as rig:
        queue = rig.storage.queues[dead_letter_queue("probe/a", Signal.TRACES)]
        queue.hold()
        consuming = asyncio.ensure_future(rig.consume(traces(spans=3)))
        await rig.clock.advance(10)
        assert rig.telemetry.value("otelcol_exporter_queue_size", data_type="traces") == 1
        queue.resume()
        await consuming
        await rig.settled()


async def test_letters_of_the_last_run_are_still_there():
    storage = FakeStorage()
    for _ in range(2):
        async with KeepingRig(Backend(REFUSED), storage=storage) as rig:
            await rig.consume(traces(spans=3))
            await eventually(lambda rig=rig: rig.count("refused") == 3)
    assert rig.kept == [("http_400", 3)] * 2


async def test_an_unknown_storage_is_named():
    rig = KeepingRig(Backend())
    del rig.host.extensions["disk"]
    with pytest.raises(ValueError, match="exporters::probe/a::dead_letter::storage: the extension 'disk' is not"):
        await rig.exporter.start(rig.host)


def test_the_storage_is_required():
    with pytest.raises(ValueError, match="storage is required"):
        ExporterConfig.model_validate({"dead_letter": {}})
    assert DeadLetterConfig(storage="file_storage").max_size == 256 * 1024 * 1024


async def fill(rig, *counts):
    """Put letters into the store of the rig by letting the backend refuse batches."""
    default, rig.backend.default = rig.backend.default, REFUSED
    for count in counts:
        await rig.consume(traces(spans=count))
        await rig.settled()
    rig.backend.default = default
    rig.backend.seen.clear()


async def replay(rig, **query):
    """The answer of the admin port, whose books count replayed items as created."""
    answer = await rig.host.actions["/dead-letters/replay"](query)
    rig.received = sum(batch.item_count for batch in rig.batches) + rig.count("created")
    return answer["probe/a"]


class ReplayRig(KeepingRig):
    """A rig that counts what is replayed as received."""

    def __init__(self, *arguments, **config):
        super().__init__(*arguments, **config)
        self.batches = []

    async def consume(self, *batches):
        self.batches += batches
        await super().consume(*batches)


async def test_the_admin_port_lists_letters():
    async with ReplayRig(Backend()) as rig:
        await fill(rig, 3, 4)
        show = rig.host.routes["/dead-letters"]
        (first, second) = (await show({}))["probe/a"]
        assert (first["items"], second["items"]) == (3, 4)
        assert (first["reason"], first["signal"], first["error"]) == ("http_400", "traces", "label name is invalid")
        assert await show({"reason": "other"}) == {"probe/a": []}
        with pytest.raises(ValueError, match="invalid literal"):
            await show({"after_unix_nano": "yesterday"})


async def test_a_replay_delivers_in_order_and_removes():
    """The books count what is replayed as created."""
    async with ReplayRig(Backend()) as rig:
        await fill(rig, 3, 4, 5)
        answer = await replay(rig)
        assert answer == {"delivered": 3, "items": 12, "refused": 0, "unreadable": 0, "error": ""}
        assert [batch.item_count for batch in rig.backend.seen] == [3, 4, 5]
        assert (rig.kept, rig.delivered, rig.count("created")) == ([], 12, 12)


async def test_what_a_replay_cannot_deliver_stays_and_is_not_kept_twice():
    backend = Backend()
    async with ReplayRig(backend) as rig:
        await fill(rig, 3, 4, 5)
        backend.script.extend([OK, REFUSED, OK])
        answer = await replay(rig)
        assert (answer["delivered"], answer["refused"], answer["error"]) == (2, 1, "")
        assert rig.kept == [("http_400", 4)]


async def test_a_replay_ends_when_the_backend_is_down():
    backend = Backend()
    async with ReplayRig(backend, retry_on_failure={"enabled": False}) as rig:
        await fill(rig, 3, 4)
        backend.default = down()
        answer = await replay(rig)
        assert (answer["delivered"], answer["error"]) == (0, "connection refused")
        assert rig.kept == [("http_400", 3), ("http_400", 4)]


async def test_a_replay_can_be_limited():
    async with ReplayRig(Backend()) as rig:
        await fill(rig, 3, 4, 5)
        assert (await replay(rig, limit="2", keep="true"))["items"] == 7
        assert len(rig.kept) == 3
        assert (await replay(rig, limit="1"))["items"] == 3
        assert (await replay(rig, exporter="another"))["items"] == 0
        assert (await replay(rig, reason="another"))["items"] == 0
        assert len(rig.kept) == 2


async def test_there_is_one_replay_at_a_time():
    backend = Backend()
    async with ReplayRig(backend) as rig:
        await fill(rig, 3)
        backend.gate.clear()
        first = asyncio.ensure_future(rig.host.actions["/dead-letters/replay"]({}))
        await rig.clock.advance(0)
        assert (await replay(rig))["error"] == "a replay is in progress already"
        backend.gate.set()
        assert (await first)["probe/a"]["delivered"] == 1
        assert rig.delivered == 3


async def test_a_damaged_letter_is_left_out():
    async with ReplayRig(Backend()) as rig:
        await fill(rig, 3, 4)
        rig.storage.queues[dead_letter_queue("probe/a", Signal.TRACES)].unreadable.add(0)
        answer = await replay(rig)
        assert (answer["delivered"], answer["unreadable"]) == (1, 1)
