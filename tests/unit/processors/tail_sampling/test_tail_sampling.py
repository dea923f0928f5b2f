"""The processor around the policies: when a trace is decided, what is remembered and dropped, and what is counted."""

import asyncio
from collections import Counter

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Context, Signal, Traces
from collector.testing import FakeClock, FakeHost, Sink, eventually, hand_over, make_settings
from processors.tail_sampling import factory
from processors.tail_sampling.config import TailSamplingConfig

SECOND = 1_000_000_000
PREFIX = "otelcol_processor_tail_sampling_"
ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
ALWAYS = {"name": "all", "type": "always_sample"}
DROP = {
    "name": "noise",
    "type": "drop",
    "drop": {
        "drop_sub_policy": [
            {"name": "x", "type": "boolean_attribute", "boolean_attribute": {"key": "noise", "value": True}}
        ]
    },
}


class Bench:
    def __init__(self, *policies, component_id="", **keys):
        self.clock = FakeClock()
        self.sink = Sink()
        config = TailSamplingConfig.model_validate({"policies": policies or (ERRORS,), **keys})
        self.settings = make_settings(
            factory,
            component_id=component_id,
            signals={Signal.TRACES},
            clock=self.clock,
            outputs={Signal.TRACES: self.sink},
        )
        self.telemetry = self.settings.telemetry
        self.sut = factory.create(self.settings, config)
        self.sent = 0

    async def start(self):
        await self.sut.start(FakeHost())
        return self

    async def send(self, *spans, context=None):
        made = ExportTraceServiceRequest()
        target = made.resource_spans.add().scope_spans.add().spans
        for number, *marks in spans:
            one = target.add(name="s", trace_id=trace_id(number), span_id=b"12345678", parent_span_id=b"87654321")
            one.start_time_unix_nano, one.end_time_unix_nano = 100 * SECOND, 101 * SECOND
            if "error" in marks:
                one.status.code = 2
            if "root" in marks:
                one.ClearField("parent_span_id")
            if "noise" in marks:
                one.attributes.add(key="noise").value.bool_value = True
            if "long" in marks:
                one.attributes.add(key="text").value.string_value = "x" * 1000
            if "no start" in marks:
                one.start_time_unix_nano = 0
        self.sent += len(spans)
        wire = made.SerializeToString()
        await self.sut.consume(Traces.from_wire(wire, context) if context else Traces.from_wire(wire))

    def kept(self):
        """Number of each kept span's trace, sorted."""
        found = []
        for batch in self.sink.batches:
            for resource in ExportTraceServiceRequest.FromString(batch.wire).resource_spans:
                found += [
                    int.from_bytes(span.trace_id, "big") for scope in resource.scope_spans for span in scope.spans
                ]
        return sorted(found)

    def dropped(self, reason=None):
        return self.telemetry.ledger.dropped_count(Signal.TRACES, reason)

    def value(self, name, **labels):
        return self.telemetry.value(PREFIX + name, **labels)

    def balanced(self):
        return self.sent == len(self.kept()) + self.dropped() + self.sut.held_items()


def trace_id(number):
    return number.to_bytes(16, "big")


async def test_a_trace_is_decided_after_the_wait_and_late_spans_follow():
    """Late spans follow the decision on their trace, and their age is recorded."""
    bench = await Bench(decision_wait="10s").start()
    await bench.send((1,), (2,))
    await bench.send((1, "error"))
    await bench.clock.advance(9)
    assert not bench.kept()
    assert bench.sut.held_items() == 3
    assert bench.sut.held_bytes() > 0
    await bench.clock.advance(2)
    assert bench.kept() == [1, 1]
    assert (bench.sut.held_items(), bench.sut.row_bytes) == (0, 0)
    await bench.clock.advance(5)
    await bench.send((1,), (2, "error"))
    assert bench.kept() == [1, 1, 1]
    assert bench.dropped("sampled") == 2
    assert bench.telemetry.observations(PREFIX + "sampling_late_span_age") == [6, 6]
    assert bench.balanced()
    await bench.sut.shutdown()
    await bench.sut.shutdown()


async def test_shutdown_decides_what_has_arrived():
    """It does so even if the processor was never started."""
    bench = Bench()
    await bench.send((1, "error"), (2,))
    await bench.sut.shutdown()
    assert bench.kept() == [1]
    assert bench.dropped("sampled") == 1
    assert bench.balanced()


async def test_shutdown_drops_what_is_pending_if_so_configured():
    """With ``drop_pending_traces_on_shutdown`` undecided traces are dropped and counted."""
    bench = await Bench(drop_pending_traces_on_shutdown=True).start()
    await bench.send((1, "error"), (2,))
    await bench.sut.shutdown()
    assert not bench.kept()
    assert bench.dropped("shutdown") == 2
    assert bench.balanced()


