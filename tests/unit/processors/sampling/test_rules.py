"""Coverage, upstream ratios and adjusted counts, and all decisions against a slow reference over protobuf.

See docs/reference/sampling.md, rules 4 to 13.
"""

import math
import random
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, Traces
from collector.otlp.consistent_sampling import read_trace_state, threshold_digits, threshold_of
from collector.testing import FakeClock, FakeHost, Sink, make_settings
from processors.sampling import factory
from processors.sampling.config import SamplingConfig

SECOND = 1_000_000_000
WHOLE = 1 << 56


def request(spans):
    """A request with spans from dictionaries, which have ``service`` and ``attributes`` in addition to span fields."""
    made = ExportTraceServiceRequest()
    for span in spans:
        span = dict(span)
        resource = made.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = span.pop("service", "api")
        attributes, error, ms = span.pop("attributes", {}), span.pop("error", False), span.pop("ms", 1)
        one = resource.scope_spans.add().spans.add(
            **{"name": "s", "span_id": b"12345678", "start_time_unix_nano": SECOND, **span}
        )
        one.end_time_unix_nano = one.start_time_unix_nano + ms * 1_000_000
        one.status.code = 2 if error else 0
        for key, value in attributes.items():
            one.attributes.add(key=key).value.string_value = value
    return made.SerializeToString()


class Bench:
    def __init__(self, **keys):
        self.clock, self.sink, self.sent = FakeClock(), Sink(), 0
        self.settings = make_settings(
            factory, signals={Signal.TRACES}, clock=self.clock, outputs={Signal.TRACES: self.sink}
        )
        self.sut = factory.create(self.settings, SamplingConfig.model_validate(keys))

    async def send(self, spans):
        self.sent += len(spans)
        await self.sut.consume(Traces.from_wire(request(spans)))

    def kept(self):
        found = []
        for batch in self.sink.batches:
            for resource in ExportTraceServiceRequest.FromString(batch.wire).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def balanced(self):
        return (
            self.sent
            == len(self.kept()) + self.settings.telemetry.ledger.dropped_count(Signal.TRACES) + self.sut.held_items()
        )

    def decided(self, rule, decision):
        return self.settings.telemetry.metrics["tailrace_sampling_traces"].current().get((rule, decision), 0)


def ids(count, seed=1):
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


COVERAGE = {"name": "coverage", "per": ["service.name", "span.name"], "at_least": "2/min"}
NOTHING = {"name": "rest", "ratio": 0.0}


async def test_coverage_keeps_at_least_so_many_of_each_key_and_erases_th():
    """Rules 10 and 11: two traces of each service and root name per minute, although the last rule drops them."""
    bench = Bench(rules=[COVERAGE, NOTHING], decision_wait="1s")
    await bench.sut.start(FakeHost())
    names = ["a", "b", "c"]
    traces = ids(30)
    await bench.send(
        [
            {"trace_id": one, "name": names[i % 3], "service": "x" if i % 2 else "y", "trace_state": "v=1,ot=th:8"}
            for i, one in enumerate(traces)
        ]
    )
    await bench.clock.advance(2)
    kept = bench.kept()
    assert len(kept) == 2 * 6
    assert {span.trace_state for span in kept} == {"v=1"}
    await bench.send([{"trace_id": one, "name": "a", "service": "x"} for one in ids(5, seed=2)])
    await bench.clock.advance(2)
    assert len(bench.kept()) == 12  # the quota of this minute is used up
    await bench.clock.advance(60)
    await bench.send([{"trace_id": one, "name": "a", "service": "x"} for one in ids(5, seed=3)])
    await bench.clock.advance(2)
    assert len(bench.kept()) == 14
    assert bench.decided("coverage", "kept") == 14
    assert bench.balanced()
    await bench.sut.shutdown()


async def test_coverage_counts_what_the_rules_behind_keep_and_leaves_its_threshold():
    """Rules 10 and 11: traces that the last rule keeps count towards the quota and have its threshold."""
    bench = Bench(rules=[COVERAGE, {"name": "rest", "ratio": 0.5}])
    high, low = (
        [bytes(9) + b"\xff" * 6 + bytes([i]) for i in range(5)],
        [b"\x01" + bytes(14) + bytes([i]) for i in range(5)],
    )
    await bench.send([{"trace_id": one} for one in [*low, *high]])
    await bench.sut.shutdown()
    assert {span.trace_id for span in bench.kept()} == set(high)
    assert {span.trace_state for span in bench.kept()} == {"ot=th:8"}


