"""The processor: the attributes of spans and log records, and which items are left alone (docs/reference/gpu.md)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from held_memory import assert_bounded
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.gpu import BackendUnavailableError, Device, GpuSampler, Process, Reading
from collector.model import Context, Logs, Signal, Traces
from collector.testing import (
    FakeClock,
    FakeHost,
    RecordingTelemetry,
    check_component,
    eventually,
    hand_over,
    make_settings,
)
from processors.gpu import factory
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor
from processors.gpu.locality import HostIdentity

SECOND = 1_000_000_000
MS = 1_000_000
GIB = 1 << 30
A, B = Device("GPU-aaaa", "0", "Model A", 80.0 * GIB), Device("GPU-bbbb", "1", "Model A", 80.0 * GIB)
BOARD = Device("GPU-mmmm", "0", "Model M", 80.0 * GIB, is_partitioned=True)
SLICES = [Device(f"MIG-{n}", f"0:{n}", "Model M MIG", 10.0 * GIB, parent_id="GPU-mmmm") for n in range(2)]
HOST = HostIdentity.of({"machine-1"}, {"node-1.example.org"})
NEAR = Context(local_peer=True)


class Inline:
    def call(self, function, timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


class Steady:
    """Devices that draw 100 W, are half busy and have 2 GiB in use; the boards count energy."""

    source = "nvml"

    def __init__(self, *devices, processes=(), fails=None):
        self.devices, self.processes, self.fails = devices, processes, fails
        self.reads = 0

    def open(self, now):
        if self.fails:
            raise self.fails
        return self.devices

    def read(self, now):
        self.reads += 1
        return [self.reading(device, now) for device in self.devices]

    def reading(self, device, now):
        processes = self.processes[self.devices.index(device)] if self.processes else ()
        is_board = not device.parent_id
        return Reading(
            utilization=math.nan if device.is_partitioned or device.parent_id else 0.5,
            memory_used_bytes=2.0 * GIB,
            power_w=100.0 if is_board else math.nan,
            energy_j=100.0 * (now % (10**6 * SECOND)) / SECOND if is_board else math.nan,
            processes=processes,
            process_count=len(processes),
        )

    def close(self):
        pass


class Bench:
    """A processor with a sampler that has taken samples for ``seconds`` up to now."""

    def __init__(self, backend, *, seconds=10.0, signal=Signal.TRACES, **config):
        self.clock, self.telemetry = FakeClock(), RecordingTelemetry()
        self.config = GpuProcessorConfig(**config)
        self.sampler = GpuSampler(
            lambda: backend, self.config, self.telemetry.log, caller=Inline(),
            time_unix_nano=self.clock.time_unix_nano, monotonic_s=self.clock.monotonic_s,
        )  # fmt: skip
        for _ in range(round(seconds / 0.1)):
            self.sampler.step()
            self.clock.move(0.1)
        self.clock.move(-0.1)  # now is the time of the newest sample
        settings = make_settings(factory, signals={signal}, telemetry=self.telemetry, clock=self.clock)
        self.processor = GpuProcessor(settings, self.config, sampler=self.sampler, host=HOST)

    @property
    def now(self):
        return self.clock.time_unix_nano()

    def spans(self, *spans, context=NEAR, resource=None):
        """The attributes of the spans after the processor."""
        batch = traces([(resource or {}, self.span(**span)) for span in spans], context)
        out = self.processor.transform(batch)
        message = ExportTraceServiceRequest.FromString(out.wire)
        return [plain(s.attributes) for r in message.resource_spans for sc in r.scope_spans for s in sc.spans]

    def span(self, ago=5.0, lasts=1.0, **fields):
        start = self.now - round(ago * SECOND)
        return {"name": "encode", "kind": 1, "start": start, "end": start + round(lasts * SECOND)} | fields

    def outcomes(self, name="tailrace_gpu_spans"):
        return {key: value for key, value in self.telemetry.metrics[name].values.items() if value}


def fill(attributes, values):
    for key, value in values.items():
        target = attributes.add(key=key).value
        kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
        setattr(target, kinds[type(value)], value)


def plain(attributes):
    found = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        assert attribute.key not in found, f"{attribute.key} twice"
        found[attribute.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def traces(pairs, context=NEAR):
    message = ExportTraceServiceRequest()
    for number, (resource, span) in enumerate(pairs):
        part = message.resource_spans.add()
        fill(part.resource.attributes, resource)
        added = part.scope_spans.add().spans.add(
            name=span["name"], kind=span["kind"], trace_id=bytes(15) + b"\1", span_id=(number + 1).to_bytes(8, "big"),
            start_time_unix_nano=span["start"], end_time_unix_nano=span["end"],
        )  # fmt: skip
        fill(added.attributes, span.get("attributes", {}))
    return Traces.from_wire(message.SerializeToString(), context)


def test_a_span_is_told_about_its_own_interval():
    """A span gets every attribute of the README's table, with its type and unit."""
    process = Process(7, 7, 0)
    (told,) = Bench(Steady(A, processes=[(process,)])).spans({})
    assert told.pop("gpu.utilization.mean") == pytest.approx(0.5)
    assert told.pop("gpu.power.mean") == pytest.approx(100.0)
    assert told.pop("gpu.device.energy") == pytest.approx(100.0, rel=1e-6)
    assert told.pop("gpu.coverage") == pytest.approx(1.0)
    assert told.pop("gpu.samples") in {10, 11}
    assert told == {
        "hw.id": "GPU-aaaa", "hw.model": "Model A", "gpu.utilization.max": 0.5,
        "gpu.memory.used.max": 2 * GIB, "gpu.memory.limit": 80 * GIB, "gpu.sample_interval": 0.1,
        "gpu.attribution.method": "single", "gpu.source": "nvml", "gpu.processes": 1,
    }  # fmt: skip
    assert isinstance(told["gpu.memory.used.max"], int)
    assert isinstance(told["gpu.processes"], int)