async def test_drop_goes_before_every_sampling_policy():
    """A drop policy takes precedence wherever it is in the list, and is counted as dropped."""
    bench = Bench(ALWAYS, DROP)
    await bench.send((1,), (2, "noise"), (3,))
    await bench.sut.shutdown()
    assert bench.kept() == [1, 3]
    assert bench.dropped("sampled") == 1
    assert bench.value("count_traces_sampled", policy="noise", decision="dropped", sampled="false") == 1
    assert bench.value("count_traces_sampled", policy="noise", decision="not_sampled") == 2
    assert bench.value("count_traces_sampled", policy="all") == 2  # not evaluated for the dropped one
    assert bench.value("global_count_traces_sampled", decision="dropped") == 1
    assert bench.value("global_count_traces_sampled", sampled="true") == 2


async def test_a_root_span_makes_the_decision_sooner():
    """decision_wait_after_root_received; never later than decision_wait."""
    bench = await Bench(ALWAYS, decision_wait="30s", decision_wait_after_root_received="2s").start()
    await bench.send((1,), (2,))
    await bench.clock.advance(5)
    await bench.send((1, "root"))
    await bench.clock.advance(3)
    assert bench.kept() == [1, 1]
    assert bench.sut.held_items() == 1
    await bench.clock.advance(20.9)
    await bench.send((2, "root"))
    await bench.clock.advance(1.5)
    assert bench.kept() == [1, 1, 2, 2]
    await bench.sut.shutdown()


async def test_at_num_traces_the_oldest_undecided_trace_is_evicted():
    """Evictions are counted, their spans are in the ledger, and later spans of an evicted trace are not sampled."""
    bench = await Bench(ALWAYS, num_traces=3).start()
    await bench.send((1,), (1,), (2,), (3,))
    await bench.send((4,), (5,))
    await bench.clock.advance(1.5)
    assert bench.value("sampling_trace_dropped_too_early") == 2
    assert bench.dropped("overflow") == 3
    assert bench.sut.held_items() == 3
    await bench.send((1,))
    await bench.clock.advance(60)
    assert bench.kept() == [3, 4, 5]
    assert bench.dropped("sampled") == 1
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_one_batch_may_hold_more_traces_than_there_is_room_for():
    """The batch evicts its own oldest traces."""
    bench = await Bench(ALWAYS, num_traces=4).start()
    await bench.send(*((number,) for number in range(1, 12)))
    await bench.sut.shutdown()
    assert len(bench.kept()) == 4
    assert set(bench.kept()) >= {9, 10, 11}
    assert bench.balanced()


async def test_decided_traces_need_no_room():
    """Only undecided traces count towards ``num_traces``."""
    bench = await Bench(ALWAYS, num_traces=2, decision_wait="1s").start()
    await bench.send((1,), (2,))
    await bench.clock.advance(3)
    await bench.send((3,))
    await bench.send((4,))
    assert bench.value("sampling_trace_dropped_too_early") == 0
    assert bench.value("sampling_traces_on_memory") == 2
    assert bench.telemetry.observations(PREFIX + "sampling_trace_removal_age") == [1, 1]
    await bench.sut.shutdown()
    assert bench.kept() == [1, 2, 3, 4]


async def test_block_on_overflow_waits_for_a_decision():
    """Nothing is dropped; the sender waits until there is room."""
    bench = await Bench(ALWAYS, num_traces=2, decision_wait="10s", block_on_overflow=True).start()
    await bench.send((1,), (2,))
    waiting = asyncio.ensure_future(bench.send((3,), (1,)))
    await bench.clock.advance(5)
    assert not waiting.done()
    assert bench.sut.held_items() == 4
    await bench.clock.advance(7)
    await eventually(waiting.done)
    assert bench.kept() == [1, 1, 2]
    await bench.sut.shutdown()
    assert bench.kept() == [1, 1, 2, 3]
    assert bench.dropped() == 0


async def test_the_spans_of_a_blocked_sender_that_gives_up_are_dropped():
    """They are held while it waits, and counted with the reason ``overflow`` when it stops waiting."""
    bench = await Bench(ALWAYS, num_traces=1, block_on_overflow=True).start()
    await bench.send((1,))
    waiting = asyncio.ensure_future(bench.send((2,), (3,)))
    await bench.clock.advance(1)
    assert bench.sut.held_items() == 3
    waiting.cancel()
    await bench.clock.advance(1)
    assert (bench.sut.held_items(), bench.dropped("overflow")) == (1, 2)
    await bench.sut.shutdown()
    assert bench.kept() == [1]
    assert bench.balanced()