async def test_the_key_is_the_roots_wherever_it_stands():
    """Rule 12: children that arrive first do not decide the key, and attributes of the resource count."""
    bench = Bench(rules=[{"name": "c", "per": ["span.name", "tenant", "service.name"], "at_least": "1/h"}, NOTHING])
    child = {"parent_span_id": b"87654321", "name": "child", "service": "db"}
    for one in ids(6):
        await bench.send([{**child, "trace_id": one, "attributes": {"tenant": one.hex()}}])
        await bench.send([{"trace_id": one, "name": "root", "attributes": {"tenant": "t"}}])
    await bench.sut.shutdown()
    assert len(bench.kept()) == 2


async def test_keys_are_bounded_and_the_excess_is_counted():
    """Rule 13: traces with a key beyond ``max_keys`` are left to the rules after it."""
    bench = Bench(rules=[{"name": "c", "per": ["span.name"], "at_least": "1/h", "max_keys": 10}, NOTHING])
    await bench.send([{"trace_id": one, "name": f"n{i}"} for i, one in enumerate(ids(100))])
    await bench.sut.shutdown()
    assert len(bench.kept()) == 10
    assert bench.settings.telemetry.metrics["tailrace_sampling_coverage_refused_traces"].current()[("c",)] == 90


def sdk_keeps(trace_id, ratio):
    """The decision of TraceIdRatioBased in the Python, Go and Java SDKs."""
    return int.from_bytes(trace_id[8:], "big") < ratio * 2**64


def with_th(trace_id, ratio):
    return int.from_bytes(trace_id[9:], "big") >= threshold_of(ratio)


