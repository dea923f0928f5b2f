"""Every policy against a slow reference that walks over the spans of a trace, and rules that a walk would not show."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, Traces
from collector.testing import FakeClock, Sink, make_settings
from processors.tail_sampling import factory
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.limits import SecondCounter, TokenBucket
from processors.tail_sampling.policies import hash_threshold
from processors.tail_sampling.span_features import fnv1a_64, trace_state_value

MS = 1_000_000
TEXTS = ["", "a", "b", "abc", "über", "x" * 2000]
STATES = ["", "k=a", "k=b,other=1", "other=1", "K=a", "k=a,k=a", " k=a ,b@sys=1", "k=a,,b=2", "k", "k=a="]


def value(pick, target):
    kind = pick(["int", "text", "bool", "double", "none", "empty"])
    if kind == "int":
        target.int_value = pick([-5, 0, 3, 50, 100, 2**62])
    elif kind == "text":
        target.string_value = pick(TEXTS)
    elif kind == "bool":
        target.bool_value = pick([True, False])
    elif kind == "double":
        target.double_value = pick([0.0, 60.5])
    return kind != "none"


def request(rng, trace_count, span_count):
    """A request with spans of several traces under several resources, in random order."""
    made = ExportTraceServiceRequest()
    for _ in range(rng.randint(1, 3)):
        resource = made.resource_spans.add()
        for key in ("k", "service.name"):
            one = resource.resource.attributes.add(key=key)
            if rng.random() < 0.6 or not value(rng.choice, one.value):
                resource.resource.attributes.pop()
        for _ in range(rng.randint(1, 2)):
            scope = resource.scope_spans.add()
            scope.scope.name = rng.choice(["", "lib"])
            for _ in range(rng.randint(0, span_count)):
                span = scope.spans.add(name="s", span_id=b"12345678")
                span.trace_id = random.Random(rng.randrange(trace_count)).randbytes(16)
                span.start_time_unix_nano = rng.choice([1, 10**18, 10**18 + 500 * MS, 10**18 + 999_999])
                span.end_time_unix_nano = span.start_time_unix_nano + rng.choice(
                    [0, 1, 100 * MS, 700 * MS, -50 * MS if span.start_time_unix_nano > 1 else 0]
                )
                span.status.code = rng.choice([0, 0, 0, 1, 2])
                span.flags = rng.choice([0, 0, 1, 256, 257])
                span.trace_state = rng.choice(STATES)
                for key in ("k", "n"):
                    if rng.random() < 0.5 and not value(rng.choice, span.attributes.add(key=key).value):
                        span.attributes.pop()
    return made


# The reference: a trace is a list of (resource, span), in order of arrival.


def attribute(owner, key):
    return next((each.value for each in owner.attributes if each.key == key), None)


def any_value(trace, key, matches):
    """As in the Collector: each resource, then its spans; a value of another kind counts as empty."""
    return any(
        (found := attribute(owner, key)) is not None and matches(found, is_span)
        for resource, span in trace
        for owner, is_span in ((resource, False), (span, True))
    )


def lasted_ms(trace):
    start, end = min(span.start_time_unix_nano for _, span in trace), max(span.end_time_unix_nano for _, span in trace)
    return int((end - start) / MS) if abs(end - start) < 2**52 else (end - start) // MS


def go_fnv(trace_id, salt):
    state = 0xCBF29CE484222325
    for byte in salt + trace_id:
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return state


def w3c_value(text, key):
    members = {}
    for part in filter(None, text.split(",")):
        name, equals, content = part.partition("=")
        name, content = name.lstrip(" \t"), content.rstrip(" \t")
        if (
            not equals
            or not re.fullmatch(r"[a-z][a-z0-9_*/-]*|[a-z0-9][a-z0-9_*/-]*@[a-z][a-z0-9_*/-]*", name)
            or not content
            or set(content) & set(",=")
            or not all(" " <= c <= "~" for c in content)
            or name in members
        ):
            return ""
        members[name] = content
    return members.get(key, "")


REFERENCE = {
    "always_sample": lambda trace, c: True,
    "latency": lambda trace, c: (
        c["threshold_ms"] < lasted_ms(trace) <= c["upper_threshold_ms"]
        if c.get("upper_threshold_ms")
        else lasted_ms(trace) >= c["threshold_ms"]
    ),
    "numeric_attribute": lambda trace, c: (
        c.get("invert_match", False)
        != any_value(
            trace,
            c["key"],
            lambda v, _: (c.get("min_value") or -(2**63)) <= v.int_value <= (c.get("max_value") or 2**63),
        )
    ),
    "boolean_attribute": lambda trace, c: (
        c.get("invert_match", False) != any_value(trace, c["key"], lambda v, _: v.bool_value == c["value"])
    ),
    "string_attribute": lambda trace, c: (
        c.get("invert_match", False)
        != any_value(
            trace,
            c["key"],
            lambda v, is_span: (
                any(re.search(p, v.string_value) for p in c["values"]) and not (is_span and not v.string_value)
                if c.get("enabled_regex_matching")
                else bool(v.string_value) and v.string_value in c["values"]
            ),
        )
    ),
    "status_code": lambda trace, c: any(
        ["UNSET", "OK", "ERROR"][span.status.code] in c["status_codes"] for _, span in trace
    ),
    "trace_flags": lambda trace, c: any(span.flags & 1 for _, span in trace),
    "trace_state": lambda trace, c: any(
        w3c_value(span.trace_state, c["key"]) in [v for v in c["values"] if v] for _, span in trace
    ),
    "span_count": lambda trace, c: (
        c["min_spans"] <= len(trace) and (not c.get("max_spans") or len(trace) <= c["max_spans"])
    ),
    "probabilistic": lambda trace, c: (
        go_fnv(trace[0][1].trace_id, c.get("hash_salt", "default-hash-seed").encode())
        <= (2**64 - 1) * c["sampling_percentage"] / 100
    ),
}

SIMPLE = st.one_of(
    st.just(("always_sample", {})),
    st.just(("trace_flags", {})),
    st.tuples(
        st.just("latency"),
        st.sampled_from(
            [{"threshold_ms": t} for t in (0, 1, 100, 500, 900)] + [{"threshold_ms": 99, "upper_threshold_ms": 700}]
        ),
    ),
    st.tuples(
        st.just("numeric_attribute"),
        st.fixed_dictionaries(
            {"key": st.sampled_from(["k", "n", "absent"])},
            optional={"max_value": st.sampled_from([3, 99, 2**62]), "invert_match": st.booleans()},
        ).flatmap(lambda c: st.just(c) if "max_value" in c else st.just({**c, "min_value": 50})),
    ),
    st.tuples(
        st.just("boolean_attribute"),
        st.fixed_dictionaries(
            {"key": st.sampled_from(["k", "n"]), "value": st.booleans(), "invert_match": st.booleans()}
        ),
    ),
    st.tuples(
        st.just("string_attribute"),
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(["k", "service.name"]),
                "values": st.lists(st.sampled_from([*TEXTS, "^a", "b.*", "$"]), min_size=1),
                "enabled_regex_matching": st.booleans(),
                "invert_match": st.booleans(),
                "cache_max_size": st.sampled_from([0, 1]),
            }
        ),
    ),
    st.tuples(
        st.just("status_code"),
        st.fixed_dictionaries({"status_codes": st.lists(st.sampled_from(["OK", "ERROR", "UNSET"]), min_size=1)}),
    ),
    st.tuples(
        st.just("trace_state"),
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(["k", "b@sys"]),
                "values": st.lists(st.sampled_from(["a", "b", "1", ""]), min_size=1),
            }
        ),
    ),
    st.tuples(
        st.just("span_count"), st.sampled_from([{"min_spans": 2}, {"min_spans": 2, "max_spans": 4}, {"min_spans": 0}])
    ),
    st.tuples(
        st.just("probabilistic"),
        st.fixed_dictionaries(
            {"sampling_percentage": st.sampled_from([0, 10, 33.3, 50, 99.9, 100, 250])},
            optional={"hash_salt": st.sampled_from(["s", "ü"])},
        ),
    ),
)


def answer(policy, trace):
    """The reference's answer: sampled, not_sampled or dropped."""
    kind, content = policy
    if kind in REFERENCE:
        return "sampled" if REFERENCE[kind](trace, content) else "not_sampled"
    inner = [answer(each, trace) for each in content]
    if kind == "not":
        return "not_sampled" if inner == ["sampled"] else "sampled"
    all_sample = all(each == "sampled" for each in inner)
    return ("dropped" if kind == "drop" else "sampled") if all_sample else "not_sampled"


