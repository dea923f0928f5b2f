"""``probabilistic_sampler`` against a slow reference that decides one message at a time."""

import random

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from collector.model import Logs, Signal, Traces
from collector.otlp.consistent_sampling import read_trace_state, threshold_digits, threshold_with_precision
from collector.testing import RecordingTelemetry, check_component, make_settings
from processors.probabilistic_sampler import factory
from processors.probabilistic_sampler.config import ProbabilisticSamplerConfig

WHOLE = 1 << 56


def make(signal=Signal.TRACES, telemetry=None, **config):
    settings = make_settings(factory, signals={signal}, **({"telemetry": telemetry} if telemetry else {}))
    return factory.create(settings, ProbabilisticSamplerConfig.model_validate(config))


def fnv(data, seed):
    state = 0x811C9DC5
    for byte in seed.to_bytes(4, "little") + data:
        state = ((state ^ byte) * 0x01000193) % 2**32
    return state


def hashed_randomness(data, seed):
    hashed = fnv(data, seed)
    bucket = hashed & 0x3FFF
    unused = hashed >> 18
    return ((0x3FFF - bucket) << 42) | ((unused ^ (unused << 10)) << 14) | bucket


def spans(count, seed, states=("",), priorities=(None,)):
    rng = random.Random(seed)
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for number in range(count):
        span = scope.spans.add(
            name=str(number), trace_id=rng.randbytes(16), span_id=rng.randbytes(8), trace_state=rng.choice(states)
        )
        if (priority := rng.choice(priorities)) is not None:
            value = span.attributes.add(key="sampling.priority").value
            setattr(value, {int: "int_value", float: "double_value", str: "string_value"}[type(priority)], priority)
    return message


def records(count, seed, attributes=({},), with_ids=(True,)):
    rng = random.Random(seed)
    message = ExportLogsServiceRequest()
    scope = message.resource_logs.add().scope_logs.add()
    for number in range(count):
        record = scope.log_records.add(
            time_unix_nano=number + 1, trace_id=rng.randbytes(16) if rng.choice(with_ids) else b""
        )
        for key, value in rng.choice(attributes).items():
            field = {int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}[type(value)]
            setattr(record.attributes.add(key=key).value, field, value)
    return message