@pytest.mark.parametrize("tail", [1.0, 0.3, 0.1, 0.02])
@pytest.mark.parametrize("head", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("how", ["th", "upstream_ratio", "another_sampler"])
async def test_adjusted_counts_are_unbiased_over_head_and_tail(how, head, tail):
    """Σ 2^56/(2^56 - th) over what is kept is the original number, within six standard deviations.

    ``th`` is at least that of the head sampler.
    """
    count, rng = 20_000, random.Random(f"{how}{head}{tail}")
    threshold = threshold_of(head)
    state = f"ot=th:{threshold_digits(threshold)}" if how == "th" and threshold else ""
    keeps = {"th": with_th, "upstream_ratio": sdk_keeps, "another_sampler": lambda one, ratio: one[0] < ratio * 256}[
        how
    ]
    sent = [one for one in (rng.randbytes(16) for _ in range(count)) if keeps(one, head)]
    bench = Bench(rules=[{"name": "rest", "ratio": tail}], upstream_ratio={} if how == "th" else {"ap?": head})
    for i in range(0, len(sent), 5000):
        await bench.send([{"trace_id": one, "trace_state": state} for one in sent[i : i + 5000]])
    await bench.sut.shutdown()
    adjusted = 0.0
    for span in bench.kept():
        th, rv, _ = read_trace_state(span.trace_state)
        randomness = int.from_bytes(span.trace_id[9:], "big") if rv is None else rv
        assert randomness >= (th or 0) >= threshold
        adjusted += WHOLE / (WHOLE - (th or 0))
    share = min(head, tail)
    bound = (
        6 * math.sqrt(count * (1 - share) / share)
        + 6 * math.sqrt(count * (1 / (head if how != "th" else 1) - 1))
        + 1e-9 * count
    )
    if how == "another_sampler":
        bound += count * 0.02  # 256 steps of its ratio
    assert abs(adjusted - count) <= bound
    assert bench.balanced()


async def test_upstream_ratio_leaves_spans_with_sampling_information_alone():
    """Rule 9: a span with ``th`` or ``rv``, or of a service that no glob matches, is taken at its word."""
    bench = Bench(rules=[{"name": "rest", "ratio": 1.0}], upstream_ratio={"prethrift-*": 0.25})
    low = [bytes(8) + bytes([i]) * 8 for i in range(1, 5)]
    await bench.send(
        [
            {"trace_id": low[0], "service": "prethrift-a", "trace_state": "ot=th:c"},
            {"trace_id": low[1], "service": "prethrift-a", "trace_state": "ot=rv:ffffffffffffff"},
            {"trace_id": low[2], "service": "other"},
            {"trace_id": low[3], "service": "prethrift-b", "trace_state": "v=1"},
            {"trace_id": low[3], "service": "other"},
        ]
    )
    await bench.sut.shutdown()
    states = sorted(span.trace_state for span in bench.kept())
    assert states == [
        "",
        "ot=rv:ffffffffffffff",
        "ot=th:c",
        "ot=th:c;rv:fbfbfbfbfbfbfb",
        "ot=th:c;rv:fbfbfbfbfbfbfb,v=1",
    ]


@pytest.mark.parametrize(
    ("state", "written"),
    [
        ("", "ot=th:8"),
        ("ot=th:c", "ot=th:c"),
        ("ot=th:4", "ot=th:8"),
        ("a=b,ot=rv:9b8233f7e3a151;th:4;x:1", "ot=th:8;rv:9b8233f7e3a151;x:1,a=b"),
        ("ot=th:nonsense", "ot=th:8"),
    ],
)
async def test_thresholds_of_the_specification_are_raised_and_never_lowered(state, written):
    """Rule 8, with the vectors of the specification: rv 9b8233f7e3a151 passes th 8."""
    bench = Bench(rules=[{"name": "rest", "ratio": 0.5}])
    await bench.send([{"trace_id": bytes(9) + b"\xff" * 7, "trace_state": state}])
    await bench.sut.shutdown()
    assert [span.trace_state for span in bench.kept()] == [written]


# The reference.

trace = st.integers(0, 11)
span = st.fixed_dictionaries(
    {
        "trace": trace,
        "root": st.booleans(),
        "error": st.booleans(),
        "ms": st.sampled_from([1, 1999, 2000, 5000]),
        "name": st.sampled_from(["a", "b", "GET http send"]),
        "service": st.sampled_from(["api", "db"]),
        "th": st.sampled_from(["", "", "8", "c"]),
    }
)
step = st.one_of(st.lists(span, min_size=1, max_size=6), st.sampled_from([1, 4, 9, 10]))


def reference(steps, rule_configs, traces, wait_s):
    """The kept (trace, place) pairs, by a plain loop that looks for due traces once per second, as for a 10 s wait."""
    now, spans, firsts, decisions, kept = 0.0, {}, {}, {}, []

    def decide(number):
        for rule in rule_configs:
            whole = spans[number]
            if "any" in rule:
                matches = any(one["error"] for one in whole)
            elif "root_duration" in rule:
                matches = any(one["root"] and one["ms"] >= 2000 for one in whole)
            else:
                matches = True
            if matches:
                return int.from_bytes(traces[number][9:], "big") >= threshold_of(rule["ratio"])
        return False

    def settle(number):
        decisions[number] = decide(number)
        if decisions[number]:
            kept.extend((number, one["place"]) for one in spans[number])
        del spans[number], firsts[number]

    place = 0
    for one_step in steps:
        if isinstance(one_step, int):
            for _ in range(one_step):
                now += 1
                for number in [number for number in spans if firsts[number] <= now - wait_s]:
                    settle(number)
            continue
        for one in one_step:
            place += 1
            if fnmatchcase(one["name"], "* http send"):
                continue
            number = one["trace"]
            if number in decisions:
                if decisions[number]:
                    kept.append((number, place))
                continue
            spans.setdefault(number, []).append({**one, "place": place})
            firsts.setdefault(number, now)
    for number in list(spans):
        settle(number)
    return kept


@settings(max_examples=60)
@given(steps=st.lists(step, max_size=12), ratio=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 9))
async def test_decisions_agree_with_a_slow_reference(steps, ratio, seed):
    """Which spans leave and in which order, that ``th`` is never lowered, and the accounting after every step."""
    rules = [
        {"name": "errors", "any": {"status": "error"}, "ratio": 1.0},
        {"name": "slow", "root_duration": "2s", "ratio": 0.5},
        {"name": "rest", "ratio": ratio},
    ]
    traces = ids(12, seed)
    bench = Bench(rules=rules, decision_wait="10s", drop_spans={"names": ["* http send"]})
    await bench.sut.start(FakeHost())
    place, states = 0, {}
    for one_step in steps:
        if isinstance(one_step, int):
            for _ in range(one_step):
                await bench.clock.advance(1)
        else:
            made = []
            for one in one_step:
                place += 1
                states[place] = one["th"]
                made.append(
                    {
                        "trace_id": traces[one["trace"]],
                        "span_id": place.to_bytes(8, "big"),
                        "parent_span_id": b"" if one["root"] else b"parentid",
                        "trace_state": f"ot=th:{one['th']}" if one["th"] else "",
                        **{key: one[key] for key in ("error", "ms", "name", "service")},
                    }
                )
            await bench.send(made)
        assert bench.balanced()
    await bench.sut.shutdown()
    kept = [(traces.index(one.trace_id), int.from_bytes(one.span_id, "big")) for one in bench.kept()]
    wanted = reference(steps, rules, traces, 10.0)
    assert sorted(kept) == sorted(wanted)
    for number in range(12):
        assert [one for one in kept if one[0] == number] == [one for one in wanted if one[0] == number]
    for one in bench.kept():
        before = states[int.from_bytes(one.span_id, "big")]
        assert (read_trace_state(one.trace_state).threshold or 0) >= (int(before.ljust(14, "0"), 16) if before else 0)
    assert bench.balanced()