def written(policy, name):
    kind, content = policy
    if kind in REFERENCE:
        return {"name": name, "type": kind, **({kind: content} if content else {})}
    inner = [written(each, f"{name}.{place}") for place, each in enumerate(content)]
    key = f"{kind}_sub_policy"
    return {"name": name, "type": kind, kind: {key: inner[0] if kind == "not" else inner}}


NOT = st.tuples(st.just("not"), st.tuples(SIMPLE))
INNER = st.lists(st.one_of(SIMPLE, NOT), min_size=1, max_size=3)
POLICY = st.one_of(SIMPLE, SIMPLE, NOT, st.tuples(st.just("and"), INNER), st.tuples(st.just("drop"), INNER))


def kept_by(policies, requests, **keys):
    """The trace ids the processor keeps of some requests."""
    sink = Sink()
    config = TailSamplingConfig.model_validate({"policies": policies, **keys})
    made = make_settings(factory, signals={Signal.TRACES}, clock=FakeClock(), outputs={Signal.TRACES: sink})
    sut = factory.create(made, config)

    async def run():
        for each in requests:
            if (batch := Traces.check(each.SerializeToString()).batch) is not None:
                await sut.consume(batch)
        await sut.shutdown()

    import asyncio

    asyncio.run(run())
    found = set()
    for batch in sink.batches:
        for resource in ExportTraceServiceRequest.FromString(batch.wire).resource_spans:
            found |= {span.trace_id for scope in resource.scope_spans for span in scope.spans}
    return found, made.telemetry