def test_what_is_there_is_not_overwritten():
    """Attributes that the application has set are kept (rule 26)."""
    (told,) = Bench(Steady(A)).spans({"attributes": {"gpu.power.mean": "mine", "gpu.samples": 3, "other": True}})
    assert (told["gpu.power.mean"], told["gpu.samples"], told["other"]) == ("mine", 3, True)
    assert "gpu.utilization.mean" in told


@pytest.mark.parametrize(
    ("span", "matched"),
    [
        ({"name": "encode", "kind": 1}, True),
        ({"name": "POST /Embeddings", "kind": 2}, True),
        ({"name": "rerank", "kind": 5}, True),
        ({"name": "encode", "kind": 3}, False),  # CLIENT would count the callee a second time
        ({"name": "encode", "kind": 4}, False),
        ({"name": "encode", "kind": 0}, False),
        ({"name": "GET /documents", "kind": 2}, False),
        ({"name": "GET /documents", "kind": 2, "attributes": {"gen_ai.request.model": "e5"}}, True),
        ({"name": "GET /documents", "kind": 2, "attributes": {"hw.id": "GPU-aaaa"}}, True),
        ({"name": "x", "kind": 3, "attributes": {"gen_ai.request.model": "e5"}}, False),
    ],
)
def test_only_gpu_work_is_touched(span, matched):
    """GPU work has one of the kinds and an attribute or a name; all other spans keep their bytes (rule 13)."""
    bench = Bench(Steady(A))
    batch = traces([({}, bench.span(**span))])
    out = bench.processor.transform(batch)
    assert (out is not batch) == matched
    assert bool(bench.outcomes()) == matched


def test_a_name_is_matched_once():
    """The patterns are searched once per distinct name, however many spans have it."""
    bench = Bench(Steady(A))
    seen = []
    pattern = SimpleNamespace(search=lambda name: seen.append(name) or None)
    bench.processor._patterns = [pattern]
    for _ in range(3):
        bench.spans(*[{"name": "abc"}] * 5, {"name": "def"})
    assert sorted(seen) == ["abc", "def"]


def test_queue_time_is_taken_off_the_start():
    """The first configured attribute that is present is taken off, at most the whole span (rule 21)."""
    bench = Bench(Steady(A))
    told = bench.spans(
        {"attributes": {"gen_ai.latency.time_in_queue": 0.4}},
        {"attributes": {"queue_time": 0.5, "gen_ai.latency.time_in_queue": 0.25}},
        {"attributes": {"queue_time": 7}},
        {"attributes": {"queue_time": -7.0}},
        {"attributes": {"queue_time": "0.4"}},
        {"attributes": {"queue_time": math.inf}},
    )
    energies = [attributes.get("gpu.device.energy") for attributes in told]
    assert energies == [
        pytest.approx(60),
        pytest.approx(75),
        None,
        pytest.approx(100),
        pytest.approx(100),
        pytest.approx(100),
    ]


