"""Which traces are kept, and that every span is accounted for; see docs/reference/sampling.md."""

import asyncio
import math
import random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import RetryableError
from collector.model import Signal, Traces
from collector.otlp.consistent_sampling import read_trace_state
from collector.testing import FakeClock, FakeHost, Sink, make_settings
from processors.sampling import factory
from processors.sampling.config import SamplingConfig

SECOND = 1_000_000_000


class Bench:
    def __init__(self, **keys):
        self.clock = FakeClock()
        self.sink = Sink()
        config = SamplingConfig.model_validate(keys)
        self.settings = make_settings(
            factory, signals={Signal.TRACES}, clock=self.clock, outputs={Signal.TRACES: self.sink}
        )
        self.sut = factory.create(self.settings, config)
        self.sent = 0

    async def send(self, *spans):
        made = ExportTraceServiceRequest()
        target = made.resource_spans.add().scope_spans.add().spans
        for span in spans:
            status = span.pop("http", None)
            code = span.pop("error", False)
            seconds = span.pop("seconds", 0)
            route = span.pop("route", None)
            one = target.add(**{"name": "s", "span_id": b"12345678", "end_time_unix_nano": 100 * SECOND, **span})
            one.start_time_unix_nano = one.end_time_unix_nano - int(seconds * SECOND)
            if code:
                one.status.code = 2
            if status:
                one.attributes.add(key="http.response.status_code").value.int_value = status
            if route:
                one.attributes.add(key="http.route").value.string_value = route
        self.sent += len(spans)
        await self.sut.consume(Traces.from_wire(made.SerializeToString()))

    def kept(self):
        found = []
        for batch in self.sink.batches:
            for resource in ExportTraceServiceRequest.FromString(batch.wire).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def kept_ids(self):
        return {span.trace_id for span in self.kept()}

    def balanced(self):
        dropped = self.settings.telemetry.ledger.dropped_count(Signal.TRACES)
        return self.sent == len(self.kept()) + dropped + self.sut.held_items()


def trace_id(number, low=0):
    return number.to_bytes(8, "big") + low.to_bytes(8, "big")


RULES = [
    {"name": "errors", "any": {"status": "error", "http_status": "5xx"}, "ratio": 1.0},
    {"name": "slow", "root_duration": "2s", "ratio": 1.0},
    {"name": "rest", "ratio": 0.0},
]


async def test_errors_and_slow_traces_are_kept_whole():
    """Rule 5: any span in any batch may meet the condition; the whole trace is kept."""
    bench = Bench(rules=RULES)
    await bench.send(
        {"trace_id": trace_id(1)},
        {"trace_id": trace_id(2)},
        {"trace_id": trace_id(3)},
        {"trace_id": trace_id(4), "seconds": 2.5, "parent_span_id": b"87654321"},
    )
    await bench.send(
        {"trace_id": trace_id(1), "error": True},
        {"trace_id": trace_id(2), "http": 503},
        {"trace_id": trace_id(5), "seconds": 2.5},
    )
    assert not bench.kept()
    assert bench.sut.held_items() == 7
    await bench.sut.shutdown()
    assert bench.kept_ids() == {trace_id(1), trace_id(2), trace_id(5)}
    assert len(bench.kept()) == 5
    assert bench.balanced()


async def test_a_span_without_a_start_is_not_slow():
    """Its duration is not known: neither 56 years nor a span that ends before it starts makes a trace slow."""
    bench = Bench(rules=RULES)
    await bench.send({"trace_id": trace_id(1), "seconds": 100}, {"trace_id": trace_id(2), "seconds": -5})
    await bench.send({"trace_id": trace_id(3), "seconds": 3})
    await bench.sut.shutdown()
    assert bench.kept_ids() == {trace_id(3)}
    assert bench.balanced()


async def test_the_slowest_traces_show_no_absurd_times():
    """A span without a start, within a slow trace, has no duration and moves no other span by 56 years."""
    bench = Bench(rules=RULES)
    await bench.send(
        {"trace_id": trace_id(1), "seconds": 3, "name": "root"},
        {"trace_id": trace_id(1), "seconds": 100, "name": "no start", "parent_span_id": b"12345678"},
        {"trace_id": trace_id(1), "seconds": 2, "name": "child", "parent_span_id": b"12345678"},
    )
    await bench.sut.shutdown()
    ((_, document),) = (await bench.sut._show({})).items()
    (slowest,) = document["slowest"]
    assert slowest["duration_ms"] == 3000
    assert {span["name"]: (span["start_offset_ms"], span["duration_ms"]) for span in slowest["spans"]} == {
        "root": (0, 3000),
        "no start": (0, 0),
        "child": (1000, 2000),
    }