def traces_of(requests):
    found = {}
    for made in requests:
        for resource in made.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.setdefault(span.trace_id, []).append((resource.resource, span))
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(POLICY, min_size=1, max_size=4))
def test_policies_agree_with_a_walk_over_the_spans(seed, policies):
    """Alone, negated, combined and together: dropped takes precedence over sampled."""
    rng = random.Random(seed)
    requests = [request(rng, 6, 5) for _ in range(rng.randint(1, 3))]
    expected = set()
    for trace_id, trace in traces_of(requests).items():
        answers = [answer(policy, trace) for policy in policies]
        if "dropped" not in answers and "sampled" in answers:
            expected.add(trace_id)
    found, _ = kept_by([written(policy, f"p{place}") for place, policy in enumerate(policies)], requests)
    assert found == expected


def spans(*trace_ids, **fields):
    made = ExportTraceServiceRequest()
    target = made.resource_spans.add().scope_spans.add().spans
    for number in trace_ids:
        target.add(name="s", trace_id=number.to_bytes(16, "big"), span_id=b"12345678", **fields)
    return made


def numbers(found):
    return sorted(int.from_bytes(each, "big") for each in found)


def with_events(number, *events, **fields):
    made = spans(number, **fields)
    for name in events:
        made.resource_spans[0].scope_spans[0].spans[0].events.add(name=name)
    return made


FIRST_FOUR = 'Substring(name, 0, 4) == "abcd"'  # cannot be evaluated on a shorter name


def named(number, *names):
    made = spans(*[number] * len(names))
    for one, name in zip(made.resource_spans[0].scope_spans[0].spans, names, strict=True):
        one.name = name
    return made


def ottl(error_mode=None, **conditions):
    return {
        "name": "o",
        "type": "ottl_condition",
        "ottl_condition": {**({"error_mode": error_mode} if error_mode else {}), **conditions},
    }


def test_ottl_conditions_hold_for_any_span_or_span_event():
    """Any condition of either list suffices."""
    requests = [
        with_events(1, "log", "exception"),
        with_events(2, "log"),
        with_events(3),
        named(4, "GET /"),
        named(5, "x", "GET /v1"),
    ]
    found, _ = kept_by(
        [ottl(span=['name == "GET /"', 'IsMatch(span.name, "/v1$")'], spanevent=['name == "exception"'])], requests
    )
    assert numbers(found) == [1, 4, 5]


@pytest.mark.parametrize(
    ("error_mode", "expected", "errors"),
    [(None, [1, 2, 5], 0), ("silent", [1, 2, 5], 0), ("ignore", [1, 2, 5], 0), ("PROPAGATE", [1, 5], 2)],
)
def test_ottl_error_modes(error_mode, expected, errors):
    """With ``propagate`` the first span that matches or fails decides. In other modes a failure does not match."""
    requests = [
        named(1, "abcd", "ab"),
        named(2, "ab"),
        named(2, "abcd"),
        named(3, "x"),
        named(5, "xxxx"),
        named(5, "abcdef", "x"),
    ]
    found, telemetry = kept_by([ottl(error_mode, span=[FIRST_FOUR])], requests)
    assert numbers(found) == expected
    assert telemetry.value("otelcol_processor_tail_sampling_sampling_policy_evaluation_error") == errors
    warned = [event for event in telemetry.log.events if event.level == "warning"]
    assert len(warned) == (1 if error_mode == "ignore" else 0)