def test_a_short_window_has_no_energy():
    """A window shorter than min_window has all figures except the energy (rule 22)."""
    told = Bench(Steady(A)).spans({"lasts": 0.05}, {"lasts": 0.1}, {"lasts": 0.0})
    assert ["gpu.device.energy" in attributes for attributes in told] == [False, True, False]
    assert all(attributes["gpu.utilization.mean"] == pytest.approx(0.5) for attributes in told)
    assert all(attributes["gpu.coverage"] == pytest.approx(1.0) for attributes in told)


@pytest.mark.parametrize(
    ("span", "outcome"),
    [
        ({"ago": 100.0, "lasts": 1.0}, "expired"),
        ({"ago": 1.0, "lasts": -0.5}, "invalid_time"),
        ({"ago": 1.0, "lasts": 3.0}, "invalid_time"),  # in the future
        ({"start": 0, "end": 0}, "invalid_time"),
        ({"start": 0, "end": 2**64 - 1}, "invalid_time"),
        ({"start": 2**64 - 1, "end": 2**64 - 1}, "invalid_time"),
        ({"start": 2**63, "end": 5}, "invalid_time"),
    ],
)
def test_times_we_know_nothing_of_are_left_alone(span, outcome):
    """These spans pass unchanged and are counted (rule 23)."""
    bench = Bench(Steady(A))
    batch = traces([({}, bench.span(**span))])
    assert bench.processor.transform(batch) is batch
    assert bench.outcomes() == {("single", outcome): 1}


def test_a_span_newer_than_the_newest_sample():
    """The newest sample is held for one interval; what lies beyond lowers the coverage (rules 2 and 23)."""
    bench = Bench(Steady(A))
    bench.clock.move(1.0)
    inside, beyond, after = ({"ago": 1.45, "lasts": 0.5}, {"ago": 1.1, "lasts": 0.4}, {"ago": 0.5, "lasts": 0.2})
    told = bench.spans(inside, beyond, after)
    assert told[0]["gpu.coverage"] == pytest.approx(1.0)
    assert told[1]["gpu.coverage"] == pytest.approx(0.5)
    assert told[2] == {}
    assert bench.outcomes() == {("single", "enriched"): 2, ("single", "uncovered"): 1}


def test_two_gpus_are_ambiguous():
    """An ambiguous span gets nothing, or with ``ambiguous: host`` the sums over all GPUs (rules 19 and 24)."""
    skipping = Bench(Steady(A, B))
    assert skipping.spans({}) == [{}]
    assert skipping.outcomes() == {("none", "ambiguous"): 1}
    (told,) = Bench(Steady(A, B), ambiguous="host").spans({})
    assert "hw.id" not in told
    assert (told["gpu.ids"], told["gpu.count"], told["hw.model"]) == (["GPU-aaaa", "GPU-bbbb"], 2, "Model A")
    assert told["gpu.attribution.method"] == "host"
    assert (told["gpu.memory.used.max"], told["gpu.memory.limit"]) == (4 * GIB, 160 * GIB)
    assert told["gpu.device.energy"] == pytest.approx(200.0, rel=1e-6)
    assert told["gpu.power.mean"] == pytest.approx(200.0)
    assert told["gpu.utilization.mean"] == pytest.approx(0.5)


def test_under_mig_memory_is_the_slices_and_energy_the_boards():
    """Under MIG utilisation is absent, and a board that two slices share is counted once (rule 10)."""
    bench = Bench(Steady(BOARD, *SLICES))
    one, both = bench.spans({"attributes": {"hw.id": "MIG-1"}}, {"attributes": {"hw.id": "MIG-0,MIG-1"}})
    assert (one["hw.id"], one["hw.parent"], one["gpu.memory.limit"]) == ("MIG-1", "GPU-mmmm", 10 * GIB)
    assert "gpu.utilization.mean" not in one
    assert "gpu.utilization.max" not in one
    assert one["gpu.device.energy"] == pytest.approx(100.0, rel=1e-6)
    assert both["gpu.device.energy"] == pytest.approx(100.0, rel=1e-6)
    assert both["gpu.memory.used.max"] == 4 * GIB
    assert both["gpu.count"] == 2
    (single,) = Bench(Steady(BOARD, SLICES[0])).spans({})
    assert (single["hw.id"], single["gpu.attribution.method"]) == ("MIG-0", "single")


def test_without_a_gpu_items_pass_unchanged():
    """Without a GPU the batch is the same object, with one warning and ``available`` 0 (rule 4)."""
    bench = Bench(Steady(A, fails=BackendUnavailableError("no_library", "no libnvidia-ml.so.1")), seconds=200)
    batch = traces([({}, bench.span())])
    assert bench.processor.transform(batch) is batch
    assert len(bench.telemetry.log.of_level("warning")) == 1
    assert bench.telemetry.value("tailrace_gpu_available", reason="no_library") == 0.0
    assert bench.telemetry.value("tailrace_gpu_devices") == 0.0
    assert not bench.outcomes()