async def test_decision_falls_after_the_wait_and_late_spans_follow():
    """Rules 2 and 14, for a kept and for a dropped trace."""
    bench = Bench(rules=RULES, decision_wait="10s")
    await bench.sut.start(FakeHost())
    await bench.send({"trace_id": trace_id(1), "error": True}, {"trace_id": trace_id(2)})
    await bench.clock.advance(5)
    assert not bench.kept()
    await bench.clock.advance(6)
    assert bench.kept_ids() == {trace_id(1)}
    await bench.send({"trace_id": trace_id(1)}, {"trace_id": trace_id(2), "error": True})
    assert len(bench.kept()) == 2
    assert bench.sut.held_items() == 0
    assert bench.balanced()
    await bench.sut.shutdown()
    await bench.sut.shutdown()


async def test_byte_budget_decides_the_oldest_early():
    """Rule 3: evicted traces are decided, not dropped."""
    bench = Bench(rules=RULES, max_bytes=4000)
    for number in range(50):
        await bench.send({"trace_id": trace_id(number), "error": number % 2 == 0})
        assert bench.sut.held_bytes() <= 4000
        assert bench.balanced()
    await bench.sut.shutdown()
    assert bench.kept_ids() == {trace_id(number) for number in range(0, 50, 2)}
    assert bench.balanced()


async def test_ratio_is_consistent_and_writes_its_threshold():
    """Rules 7 and 8: a trace is kept if its randomness reaches the threshold, which is written; a higher one stays."""
    bench = Bench(rules=[{"name": "rest", "ratio": 0.25}])
    edge = 0xC0000000000000
    await bench.send(
        {"trace_id": trace_id(1, edge)},
        {"trace_id": trace_id(2, edge - 1)},
        {"trace_id": trace_id(3, edge), "trace_state": "a=b,ot=th:e"},
        {"trace_id": trace_id(4), "trace_state": "ot=rv:ffffffffffffff"},
        {"trace_id": trace_id(5, 0xFFFFFFFFFFFFFF), "trace_state": "ot=rv:00000000000000"},
    )
    await bench.sut.shutdown()
    states = {span.trace_id: span.trace_state for span in bench.kept()}
    assert states == {
        trace_id(1, edge): "ot=th:c",
        trace_id(3, edge): "a=b,ot=th:e",
        trace_id(4): "ot=th:c;rv:ffffffffffffff",
    }