def test_an_ottl_failure_fails_the_policies_around_it():
    """``and``, ``not`` and ``drop`` with a policy that fails do not decide; another policy may still sample."""
    requests = [named(1, "ab"), named(2, "abcd"), named(3, "zzzz")]
    failing = ottl("propagate", span=[FIRST_FOUR])
    for kind, inner, expected in (("not", failing, [3]), ("and", [failing], [2]), ("drop", [failing], [])):
        found, _ = kept_by([{"name": "g", "type": kind, kind: {f"{kind}_sub_policy": inner}}], requests)
        assert numbers(found) == expected, kind
    drop = {"name": "g", "type": "drop", "drop": {"drop_sub_policy": [failing]}}
    found, telemetry = kept_by([{"name": "a", "type": "always_sample"}, drop], requests)
    assert numbers(found) == [1, 3]
    assert telemetry.value("otelcol_processor_tail_sampling_sampling_policy_evaluation_error") == 1
    assert telemetry.value("otelcol_processor_tail_sampling_count_traces_sampled", policy="g") == 2


def test_conditions_on_a_span_take_precedence_over_those_on_its_events():
    """An event that fails does not matter if its span matches."""
    event = 'Substring(name, 0, 4) == "abcd"'
    requests = [with_events(1, "ab"), with_events(2, "abcd", "ab"), with_events(3, "ab", "abcd")]
    found, _ = kept_by(
        [ottl("propagate", span=['trace_id.string == "00000000000000000000000000000001"'], spanevent=[event])], requests
    )
    assert numbers(found) == [1, 2]


def test_latency_is_that_of_the_whole_trace_and_never_overflows():
    """Also with hostile times: as in Go, the difference is cut to the limits of int64."""

    def trace(number, *times):
        made = spans(*[number] * len(times))
        for one, (start, end) in zip(made.resource_spans[0].scope_spans[0].spans, times, strict=True):
            one.start_time_unix_nano, one.end_time_unix_nano = start, end
        return made

    requests = [
        trace(1, (10 * MS, 20 * MS), (400 * MS, 2000 * MS)),
        trace(2, (0, 2**64 - 1)),
        trace(3, (2**63, 2**63 - 1)),
        trace(4, (MS, MS + 500 * MS)),
        trace(5, (2 * MS, MS)),
    ]
    band = {"name": "b", "type": "latency", "latency": {"threshold_ms": 100, "upper_threshold_ms": 1000}}
    assert numbers(kept_by([band], requests)[0]) == [4]
    assert numbers(kept_by([{"name": "s", "type": "latency", "latency": {"threshold_ms": 100}}], requests)[0]) == [
        1,
        3,
        4,
    ]
    assert numbers(kept_by([{"name": "s", "type": "latency", "latency": {"threshold_ms": 0}}], requests)[0]) == [
        1,
        2,
        3,
        4,
    ]


def test_rate_limiting_takes_traces_in_order_while_tokens_last():
    """After a trace with too many spans for the tokens a smaller one passes; one above the burst never does."""
    limited = {"name": "l", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 1, "burst_capacity": 5}}
    found, _ = kept_by([limited], [spans(1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4, 5, 6)])
    assert numbers(found) == [1, 3, 5]


def test_limits_take_tokens_only_for_traces_they_evaluate():
    """Not after a policy of an ``and`` that rejects the trace, nor after a match with ``sample_on_first_match``."""
    limited = {"name": "l", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 1, "burst_capacity": 2}}
    ok = {"name": "o", "type": "status_code", "status_code": {"status_codes": ["OK"]}}
    good, bad = spans(4, 5, 6), spans(1, 2, 3)
    for one in good.resource_spans[0].scope_spans[0].spans:
        one.status.code = 1
    found, _ = kept_by([{"name": "a", "type": "and", "and": {"and_sub_policy": [ok, limited]}}], [bad, good])
    assert numbers(found) == [4, 5]
    found, _ = kept_by([ok, limited], [good, bad], sample_on_first_match=True)
    assert numbers(found) == [1, 2, 4, 5, 6]
    found, _ = kept_by([ok, limited], [good, bad])
    assert numbers(found) == [4, 5, 6]


def test_bytes_limiting_counts_each_trace_as_a_request_of_its_own():
    """Sizes are exact, and include resource and scope once per part."""
    made = spans(1, 2)
    made.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = "x" * 200
    made.resource_spans[0].scope_spans[0].scope.name = "library"
    alone = ExportTraceServiceRequest()
    alone.CopyFrom(made)
    del alone.resource_spans[0].scope_spans[0].spans[1:]
    size = alone.ByteSize()
    for burst, expected in ((size - 1, []), (size, [1]), (2 * size - 1, [1]), (2 * size, [1, 2])):
        limited = {
            "name": "l",
            "type": "bytes_limiting",
            "bytes_limiting": {"bytes_per_second": 1, "burst_capacity": burst},
        }
        found, _ = kept_by([limited], [made])
        assert numbers(found) == expected, burst