def test_own_metrics_follow_the_sampler():
    """The own metrics report devices, availability, samples and gaps."""
    bench = Bench(Steady(A, B))
    bench.clock.move(20)
    bench.sampler.step()
    bench.spans({})
    value = bench.telemetry.value
    assert (value("tailrace_gpu_devices"), value("tailrace_gpu_available", reason="ok")) == (2.0, 1.0)
    assert (value("tailrace_gpu_samples"), value("tailrace_gpu_sample_gaps")) == (202.0, 2.0)


def test_many_spans_of_many_kinds_at_once():
    """A batch with mixed methods and outcomes gives the same result as its spans one by one."""
    spans = [
        {"ago": 5 - 0.01 * n, "lasts": 0.3 + 0.01 * n, "kind": 1 + n % 3,
         "attributes": [{}, {"hw.id": "GPU-bbbb"}, {"hw.id": "GPU-aaaa,GPU-bbbb"}, {"hw.id": "GPU-zzzz"}][n % 4]}
        for n in range(60)
    ]  # fmt: skip
    bench = Bench(Steady(A, B))
    together = bench.spans(*spans)
    assert together == [bench.spans(span)[0] for span in spans]
    assert any("gpu.ids" in told for told in together)
    assert any(told.get("hw.id") == "GPU-bbbb" and len(told) > 1 for told in together)


def records(bench, *rows, resource=None, context=NEAR):
    message = ExportLogsServiceRequest()
    for fields in rows:
        part = message.resource_logs.add()
        fill(part.resource.attributes, resource or {})
        added = part.scope_logs.add().log_records.add(
            **{"time_unix_nano": bench.now - SECOND, **{k: v for k, v in fields.items() if k != "attributes"}}
        )
        added.body.string_value = "CUDA out of memory"
        fill(added.attributes, fields.get("attributes", {}))
    out = bench.processor.transform(Logs.from_wire(message.SerializeToString(), context))
    message = ExportLogsServiceRequest.FromString(out.wire)
    return [plain(r.attributes) for p in message.resource_logs for s in p.scope_logs for r in s.log_records]


def test_severe_records_get_the_state_of_the_gpu():
    """Records of at least min_severity, by number or else by text, get the state of the GPU (rule 27)."""
    bench = Bench(Steady(A), signal=Signal.LOGS)
    rows = [
        {"severity_number": 17},
        {"severity_number": 13},
        {"severity_number": 9},
        {"severity_text": "Warning"},
        {"severity_text": "INFO"},
        {},
    ]
    told = records(bench, *rows)
    assert [bool(attributes) for attributes in told] == [True, True, False, True, False, False]
    assert told[0] == {
        "hw.id": "GPU-aaaa", "gpu.utilization": 0.5, "gpu.memory.used": 2 * GIB, "gpu.memory.limit": 80 * GIB,
        "gpu.source": "nvml",
    }  # fmt: skip
    assert bench.outcomes("tailrace_gpu_log_records") == {("single", "enriched"): 3}


def test_the_least_severity_is_configured():
    """``logs::min_severity`` selects the records (rule 27)."""
    bench = Bench(Steady(A), signal=Signal.LOGS, logs={"min_severity": "ERROR"})
    assert [bool(a) for a in records(bench, {"severity_number": 17}, {"severity_number": 16})] == [True, False]


def test_a_record_without_its_own_time_has_the_observed_one():
    """A record without a time uses the observed time; one of another host is left alone."""
    bench = Bench(Steady(A), signal=Signal.LOGS)
    row = {"severity_number": 17, "time_unix_nano": 0, "observed_time_unix_nano": bench.now - SECOND}
    assert records(bench, row)[0]["hw.id"] == "GPU-aaaa"
    assert records(bench, row, resource={"host.name": "elsewhere"}) == [{}]


def test_windows_add_up_over_adjacent_spans():
    """The energies of consecutive spans add up to that of the whole period."""
    bench = Bench(Steady(A))
    parts = bench.spans(*[{"ago": 9 - n, "lasts": 1.0} for n in range(8)])
    (whole,) = bench.spans({"ago": 9.0, "lasts": 8.0})
    assert sum(part["gpu.device.energy"] for part in parts) == pytest.approx(whole["gpu.device.energy"], rel=1e-9)