def run_spans(processor, message):
    out = processor.transform(Traces.from_wire(message.SerializeToString()))
    parsed = ExportTraceServiceRequest.FromString(out.wire if out else b"")
    return {
        span.name: read_trace_state(span.trace_state)[:2]
        for resource in parsed.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def run_records(processor, message):
    out = processor.transform(Logs.from_wire(message.SerializeToString()))
    parsed = ExportLogsServiceRequest.FromString(out.wire if out else b"")
    found = {}
    for resource in parsed.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                values = {pair.key: pair.value.string_value for pair in record.attributes}
                found[record.time_unix_nano - 1] = (values.get("sampling.threshold"), values.get("sampling.randomness"))
    return found


def input_spans(message):
    return message.resource_spans[0].scope_spans[0].spans


def input_records(message):
    return message.resource_logs[0].scope_logs[0].log_records


async def test_factory_keeps_the_contract():
    """Life cycle and README examples."""
    await check_component(factory)


@pytest.mark.parametrize("percentage", [0, 0.5, 10, 33.3, 100, 250])
@pytest.mark.parametrize("seed", [0, 22, 2**32 - 1])
def test_hash_seed_decides_as_the_reference(percentage, seed):
    """A hash below the accepted share of 16384 buckets is kept; threshold and randomness that fit it are written."""
    message = spans(500, 1)
    accepted = int(min(percentage, 100) * 163.84 + 1e-9)
    wanted = {
        span.name: (WHOLE - (accepted << 42), hashed_randomness(span.trace_id, seed))
        for span in input_spans(message)
        if fnv(span.trace_id, seed) & 0x3FFF < accepted
    }
    assert run_spans(make(sampling_percentage=percentage, hash_seed=seed), message) == wanted
    assert all(value >= threshold for threshold, value in wanted.values())


def test_fnv_is_the_published_one():
    """The vectors of the FNV draft, for trace ids and for values."""
    from processors.probabilistic_sampler import fnv as module

    values = [b"", b"a", b"foobar", b"x" * 1000, *(bytes([i]) * (i % 37) for i in range(200))]
    assert module.hash_values(values, 7).tolist() == [fnv(value, 7) for value in values]
    assert fnv(b"", 7) == module._seeded(7)


STATES = (
    "",
    "vendor=1",
    "ot=th:8",
    "ot=th:c;rv:ffffffffffffff,vendor=1",
    "ot=rv:00000000000001",
    "ot=rv:f0000000000000;th:f",
    "ot=th:xyz",
    "ot=rv:12",
    "vendor=2,ot=x:y;th:0",
)


@pytest.mark.parametrize("mode", ["equalizing", "proportional", "hash_seed"])
@pytest.mark.parametrize("fail_closed", [True, False])
def test_trace_states_and_priorities(mode, fail_closed):
    """Thresholds, randomness, priorities and malformed values mixed, one span at a time."""
    message = spans(2000, 2, STATES, (None, None, None, 0, 1, -1, 0.0, 2.5, "0", "1.5", "high"))
    wanted = {}
    for span in input_spans(message):
        came, explicit, is_valid = read_trace_state(span.trace_state)
        own = int.from_bytes(span.trace_id[9:], "big")
        value = hashed_randomness(span.trace_id, 0) if mode == "hash_seed" else own if explicit is None else explicit
        unknown = False
        if mode == "hash_seed":
            usable = is_valid and came is None and explicit is None
            threshold = (16384 - 4096) << 42
        else:
            unknown = is_valid and came is not None and came > value
            usable = is_valid and not unknown
            ratio = 0.25 * ((WHOLE - (came or 0)) / WHOLE if mode == "proportional" else 1.0)
            threshold = threshold_with_precision(ratio, 4)
        if not usable:
            threshold = WHOLE if fail_closed else 0
        for pair in span.attributes:
            priority = pair.value.int_value if pair.value.HasField("int_value") else pair.value.double_value
            if pair.value.HasField("string_value"):
                priority = {"0": 0, "1.5": 1.5, "high": -1}[pair.value.string_value]
            threshold = WHOLE if priority == 0 else 0 if priority > 0 else threshold
        if value < threshold:
            continue
        if is_valid:
            written = value if mode == "hash_seed" and usable else explicit
            wanted[span.name] = (None if unknown else max(threshold, came or 0), written)
        else:
            wanted[span.name] = (came, explicit)
    assert run_spans(make(sampling_percentage=25, mode=mode, fail_closed=fail_closed), message) == wanted
    assert wanted


def test_other_members_of_a_trace_state_stay():
    """The processor changes only the member ``ot``."""
    message = spans(50, 3, ("vendor=2,ot=x:y;th:0,b=c",))
    out = make(sampling_percentage=100, mode="equalizing").transform(Traces.from_wire(message.SerializeToString()))
    assert set(out.field("trace_state").to_list()) == {"vendor=2,ot=x:y;th:0,b=c"}
    out = make(sampling_percentage=50, mode="equalizing").transform(Traces.from_wire(message.SerializeToString()))
    assert set(out.field("trace_state").to_list()) == {"ot=th:8;x:y,vendor=2,b=c"}


@pytest.mark.parametrize("mode", ["hash_seed", "equalizing", "proportional"])
@pytest.mark.parametrize("percentage", [2, 30])
def test_adjusted_counts_are_unbiased(mode, percentage):
    """The sum of adjusted counts is the number of spans, within five standard deviations."""
    count = 20_000
    rates = 1.0
    message = spans(count, 4)
    if mode != "hash_seed":  # half of them were sampled at 50 % before and stand for two
        rates = 1.5
        for number, span in enumerate(input_spans(message)):
            if number % 2 and span.trace_id[9] >= 128:
                span.trace_state = "ot=th:8"
        kept_before = [span for number, span in enumerate(input_spans(message)) if number % 2 == 0 or span.trace_state]
        smaller = ExportTraceServiceRequest()
        smaller.resource_spans.add().scope_spans.add().spans.extend(kept_before)
        message = smaller
    kept = run_spans(make(sampling_percentage=percentage, mode=mode), message)
    estimate = sum(WHOLE / (WHOLE - threshold) for threshold, _ in kept.values())
    probability = percentage / 100
    deviation = (count * rates * 2 * (1 - probability) / probability) ** 0.5 + (count / 2) ** 0.5
    assert abs(estimate - count) < 5 * deviation
    assert kept


def test_records_hash_seed_and_attributes():
    """The trace id is hashed, or the attribute if there is none, of whatever kind."""
    attributes = (
        {},
        {"id": "abc"},
        {"id": "abd"},
        {"id": 17},
        {"id": 2.5},
        {"id": b"\xff\x00raw"},
        {"id": "/wByYXc="},
        {"id": ""},
    )
    message = records(1500, 5, attributes, (True, False))
    wanted = {}
    for number, record in enumerate(input_records(message)):
        data = record.trace_id
        if not data:
            if not record.attributes:
                continue
            value = record.attributes[0].value
            data = {
                "string_value": value.string_value.encode(),
                "int_value": b"17",
                "double_value": b"2.5",
                "bytes_value": value.bytes_value,
            }[value.WhichOneof("value")]
        drawn = hashed_randomness(data, 9)
        if drawn >= 8192 << 42:
            wanted[number] = ("8", f"{drawn:014x}")
    assert run_records(make(Signal.LOGS, sampling_percentage=50, hash_seed=9, from_attribute="id"), message) == wanted


def test_records_without_randomness():
    """Dropped by default, kept with ``fail_closed: false`` or because of the priority they request."""
    message = records(100, 6, ({"priority": 100, "kind": "error"},), (False,))
    assert run_records(make(Signal.LOGS, sampling_percentage=100), message) == {}
    assert len(run_records(make(Signal.LOGS, sampling_percentage=1, fail_closed=False), message)) == 100
    assert len(run_records(make(Signal.LOGS, sampling_percentage=1, sampling_priority="priority"), message)) == 100


@pytest.mark.parametrize("mode", ["equalizing", "proportional"])
@pytest.mark.parametrize("fail_closed", [True, False])
def test_records_with_thresholds_of_their_own(mode, fail_closed):
    """Thresholds are read from and written to the attributes; priorities replace the share."""
    attributes = (
        {},
        {"sampling.threshold": "8"},
        {"sampling.randomness": "ffffffffffffff", "sampling.threshold": "c"},
        {"sampling.threshold": "zz"},
        {"sampling.randomness": "1"},
        {"p": 75},
        {"p": 80.5},
        {"p": "100"},
        {"p": 3},
        {"p": -3},
        {"p": 0},
        {"p": 150},
    )
    message = records(1500, 7, attributes)
    wanted = {}
    for number, record in enumerate(input_records(message)):
        values = {pair.key: pair.value for pair in record.attributes}
        th = values["sampling.threshold"].string_value if "sampling.threshold" in values else None
        rv = values["sampling.randomness"].string_value if "sampling.randomness" in values else None
        is_valid = th != "zz" and rv != "1"
        came = int(th.ljust(14, "0"), 16) if th and th != "zz" else None
        drawn = int(rv, 16) if rv and rv != "1" else int.from_bytes(record.trace_id[9:], "big")
        unknown = is_valid and came is not None and came > drawn
        ratio = 0.2 * ((WHOLE - (came or 0)) / WHOLE if mode == "proportional" else 1.0)
        threshold = threshold_with_precision(ratio, 4) if is_valid and not unknown else WHOLE if fail_closed else 0
        if "p" in values:
            asked = {"int_value": values["p"].int_value, "double_value": values["p"].double_value, "string_value": 0}
            share = asked[values["p"].WhichOneof("value")]
            threshold = threshold_with_precision(share / 100, 4) if 0 < share <= 100 else threshold
        if drawn >= threshold:
            final = None if unknown else threshold_digits(max(threshold, came or 0))
            wanted[number] = (final if is_valid else th, rv)
    processor = make(Signal.LOGS, sampling_percentage=20, mode=mode, fail_closed=fail_closed, sampling_priority="p")
    assert run_records(processor, message) == wanted


def test_metrics_by_policy():
    """The Collector's name and labels."""
    telemetry = RecordingTelemetry()
    message = spans(300, 8, ("",), (None, 1, 0))
    kept = run_spans(make(telemetry=telemetry, sampling_percentage=50), message)
    name = "otelcol_processor_probabilistic_sampler_count_traces_sampled"
    prioritised = [span.attributes[0].value.int_value for span in input_spans(message) if span.attributes]
    assert telemetry.value(name, policy="sampling_priority", sampled="true") == sum(prioritised)
    assert telemetry.value(name, policy="sampling_priority", sampled="false") == prioritised.count(0)
    assert telemetry.value(name, policy="trace_id_hash", sampled="true") == len(kept) - sum(prioritised)


@pytest.mark.parametrize(("percentage", "warnings"), [(0, 0), (0.001, 2), (0.1, 1), (0.99, 1), (1, 0), (100, 0)])
def test_a_share_that_looks_like_a_ratio_is_warned_of(percentage, warnings):
    """A value below 1 is probably meant as a ratio, but the unit is percent."""
    telemetry = RecordingTelemetry()
    make(telemetry=telemetry, sampling_percentage=percentage)
    assert len(telemetry.log.of_level("warning")) == warnings


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sampling_percentage": -1},
        {"sampling_percentage": float("nan")},
        {"sampling_percentage": float("inf")},
        {"sampling_percentage": 1, "mode": "other"},
        {"sampling_percentage": 1, "sampling_precision": 0},
        {"sampling_percentage": 1, "sampling_precision": 15},
        {"sampling_percentage": 1, "hash_seed": 2**32},
        {"sampling_percentage": 1, "attribute_source": "record"},
    ],
)
def test_wrong_configuration_is_refused(config):
    """Mistakes are found before anything runs."""
    with pytest.raises(ValidationError):
        ProbabilisticSamplerConfig.model_validate(config)