async def test_shutdown_lets_blocked_senders_in():
    """Spans of a sender that is blocked at shutdown are decided with the others."""
    bench = await Bench(ALWAYS, num_traces=1, block_on_overflow=True).start()
    await bench.send((1,))
    waiting = asyncio.ensure_future(bench.send((2,), (3,)))
    await bench.clock.advance(1)
    assert not waiting.done()
    await bench.sut.shutdown()
    await waiting
    assert bench.kept() == [1, 2, 3]


async def test_the_decision_caches_outlive_the_trace():
    """Late spans of a trace that has left follow the cached decision, and are counted."""
    cache = {"sampled_cache_size": 2, "non_sampled_cache_size": 2}
    bench = await Bench(decision_wait="1s", decision_cache=cache).start()
    await bench.send((1, "error"), (2,))
    await bench.clock.advance(3)
    assert bench.value("sampling_traces_on_memory") == 0
    await bench.send((1,), (2, "error"), (3, "error"))
    assert bench.kept() == [1, 1]
    assert bench.value("early_releases_from_cache_decision", sampled="true") == 1
    assert bench.value("early_releases_from_cache_decision", sampled="false") == 1
    assert bench.sut.held_items() == 1
    await bench.clock.advance(3)
    await bench.send((1,))  # used last: 3 goes when 4 comes
    await bench.send((4, "error"))
    await bench.clock.advance(3)
    await bench.send((1,), (3,))
    await bench.clock.advance(3)
    assert bench.kept().count(1) == 4
    assert bench.kept().count(3) == 1
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_a_trace_that_grows_too_large_is_not_sampled_at_once():
    """``maximum_trace_size_bytes``: its late spans are dropped as well, and smaller traces stay."""
    bench = await Bench(ALWAYS, maximum_trace_size_bytes=1500, decision_wait="10s").start()
    await bench.send((1, "long"), (2, "long"))
    await bench.send((1, "long"))
    await bench.clock.advance(2)
    assert bench.value("traces_dropped_too_large") == 1
    assert bench.dropped("trace_too_large") == 2
    await bench.send((1,))
    assert bench.dropped("sampled") == 1
    await bench.clock.advance(20)
    assert bench.kept() == [2]
    assert bench.value("traces_dropped_too_large") == 1
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_sample_on_first_match_evaluates_no_further_policy():
    """Later policies do not count the trace."""
    bench = Bench(ERRORS, ALWAYS, sample_on_first_match=True)
    await bench.send((1, "error"), (2,))
    await bench.sut.shutdown()
    assert bench.value("count_traces_sampled", policy="errors") == 2
    assert bench.value("count_traces_sampled", policy="all") == 1
    assert bench.value("sampling_policy_execution_count", policy="all") == 1


async def test_the_components_name_stands_before_the_policys():
    """The label ``policy`` has the form that the Collector gives it."""
    bench = Bench(ALWAYS, component_id="tail_sampling/edge")
    await bench.send((1,), (1,))
    await bench.sut.shutdown()
    assert bench.value("count_spans_sampled", policy="edge.all", sampled="true", decision="sampled") == 2


async def test_a_reload_keeps_what_is_held_and_remembered():
    """The successor decides open traces by its own policies, and late spans follow the old decision."""
    bench = await Bench(decision_wait="10s").start()
    await bench.send((1, "error"), (2,))
    await bench.clock.advance(12)
    await bench.send((3,), (4, "error"))
    config = TailSamplingConfig.model_validate({"policies": [DROP, ALWAYS], "decision_wait": "10s"})
    state = bench.sut.hand_over(config)
    await bench.sut.shutdown()
    assert bench.sut.held_items() == 2
    old, bench.sut = bench.sut, factory.create(bench.settings, config)
    assert bench.sut.take_over(state)
    await bench.sut.start(FakeHost())
    assert (old.held_items(), bench.sut.held_items()) == (0, 2)
    await bench.send((1,), (2,), (4, "noise"))
    assert bench.kept() == [1, 1]
    await bench.clock.advance(12)
    assert bench.kept() == [1, 1, 3]
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_contexts_stay_apart():
    """Spans leave with the context with which they arrived."""
    bench = Bench(ALWAYS)
    one, two = Context(tenant="one"), Context(tenant="two")
    await bench.send((1,), context=one)
    await bench.send((1,), (2,), context=two)
    await bench.sut.shutdown()
    assert sorted((batch.context.tenant, batch.item_count) for batch in bench.sink.batches) == [("one", 1), ("two", 2)]


