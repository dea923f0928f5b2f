"""Requests that arrive in one turn of the event loop continue as one batch, and each sender receives its own result."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.api import PermanentError, Receipt, RetryableError
from collector.model import EMPTY_CONTEXT, Context, MalformedBatch, Traces
from collector.service.door import MAX_BYTES, MAX_ITEMS
from collector.testing import eventually, traces_request

PLAIN = """
receivers: {source: {}}
processors: {every: {}}
exporters: {target: {do: %s}}
service: {pipelines: {traces: {receivers: [source], processors: [every], exporters: [target]}}}
"""
MALFORMED = b"\x0a\xff"


class Senders:
    """Sends without waiting; ``told`` has the outcome of each request, in the order of sending."""

    def __init__(self, door: Any) -> None:
        self.door = door
        self.told: list[Receipt | Exception | None] = []

    def send(self, wire: bytes, context: Context = EMPTY_CONTEXT) -> None:
        place = len(self.told)
        self.told.append(None)

        def answered(outcome: Receipt | Exception) -> None:
            assert self.told[place] is None, "answered twice"
            self.told[place] = outcome

        self.door.try_consume_request(wire, context, answered)

    async def answers(self) -> list[Any]:
        await eventually(lambda: None not in self.told)
        return self.told


def wire(spans: int = 3, seed: int = 0) -> bytes:
    return traces_request(spans=spans, seed=seed).SerializeToString()


def with_bad_ids(count: int) -> bytes:
    message = traces_request(spans=count + 1)
    for span in message.resource_spans[0].scope_spans[0].spans[:count]:
        span.trace_id = b"short"
    return message.SerializeToString()


async def test_requests_of_one_turn_are_one_batch(world):
    """The bytes of requests of one turn are joined in order; a later request is a batch of its own."""
    async with world.running(PLAIN % '""') as service:
        senders = Senders(world.source())
        for seed in range(5):
            senders.send(wire(seed=seed))
        assert await senders.answers() == [Receipt(3)] * 5
        senders.send(wire(seed=9))
        await senders.answers()
        batches = world.target().batches
        assert [batch.wire for batch in batches] == [b"".join(wire(seed=seed) for seed in range(5)), wire(seed=9)]
        assert service.admission.used_bytes == 0


async def test_a_bad_request_is_refused_alone(world):
    """A malformed request does not affect the others; partial success counts its own rows; an empty one is accepted."""
    async with world.running(PLAIN % '""'):
        senders = Senders(world.source())
        for body in (wire(), MALFORMED, with_bad_ids(2), b""):
            senders.send(body)
        good, malformed, partial, empty = await senders.answers()
        assert isinstance(malformed, MalformedBatch)
        assert (good, empty) == (Receipt(3), Receipt(0))
        assert (partial.accepted_count, partial.rejected_count) == (1, 2)
        assert sum(batch.item_count for batch in world.target().batches) == 4


async def test_contexts_never_mix(world):
    """Requests of two tenants in one turn become two batches, each with its own context."""
    async with world.running(PLAIN % '""'):
        senders = Senders(world.source())
        contexts = [Context(tenant="a"), Context(tenant="b"), Context(tenant="a")]
        for context in contexts:
            senders.send(wire(), context)
        await senders.answers()
        assert [(batch.context.tenant, batch.item_count) for batch in world.target().batches] == [("a", 6), ("b", 3)]


@pytest.mark.parametrize(("spans", "requests"), [(3000, 4), (1500, 8)])
async def test_a_batch_is_bounded(world, spans, requests):
    """A batch is limited in bytes and items; nothing is lost between two batches, and the order is kept."""
    async with world.running(PLAIN % '""'):
        senders = Senders(world.source())
        body = wire(spans)
        for _ in range(requests):
            senders.send(body)
        await senders.answers()
        batches = world.target().batches
        assert len(batches) > 1
        assert all(batch.item_count <= MAX_ITEMS and batch.size_bytes <= MAX_BYTES for batch in batches)
        assert sum(batch.item_count for batch in batches) == spans * requests


async def test_a_request_larger_than_the_bound_goes_alone(world):
    """A request above the limit is passed on whole, and does not hold up those that arrived before it."""
    async with world.running(PLAIN % '""'):
        senders = Senders(world.source())
        for count in (3, MAX_ITEMS + 1, 2):
            senders.send(wire(count))
        await senders.answers()
        assert [batch.item_count for batch in world.target().batches] == [3, MAX_ITEMS + 1, 2]


async def test_memory_refuses_what_does_not_fit_beside_the_others(world):
    """The bytes of a request stay reserved until its batch is committed."""
    async with world.running(PLAIN % '""') as service:
        body = wire(10)
        service.admission.limit(soft_bytes=2 * len(body), hard_bytes=3 * len(body), rss=lambda: 0)
        senders = Senders(world.source())
        for _ in range(3):
            senders.send(body)
        first, second, third = await senders.answers()
        assert (first, second) == (Receipt(10), Receipt(10))
        assert (type(third), third.reason) == (RetryableError, "memory_limit")
        assert service.admission.used_bytes == 0
        row = next(row for row in service.ledger.snapshot() if row.node.startswith("receivers/"))
        assert (row.received, row.out, row.refused) == (21, 20, {"memory_limit": 1}), "nobody has read the third"


async def test_a_request_for_which_an_allocation_fails_is_refused_retryably(world, monkeypatch):
    """The others of its batch are taken, and it is in the ledger."""
    async with world.running(PLAIN % '""') as service:
        check = Traces.check.__func__

        def fail_for_large(cls, body, context):
            if len(body) > 5000:
                raise MemoryError
            return check(cls, body, context)

        def fail(*_arguments):
            raise MemoryError

        monkeypatch.setattr(Traces, "check", classmethod(fail_for_large))
        monkeypatch.setattr(Traces, "check_joined", classmethod(fail))
        senders = Senders(world.source())
        for count in (3, 500, 2):
            senders.send(wire(count))
        first, second, third = await senders.answers()
        assert (first, third) == (Receipt(3), Receipt(2))
        assert (type(second), second.reason, second.retry_after_s) == (RetryableError, "memory_limit", 1.0)
        row = next(row for row in service.ledger.snapshot() if row.node.startswith("receivers/"))
        assert (row.received, row.out, row.refused) == (6, 5, {"memory_limit": 1})
        assert service.admission.used_bytes == 0


async def test_what_stages_hold_leaves_less_room_for_the_others(world):
    """Of two requests that would fit alone the second is refused, just as if they had arrived separately."""
    async with world.running(PLAIN % '""') as service:
        body = wire(10)
        service.admission.limit(soft_bytes=4 * len(body), hard_bytes=5 * len(body), rss=lambda: 0)
        service.admission.add_source(lambda: 2 * len(body) + 1)
        senders = Senders(world.source())
        for _ in range(2):
            senders.send(body)
        first, second = await senders.answers()
        assert first == Receipt(10)
        assert (type(second), second.reason) == (RetryableError, "memory_limit")


async def test_where_all_do_not_fit_those_are_taken_that_do(world):
    """Requests that do not fit in the queue are refused one by one, and the ledger balances."""
    async with world.running(PLAIN % "blocks_on_overflow") as service:
        target = world.target()
        target.has_room = lambda batch: batch.item_count + target.item_count <= 7
        senders = Senders(world.source())
        for _ in range(3):
            senders.send(wire(3))
        told = await senders.answers()
        assert [getattr(outcome, "reason", "taken") for outcome in told] == ["taken", "taken", "queue_full"]
        row = next(row for row in service.ledger.snapshot() if row.node == "receivers/source")
        assert (row.received, row.out, row.refused) == (9, 6, {"queue_full": 3})


async def test_nothing_is_batched_where_a_sender_waits_for_the_backend(world):
    """Each request is sent separately and at the same time, and receives its own result."""
    async with world.running(PLAIN % "wait_hang"):
        senders = Senders(world.source())
        for _ in range(3):
            senders.send(wire(3))
        await eventually(lambda: world.target().waiting == 9)
        assert senders.told == [None] * 3
        world.target().release.set()
        assert await senders.answers() == [Receipt(3)] * 3
        assert [batch.item_count for batch in world.target().batches] == [3, 3, 3]


@pytest.mark.parametrize(("order", "error"), [("wait_refuse", PermanentError), ("wait_retry", RetryableError)])
async def test_what_the_backend_says_comes_back(world, order, error):
    async with world.running(PLAIN % order):
        senders = Senders(world.source())
        senders.send(wire())
        assert isinstance((await senders.answers())[0], error)


async def test_a_sender_that_gives_up_takes_nobody_with_it(world):
    """A cancelled request is already being processed; the other requests of the batch are answered."""
    async with world.running(PLAIN % '""'):
        first = asyncio.ensure_future(world.source().consume_request(wire(seed=1), EMPTY_CONTEXT))
        second = asyncio.ensure_future(world.source().consume_request(wire(seed=2), EMPTY_CONTEXT))
        await asyncio.sleep(0)  # both have submitted
        first.cancel()
        assert await second == Receipt(3)
        assert world.target().item_count == 6


async def test_an_answer_that_raises_leaves_the_others_theirs(world):
    """A callback that raises is logged, and does not affect the other senders."""
    async with world.running(PLAIN % '""'):
        senders = Senders(world.source())
        world.source().try_consume_request(wire(), EMPTY_CONTEXT, lambda _: 1 / 0)
        senders.send(wire())
        assert await senders.answers() == [Receipt(3)]
        assert world.target().item_count == 6


async def test_what_is_taken_at_once_is_answered_without_a_task(world):
    """Requests are answered at the end of the turn after the one in which they arrived, and leave nothing behind."""
    async with world.running(PLAIN % '""') as service:
        senders = Senders(world.source())
        tasks = asyncio.all_tasks()
        senders.send(wire())
        await asyncio.sleep(0)
        senders.send(wire(spans=4))
        assert senders.told == [None, None]
        await asyncio.sleep(0)
        assert senders.told == [Receipt(3), Receipt(4)]
        assert world.target().item_count == 7
        assert asyncio.all_tasks() == tasks
        assert service.admission.used_bytes == 0


async def test_what_is_waited_for_is_charged_until_it_is_over(world):
    """While an exporter waits, the request's bytes stay charged to the budget and its sender waits for the result."""
    async with world.running(PLAIN % "wait_hang") as service:
        senders = Senders(world.source())
        senders.send(wire())
        await eventually(lambda: world.target().waiting == 3)
        assert senders.told == [None]
        assert service.admission.used_bytes == len(wire())
        world.target().release.set()
        assert await senders.answers() == [Receipt(3)]
        await eventually(lambda: service.admission.used_bytes == 0)