async def test_the_contract_is_kept():
    """The component contract holds with the defaults and with simulated devices."""
    await check_component(factory)
    await check_component(factory, config=GpuProcessorConfig(backend="simulated", locality="all"))


async def test_a_reload_keeps_the_samples():
    """After a reload the new processor starts with the samples of the old one."""
    config = GpuProcessorConfig(backend="simulated", simulated={"seed": 4711}, sample_interval="10ms")
    old = factory.create(make_settings(factory, signals={Signal.TRACES}), config)
    await old.start(FakeHost())
    await eventually(lambda: bool(old.sampler.snapshot.views))
    await old.shutdown()
    oldest = old.sampler.snapshot.views[0].origin_unix_nano
    new = hand_over(old, factory.create(make_settings(factory, signals={Signal.TRACES}), config), config)
    await new.start(FakeHost())
    try:
        assert new.sampler is not old.sampler
        await eventually(lambda: bool(new.sampler.snapshot.views))
        assert new.sampler.snapshot.views[0].origin_unix_nano == oldest
    finally:
        await new.shutdown()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"match": {"names": ["("]}}, "invalid pattern"),
        ({"match": {"names": ["(?<=a)b"]}}, "no look-around"),
        ({"match": {"names": ["(a{1000}){1000}"]}}, "invalid pattern"),
        ({"match": {"names": ["a" * 20_000]}}, "at most 10000 are allowed"),
        ({"match": {"kinds": ["SERVANT"]}}, "SERVER"),
        ({"match": {"kinds": []}}, "kinds is empty"),
        ({"match": {"names": [], "any_attribute": []}}, "both empty"),
        ({"match": {"any_attribute": [""]}}, "must not be empty"),
        ({"interval": {"queue": [""]}}, "must not be empty"),
        ({"reprobe_interval": "1ms"}, "greater than or equal"),
        ({"ring": "25h"}, "less than or equal"),
        ({"ring": "24h", "sample_interval": "10ms"}, "1 000 000"),
        ({"simulated": {"gpus": 0}}, "greater than or equal"),
        ({"simulated": {"gpus": 65}}, "less than or equal"),
        ({"simulated": {"seed": -1}}, "greater than or equal"),
        ({"simulated": {"memory": 0}}, "greater than"),
        ({"simulated": {"load": {"mean": 2}}}, "less than or equal"),
        ({"ambiguous": "guess"}, "skip"),
        ({"backend": "cuda"}, "nvml"),
        ({"locality": "near"}, "detect"),
        ({"backend": "replay"}, "replay::file"),
        ({"ring": "100ms"}, "ten times"),
        ({"sample_interval": "1ms"}, "greater than or equal"),
        ({"min_window": "-1s"}, "greater than or equal"),
        ({"logs": {"min_severity": "loud"}}, "warn"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_wrong_keys_say_what_is_allowed(config, message):
    """Invalid values are configuration errors, with a message that says what is allowed."""
    with pytest.raises(ValueError, match=message):
        GpuProcessorConfig(**config)


def test_no_python_work_per_span():
    """Ten times as many spans cause no more Python calls; only distinct values do."""
    import sys

    bench = Bench(Steady(A, B))

    def calls(count):
        batch = traces([({}, bench.span(attributes={"hw.id": ["GPU-aaaa", "GPU-bbbb"][n % 2]})) for n in range(count)])
        batch.attributes()
        made = 0

        def profile(frame, event, argument):
            nonlocal made
            made += event == "call"

        sys.setprofile(profile)
        try:
            bench.processor.transform(batch)
        finally:
            sys.setprofile(None)
        return made

    calls(50)
    assert calls(1000) < 1.3 * calls(50)


def test_numpy_warnings_stay_away():
    """Batches of hostile values cause no warning (which would be an error here) and are not changed."""
    bench = Bench(Steady(A))
    with np.errstate(all="raise"):
        assert bench.spans({"start": 2**64 - 1, "end": 0}, {"start": 1, "end": 2**64 - 1}) == [{}, {}]


def test_what_is_kept_of_text_from_outside_is_bounded():
    """Names, explicit devices and resources of senders are cached, but never more than some megabytes of them."""
    bench = Bench(Steady(A))
    batches = 0

    def feed(text):
        nonlocal batches
        batches += 1
        attributes = {"gpu.uuid": f"GPU-{text}", "gpu.source": text}
        bench.spans(
            {"name": text, "attributes": attributes}, {"name": f"embed {text}"}, resource={"host.id": text, "k": text}
        )

    assert_bounded(feed, short_texts=200)
    assert batches > 200