async def test_span_ingest_decides_on_arrival():
    """A trace is sampled as soon as a policy matches; those undecided after the wait are not sampled, and forgotten."""
    bench = await Bench(decision_wait="5s", sampling_strategy="span-ingest").start()
    await bench.send((1,), (2,))
    await bench.send((1, "error"), (3, "error"))
    await bench.clock.advance(1)
    assert bench.kept() == [1, 1, 3]
    await bench.send((1,))
    assert bench.kept() == [1, 1, 1, 3]
    await bench.clock.advance(6)
    assert bench.dropped("sampled") == 1
    assert bench.value("global_count_traces_sampled", decision="not_sampled") == 1
    await bench.send((2, "error"))
    await bench.clock.advance(1)
    assert bench.kept() == [1, 1, 1, 2, 3]
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_span_ingest_evaluates_each_part_on_its_own():
    """An ``and`` whose conditions are met in two batches does not hold, but span counts add up."""
    both = {
        "name": "both",
        "type": "and",
        "and": {
            "and_sub_policy": [
                {"type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
                {"type": "boolean_attribute", "boolean_attribute": {"key": "noise", "value": True}},
            ]
        },
    }
    three = {"name": "three", "type": "span_count", "span_count": {"min_spans": 3}}
    bench = await Bench(both, three, sampling_strategy="span-ingest", decision_wait="5s").start()
    await bench.send((1, "error"), (2, "error"), (2, "noise"))
    await bench.send((1, "noise"))
    await bench.send((3,), (3,))
    await bench.send((3,))
    await bench.clock.advance(10)
    assert bench.kept() == [2, 2, 3, 3, 3]
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_span_ingest_samples_nothing_while_a_drop_policy_may_still_match():
    """The Collector's rule: a drop policy that has not matched yet defers every sampling decision."""
    bench = await Bench(ALWAYS, DROP, sampling_strategy="span-ingest", decision_wait="5s").start()
    await bench.send((1,), (2, "noise"))
    await bench.clock.advance(1)
    assert bench.dropped("sampled") == 1
    await bench.clock.advance(10)
    assert not bench.kept()
    assert bench.dropped("sampled") == 2
    await bench.sut.shutdown()


@pytest.mark.parametrize("strategy", ["trace-complete", "span-ingest"])
async def test_the_ledger_closes_under_churn(strategy):
    """Eviction, caches, late spans, large traces and shutdown together."""
    keys = {"sampling_strategy": strategy, "num_traces": 20, "decision_wait": "3s", "maximum_trace_size_bytes": 4000}
    bench = await Bench(ERRORS, decision_cache={"sampled_cache_size": 5}, **keys).start()
    for turn in range(60):
        spans = [
            (
                1 + (turn * 7 + step * step) % 53,
                *(["error"] if (turn + step) % 5 == 0 else []),
                *(["long"] if step % 4 == 0 else []),
            )
            for step in range(9)
        ]
        await bench.send(*spans)
        await bench.clock.advance(0.3)
        assert bench.balanced(), turn
    await bench.sut.shutdown()
    assert bench.sut.held_items() == 0
    assert bench.sut.row_bytes == 0
    assert bench.balanced()
    assert bench.kept()


@pytest.mark.parametrize("strategy", ["trace-complete", "span-ingest"])
async def test_no_half_of_an_evicted_trace_is_kept(strategy):
    """Under overload far more traces are evicted than there is room for; their second halves are dropped as well."""
    bench = await Bench(num_traces=10, decision_wait="10s", sampling_strategy=strategy).start()
    for number in range(100):
        await bench.send((number + 1,))
    for number in range(100):
        await bench.send((number + 1, "error"))
    await bench.clock.advance(20)
    kept = Counter(bench.kept())
    assert len(kept) == 10
    assert set(kept.values()) == {2}
    assert bench.dropped("overflow") == 90
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_traces_that_are_too_large_are_remembered_with_span_ingest():
    bench = await Bench(num_traces=10, sampling_strategy="span-ingest", maximum_trace_size_bytes=500).start()
    await bench.send((1, "long"))
    await bench.send((1, "error"))
    await bench.clock.advance(40)
    assert bench.kept() == []
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_evicted_traces_are_remembered_within_their_limit_and_over_a_reload():
    bench = await Bench(num_traces=1, decision_wait="10s").start()
    for number in range(40):
        await bench.send((number + 1,))
    assert 16 <= bench.sut.remembered_count <= 17
    config = TailSamplingConfig.model_validate({"policies": (ERRORS,), "num_traces": 1})
    old, bench.sut = bench.sut, hand_over(bench.sut, factory.create(bench.settings, config), config)
    await old.shutdown()
    await bench.sut.start(FakeHost())
    await bench.send((39, "error"))
    await bench.clock.advance(40)
    assert bench.kept() == []
    await bench.sut.shutdown()


async def test_a_span_without_a_start_does_not_make_its_trace_slow():
    """As in the Collector: otherwise the trace would have lasted since 1970."""
    slow = {"name": "slow", "type": "latency", "latency": {"threshold_ms": 2000}}
    bench = await Bench(slow, decision_wait="10s").start()
    await bench.send((1,), (1, "no start"), (2, "no start"))
    await bench.clock.advance(20)
    assert bench.kept() == []
    await bench.sut.shutdown()