async def test_a_fault_of_ours_is_answered_too(world, monkeypatch):
    """If the joint check raises, requests are checked one by one; if that raises, the sender gets the error."""
    async with world.running(PLAIN % '""') as service:

        def fault(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Traces, "check_joined", fault)
        senders = Senders(world.source())
        senders.send(wire())
        senders.send(wire())
        assert await senders.answers() == [Receipt(3)] * 2
        monkeypatch.setattr(Traces, "check", fault)
        senders.send(wire())
        senders.send(wire())
        assert [type(outcome) for outcome in (await senders.answers())[2:]] == [RuntimeError] * 2
        assert service.admission.used_bytes == 0


_BODIES = st.sampled_from([wire(1, 1), wire(4, 2), with_bad_ids(1), MALFORMED, b"", wire(2, 3)[:-1]])


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.lists(st.tuples(_BODIES, st.sampled_from([None, "a"])), max_size=6), max_size=4),
    order=st.sampled_from(['""', "async"]),
)
async def test_everybody_hears_what_he_would_alone(world, turns, order):
    """Requests of one turn have the same outcomes, output bytes and ledger as requests sent one by one.

    This holds for any mixture of requests.
    """

    def plain(outcome):
        return outcome if isinstance(outcome, Receipt) else (type(outcome), str(outcome))

    requests = [(body, Context(tenant=tenant)) for turn in turns for body, tenant in turn]
    async with world.running(PLAIN % '""'):
        alone = Senders(world.source())
        for body, context in requests:
            alone.send(body, context)
            await alone.answers()
        expected = [plain(outcome) for outcome in alone.told]
        expected_out = {
            t: b"".join(b.wire for b in world.target().batches if b.context.tenant == t) for t in (None, "a")
        }
    async with world.running(PLAIN % order):
        together = Senders(world.source())
        for turn in turns:
            for body, tenant in turn:
                together.send(body, Context(tenant=tenant))
            await together.answers()
        assert [plain(outcome) for outcome in together.told] == expected
        item_count = sum(outcome.accepted_count for outcome in together.told if isinstance(outcome, Receipt))
        # An exporter that is awaited in a task may receive its batches after the senders were answered.
        await eventually(lambda: world.target().item_count == item_count)
        assert {
            t: b"".join(b.wire for b in world.target().batches if b.context.tenant == t) for t in (None, "a")
        } == expected_out