def composite(order, allocation, total=100, kinds=None):
    return {
        "name": "c",
        "type": "composite",
        "composite": {
            "max_total_spans_per_second": total,
            "policy_order": [name for name, _ in order],
            "composite_sub_policy": [{"name": name, **policy} for name, policy in order],
            "rate_allocation": [{"policy": name, "percent": percent} for name, percent in allocation.items()],
        },
    }


ERRORS = {"type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
ALL = {"type": "always_sample"}


def test_composite_gives_each_policy_its_share_of_the_second():
    """The first policy that samples a trace claims it; beyond its share the trace is not sampled by any policy."""
    bad, good = spans(*range(1, 9)), spans(*range(11, 19))
    for one in bad.resource_spans[0].scope_spans[0].spans:
        one.status.code = 2
    found, _ = kept_by(
        [composite([("errors", ERRORS), ("rest", ALL)], {"errors": 30, "rest": 50}, total=10)], [bad, good]
    )
    assert numbers(found) == [1, 2, 3, 11, 12, 13, 14, 15]
    found, _ = kept_by(
        [composite([("errors", ERRORS), ("rest", ALL)], {"errors": 0, "rest": 0}, total=10)], [bad, good]
    )
    assert numbers(found) == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]
    found, _ = kept_by([composite([("errors", ERRORS), ("rest", ALL)], {"errors": 50}, total=10)], [bad, good])
    assert numbers(found) == [1, 2, 3, 4, 5]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 50),
    st.integers(0, 60),
    st.lists(st.tuples(st.floats(0, 3), st.lists(st.integers(0, 30), max_size=12)), max_size=6),
)
def test_the_token_bucket_is_gos(rate, burst, rounds):
    """Against a reimplementation of golang.org/x/time/rate, size by size."""
    sut, tokens, last, now = TokenBucket(rate, burst), float(burst), None, 0.0
    for passed, sizes in rounds:
        now += passed
        expected = []
        for size in sizes:
            available = tokens if last is None else min(float(burst), tokens + (now - last) * rate)
            left = available - size
            wait = 0 if left >= 0 else (int(-left / rate * 1e9) if rate else 1)
            passes = size <= burst and wait == 0
            expected.append(passes)
            if passes:
                tokens, last = left, now
        assert sut.allow(np.array(sizes, np.int64), now).tolist() == expected


@given(
    st.integers(0, 30), st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 20), max_size=10)), max_size=6)
)
def test_the_second_counter_starts_again_each_second(limit, rounds):
    """Against a plain reference, size by size."""
    sut, second, used = SecondCounter(limit), 0, 0
    for passed, sizes in rounds:
        if passed:
            second, used = second + passed, 0
        expected = []
        for size in sizes:
            expected.append(used + size <= limit)
            used += size if expected[-1] else 0
        assert sut.allow(np.array(sizes, np.int64), second).tolist() == expected


def test_hash_and_threshold_are_gos():
    """The values of Go's hash/fnv and math/big."""
    assert fnv1a_64(np.zeros((0, 2), np.uint64), b"").tolist() == []
    ids = np.array([[int.from_bytes(b"foobarfo", "big"), int.from_bytes(b"obarfoob", "big")]], np.uint64)
    assert fnv1a_64(ids, b"salt").tolist() == [go_fnv(b"foobarfoobarfoob", b"salt")]
    assert [hash_threshold(ratio) for ratio in (0.0, -1.0, 1.0, 2.5)] == [0, 0, 2**64 - 1, 2**64 - 1]
    assert hash_threshold(0.5) == 2**63 - 1
    assert hash_threshold(0.1) == 1844674407370955263


@given(st.one_of(st.sampled_from(STATES), st.text("ak1=, \t@b*", max_size=30), st.text(max_size=10)))
def test_trace_states_follow_the_w3c_rules(text):
    """If a rule is violated anywhere, the trace state has no members."""
    assert trace_state_value(text, "k") == w3c_value(text, "k")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=v", "v"),
        ("k=v ", "v"),
        ("\tk=v", "v"),
        ("k=", ""),
        ("k=v,K=1", ""),
        ("k=v;x", "v;x"),
        ("k=ü", ""),
        ("k=v\n", ""),
        ("k=a\tb", ""),
        (",".join(f"k{n}=1" for n in range(33)) + ",k=v", ""),
        ("k=" + "v" * 257, ""),
    ],
)
def test_trace_state_edges(text, expected):
    """White space, upper case, lengths and counts."""
    assert trace_state_value(text, "k") == expected