async def test_adjusted_counts_are_unbiased():
    """Σ 2^56/(2^56 - th) over what is kept is the number sent, within four standard deviations."""
    random.seed(5)
    bench, count, ratio = Bench(rules=[{"name": "rest", "ratio": 0.1}]), 20_000, 0.1
    for _ in range(20):
        await bench.send(*({"trace_id": random.randbytes(16)} for _ in range(count // 20)))
    await bench.sut.shutdown()
    adjusted = sum(2**56 / (2**56 - read_trace_state(span.trace_state).threshold) for span in bench.kept())
    assert abs(adjusted - count) < 4 * math.sqrt(count * (1 - ratio) / ratio)
    assert bench.balanced()


async def test_unwanted_spans_go_first():
    """Rule 6: by name and by route, counted with their own reason."""
    bench = Bench(rules=[{"name": "all", "ratio": 1.0}], drop_spans={"names": ["* http send"], "routes": ["/health*"]})
    await bench.send(
        {"trace_id": trace_id(1), "name": "GET / http send"},
        {"trace_id": trace_id(1), "route": "/health/live"},
        {"trace_id": trace_id(1)},
    )
    await bench.send({"trace_id": trace_id(2), "name": "x http send"})
    await bench.sut.shutdown()
    assert len(bench.kept()) == 1
    assert bench.settings.telemetry.ledger.dropped_count(Signal.TRACES, "drop_spans") == 3
    assert bench.balanced()


async def test_traces_split_over_many_batches_stay_whole():
    """Rule 1: with random splits every kept trace has all its spans, and every span is accounted for."""
    rng = random.Random(1)
    bench = Bench(rules=[{"name": "errors", "any": {"status": "error"}, "ratio": 1.0}, {"name": "rest", "ratio": 0.3}])
    spans = [{"trace_id": rng.randbytes(16)} for _ in range(200)]
    pieces = [{**span, "span_id": rng.randbytes(8), "error": rng.random() < 0.02} for span in spans for _ in range(5)]
    failed = {piece["trace_id"] for piece in pieces if piece["error"]}
    rng.shuffle(pieces)
    for i in range(0, len(pieces), 37):
        await bench.send(*pieces[i : i + 37])
    await bench.sut.shutdown()
    counts = {}
    for span in bench.kept():
        counts[span.trace_id] = counts.get(span.trace_id, 0) + 1
    assert set(counts.values()) == {5}
    assert failed <= set(counts)
    assert bench.balanced()


async def test_an_exporter_that_gives_up_does_not_end_the_decisions():
    """An exporter that waits for its backend may fail; the next traces are decided all the same."""
    bench = Bench(rules=RULES, decision_wait="10s")
    await bench.sut.start(FakeHost())
    failing = bench.sink.consume
    calls = []

    async def consume(batch):
        calls.append(batch)
        if len(calls) == 1:
            raise RetryableError("no", reason="connect")
        await failing(batch)

    bench.sink.consume = consume
    await bench.send({"trace_id": trace_id(1), "error": True})
    await bench.clock.advance(12)
    await bench.send({"trace_id": trace_id(2), "error": True})
    await bench.clock.advance(12)
    assert bench.kept_ids() == {trace_id(2)}
    await bench.sut.shutdown()


async def test_shutdown_waits_for_the_release_in_progress():
    """A release that is being passed on when the service stops is not cut off."""
    bench = Bench(rules=RULES, decision_wait="10s")
    await bench.sut.start(FakeHost())
    bench.sink.hang()
    await bench.send({"trace_id": trace_id(1), "error": True})
    await bench.clock.advance(12)
    ending = asyncio.ensure_future(bench.sut.shutdown())
    await asyncio.sleep(0)
    assert not ending.done()
    bench.sink.resume()
    await ending
    assert bench.kept_ids() == {trace_id(1)}
    assert bench.balanced()


async def test_spans_held_while_late_ones_are_passed_on_are_decided():
    """A decision that is made while late spans of a batch are passed on includes the other spans of the batch."""
    bench = Bench(rules=RULES, decision_wait="10s")
    await bench.sut.start(FakeHost())
    await bench.send({"trace_id": trace_id(1), "error": True}, {"trace_id": trace_id(2), "error": True})
    await bench.clock.advance(12)
    bench.sink.hang()
    sending = asyncio.ensure_future(bench.send({"trace_id": trace_id(1)}, {"trace_id": trace_id(3), "error": True}))
    await asyncio.sleep(0)
    assert bench.sut.held_items() == 1
    bench.sink.resume()
    await sending
    await bench.clock.advance(12)
    assert bench.kept_ids() == {trace_id(1), trace_id(2), trace_id(3)}
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_decision_cache_is_bounded():
    """Rule 14: old decisions are forgotten."""
    bench = Bench(rules=RULES, decision_wait="10s", decision_cache_size=10)
    await bench.sut.start(FakeHost())
    await bench.send(*({"trace_id": trace_id(number)} for number in range(100)))
    await bench.clock.advance(12)
    await asyncio.sleep(0)
    assert len(bench.sut._traces) <= 10
    await bench.sut.shutdown()


@pytest.mark.parametrize(
    "keys",
    [
        {"rules": []},
        {"rules": [{"name": "a", "ratio": 2}]},
        {"rules": [{"name": "a", "ratio": 1}, {"name": "b", "ratio": 1}]},
        {"rules": [{"name": "a", "ratio": 1, "any": {"status": "ok"}}]},
        {"rules": [{"name": "a", "ratio": 1, "any": {"http_status": "9xx"}}]},
        {"rules": [{"name": "a", "per": ["service.name"]}]},
        {"rules": [{"name": "a", "at_least": "1/min"}]},
        {"rules": [{"name": "a"}]},
        {"rules": [{"name": "a", "per": ["service.name"], "at_least": "0/min"}]},
        {"rules": [{"name": "a", "per": ["k"], "at_least": "often"}]},
        {"rules": [{"name": "a", "per": ["k"], "at_least": "1/min", "ratio": 1}]},
        {"rules": [{"name": "a", "per": ["k", "k"], "at_least": "1/s"}]},
        {"rules": [{"name": "a", "per": [""], "at_least": "1/min"}]},
        {"rules": [{"name": "a", "ratio": 1, "max_keys": 5}]},
        {"rules": [{"name": "a", "per": ["k"], "at_least": "1/min", "max_keys": 0}]},
        {"rules": [{"name": "none", "ratio": 1}]},
        {"rules": [{"name": "a", "root_duration": "1s", "ratio": 1}, {"name": "b", "root_duration": "2s", "ratio": 1}]},
        {
            "rules": [
                {"name": "a", "any": {"status": "error"}, "ratio": 1},
                {"name": "b", "any": {"status": "error"}, "ratio": 0},
            ]
        },
        {"upstream_ratio": {"a": 0}},
        {"upstream_ratio": {"a": 1.5}},
        {"upstream_ratio": {"": 0.5}},
        {"upstream_ratio": {"*" * 20: 0.5}},
        {"upstream_ratio": {"a*": 0.5, "ab": 0.1}},
        {"upstream_ratio": ["a"]},
        {"decision_wait": "0s"},
        {"decision_wait": "2h"},
        {"decision_cache_size": -1},
        {"max_bytes": -1},
        {"drop_spans": {"names": [""]}},
        {"drop_spans": {"routes": ["*a" * 9]}},
        {"logs": {"min_severity": "loud"}},
        {"logs": {"below_ratio": 2}},
        {"logs": {"unseen_ratio": -0.1}},
        {"logs": {"max_bytes": "many"}},
    ],
)
def test_contradictions_are_configuration_errors(keys):
    """Contradictory configurations are refused, neither accepted nor a crash."""
    with pytest.raises(ValueError, match=r"."):
        SamplingConfig.model_validate(keys)