@pytest.mark.parametrize("mode", ["hash_seed", "equalizing", "proportional"])
def test_a_priority_replaces_the_share(mode):
    """A record with priority 3 is kept with 3 %, also where the share is 10 %, as in the Collector."""
    message = records(20_000, 11, ({"p": 3},))
    kept = run_records(make(Signal.LOGS, sampling_percentage=10, mode=mode, sampling_priority="p"), message)
    assert 600 - 5 * 24 < len(kept) < 600 + 5 * 24
    assert {threshold for threshold, _ in kept.values()} == {threshold_digits(threshold_with_precision(0.03, 4))}


@pytest.mark.parametrize("fail_closed", [True, False])
def test_adjusted_counts_of_records_without_trace_ids_are_right(fail_closed):
    """Such a record has randomness drawn for its own share; without one, all of them are kept with a count of 33."""
    message = records(20_000, 12, ({"p": 3},), (False,))
    processor = make(Signal.LOGS, sampling_percentage=10, sampling_priority="p", fail_closed=fail_closed)
    kept = run_records(processor, message)
    assert 600 - 5 * 24 < len(kept) < 600 + 5 * 24
    whole, least = 0.0, threshold_with_precision(0.03, 4)
    for threshold, drawn in kept.values():
        assert threshold == threshold_digits(least)
        assert int(drawn, 16) >= least
        whole += WHOLE / (WHOLE - least)
    assert whole == pytest.approx(20_000, rel=0.2)
    certain = run_records(processor, records(100, 13, ({"p": 100},), (False,)))
    assert set(certain.values()) == {("0", None)}
    assert len(certain) == 100


MALFORMED = (
    "foo",
    "ot=th:8;;",
    "ot=th",
    "ot=",
    "ot=th:zz",
    "A=1",
    "a=1=2",
    "ot=rv:1",
    "a=\x7f",
    "a b=1",
    "ot=X:1",
    "=1",
)
WELL_FORMED = ("a=1,b=2", "a=1,,b=2", "a=1, b=2", "ot=x:1", "a=1,a=2", "tenant@sys=1", " a=1", "0a@b=x y")


@pytest.mark.parametrize("mode", ["hash_seed", "equalizing"])
@pytest.mark.parametrize("state", [*MALFORMED, *WELL_FORMED])
def test_malformed_trace_states_fail_closed_or_stay_as_they_are(mode, state):
    """What the Collector 0.156 was seen to refuse and to accept."""
    message = spans(50, 14, (state,))
    assert bool(run_spans(make(sampling_percentage=100, mode=mode), message)) == (state in WELL_FORMED)
    if state in MALFORMED:
        out = make(sampling_percentage=1, mode=mode, fail_closed=False).transform(
            Traces.from_wire(message.SerializeToString())
        )
        kept = input_spans(ExportTraceServiceRequest.FromString(out.wire))
        assert [span.trace_state for span in kept] == [state] * 50
