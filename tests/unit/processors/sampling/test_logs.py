"""Log records follow the decision on their trace; see docs/reference/sampling.md, rules 16 to 21."""

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import SharedState
from collector.model import Logs, Signal, Traces
from collector.testing import FakeClock, FakeHost, Sink, eventually, make_settings
from processors.sampling import factory
from processors.sampling.config import SamplingConfig

RULES = [{"name": "errors", "any": {"status": "error"}, "ratio": 1.0}, {"name": "rest", "ratio": 0.0}]
HIGH, LOW = b"\x01" * 8 + b"\xff" * 8, b"\x01" * 8 + bytes(7) + b"\x01"


class Pair:
    """The processor with one component id in a traces and in a logs pipeline."""

    def __init__(self, shared=None, clock=None, previous=(None, None), **keys):
        self.clock, self.shared = clock or FakeClock(), SharedState()
        self.config = SamplingConfig.model_validate({"rules": RULES, "decision_wait": "10s", **keys})
        self.sinks = {signal: Sink() for signal in (Signal.TRACES, Signal.LOGS)}
        self.settings, self.made, self.sent = {}, {}, 0
        for signal, old in zip(self.sinks, previous, strict=True):
            self.settings[signal] = make_settings(
                factory, signals={signal}, clock=self.clock, outputs={signal: self.sinks[signal]}, shared=self.shared
            )
            self.made[signal] = factory.create(self.settings[signal], self.config)
            if old is not None:
                assert self.made[signal].take_over(old)
        self.traces, self.logs = self.made[Signal.TRACES], self.made[Signal.LOGS]
        self.host = FakeHost()

    async def start(self):
        for component in self.made.values():
            await component.start(self.host)

    async def stop(self):
        await self.logs.shutdown()
        await self.traces.shutdown()

    async def span(self, trace_id, error=False):
        made = ExportTraceServiceRequest()
        span = made.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=b"12345678", name="s")
        span.status.code = 2 if error else 0
        await self.traces.consume(Traces.from_wire(made.SerializeToString()))

    async def log(self, *records):
        made = ExportLogsServiceRequest()
        target = made.resource_logs.add().scope_logs.add().log_records
        for trace_id, severity, text in records:
            target.add(trace_id=trace_id, severity_number=severity).body.string_value = text
        self.sent += len(records)
        await self.logs.consume(Logs.from_wire(made.SerializeToString()))

    def kept(self):
        found = []
        for batch in self.sinks[Signal.LOGS].batches:
            for resource in ExportLogsServiceRequest.FromString(batch.wire).resource_logs:
                found += [record.body.string_value for scope in resource.scope_logs for record in scope.log_records]
        return sorted(found)

    def balanced(self):
        dropped = self.settings[Signal.LOGS].telemetry.ledger.dropped_count(Signal.LOGS)
        return self.sent == len(self.kept()) + dropped + self.logs.held_items()


async def test_a_kept_error_trace_keeps_its_logs_and_a_dropped_one_loses_them():
    """Rule 16: for records before, between and after the spans; the decision counts, not the threshold."""
    pair = Pair()
    await pair.start()
    await pair.log((LOW, 9, "early kept"), (HIGH, 17, "early lost"))
    await pair.span(LOW, error=True)
    await pair.span(HIGH)
    await pair.log((LOW, 9, "kept"), (HIGH, 9, "lost"))
    assert pair.logs.held_items() == 4
    assert pair.balanced()
    await pair.clock.advance(12)
    await eventually(lambda: not pair.logs.held_items())
    await pair.log((LOW, 1, "late kept"), (HIGH, 24, "late lost"))
    assert pair.kept() == ["early kept", "kept", "late kept"]
    assert pair.balanced()
    await pair.stop()


async def test_logs_of_traces_never_seen_are_decided_by_trace_id():
    """Rule 18: after ``decision_wait``, with the ratio of the last rule or ``logs.unseen_ratio``."""
    pair = Pair(rules=[{"name": "rest", "ratio": 0.5}])
    await pair.start()
    await pair.log((HIGH, 9, "kept"), (LOW, 17, "lost"))
    await pair.clock.advance(9)
    assert not pair.kept()
    await pair.clock.advance(3)
    assert pair.kept() == ["kept"]
    assert pair.balanced()
    await pair.stop()
    other = Pair(logs={"unseen_ratio": 1.0})
    await other.start()
    await other.log((LOW, 1, "kept"))
    await other.stop()
    assert other.kept() == ["kept"]


@pytest.mark.parametrize(("below", "kept"), [(1.0, ["error", "info", "none", "warn"]), (0.0, ["error", "warn"])])
async def test_logs_without_a_trace_are_kept_from_warn_on(below, kept):
    """Rule 19: for the others ``logs.below_ratio`` counts."""
    pair = Pair(logs={"below_ratio": below})
    await pair.log((b"", 17, "error"), (b"", 13, "warn"), (b"", 9, "info"), (b"", 0, "none"))
    assert pair.kept() == kept
    assert pair.balanced()


async def test_a_share_of_logs_without_a_trace():
    """Rule 19: the share is chosen at random."""
    pair = Pair(logs={"below_ratio": 0.25})
    await pair.log(*((b"", 9, str(i)) for i in range(4000)))
    assert 750 < len(pair.kept()) < 1250
    assert pair.balanced()


async def test_without_a_traces_pipeline_nothing_waits():
    """Rule 18: there is no decision to wait for."""
    settings = make_settings(factory, signals={Signal.LOGS}, outputs={Signal.LOGS: (sink := Sink())})
    sut = factory.create(settings, SamplingConfig.model_validate({"rules": [{"name": "rest", "ratio": 0.5}]}))
    made = ExportLogsServiceRequest()
    target = made.resource_logs.add().scope_logs.add().log_records
    for one in (HIGH, LOW):
        target.add(trace_id=one, severity_number=9)
    await sut.consume(Logs.from_wire(made.SerializeToString()))
    assert sink.item_count == 1
    assert sut.held_items() == 0


async def test_log_budget_decides_the_oldest():
    """Rule 20: as if their traces were never seen; every record is accounted for."""
    pair = Pair(logs={"max_bytes": "8KiB", "unseen_ratio": 1.0})
    for number in range(100):
        await pair.log((number.to_bytes(16, "big"), 9, "x" * 100)) if number else None
        assert pair.logs.held_bytes() <= 8192
        assert pair.balanced()
    assert len(pair.kept()) > 30
    await pair.stop()
    assert len(pair.kept()) == 99


async def test_shutdown_decides_open_traces_for_their_logs():
    """Rule 21: the logs pipeline shuts down first, and its traces are decided for it."""
    pair = Pair()
    await pair.start()
    await pair.span(LOW, error=True)
    await pair.log((LOW, 9, "kept"), (HIGH, 9, "lost"))
    await pair.stop()
    await pair.stop()
    assert pair.kept() == ["kept"]
    assert pair.sinks[Signal.TRACES].item_count == 1
    assert pair.balanced()


async def test_a_reload_hands_over_what_is_held_and_new_rules_decide():
    """Rule 15: open traces, their records, and the decisions that are remembered."""
    old = Pair()
    await old.start()
    await old.span(HIGH, error=True)
    await old.clock.advance(12)
    await old.span(LOW)
    await old.log((LOW, 9, "in flight"))
    for component in old.made.values():
        assert component.hand_over(old.config) is component
    await old.stop()
    assert old.traces.held_items() == 1  # the predecessor holds it until a successor has taken over
    new = Pair(clock=old.clock, previous=(old.traces, old.logs), rules=[{"name": "all", "ratio": 1.0}])
    await new.start()
    assert (old.traces.held_items(), old.logs.held_items()) == (0, 0)
    assert (new.traces.held_items(), new.logs.held_items()) == (1, 1)
    await new.log((HIGH, 9, "remembered"))
    new.sent += 1
    await new.clock.advance(12)
    await eventually(lambda: not new.logs.held_items())
    assert new.kept() == ["in flight", "remembered"]
    assert new.sinks[Signal.TRACES].item_count == 1
    assert new.balanced()
    await new.stop()
    await old.stop()
    assert old.sinks[Signal.TRACES].item_count == 1


async def test_get_sampling_shows_rules_and_the_slowest():
    """There is an entry for each pipeline, attributes are sanitised, and spans are in order."""
    pair = Pair(rules=[{"name": "all", "ratio": 1.0}])
    await pair.start()
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "api"
    spans = resource.scope_spans.add().spans
    for number in range(1, 9):
        trace = number.to_bytes(16, "big")
        root = spans.add(trace_id=trace, span_id=b"rootroot", name="root", kind=2, start_time_unix_nano=10**9)
        root.end_time_unix_nano = 10**9 + number * 10**6
        root.attributes.add(key="text").value.string_value = "a\x00" + "x" * 1000
        root.attributes.add(key="n").value.int_value = number
        for place in range(300 if number == 8 else 1):
            child = spans.add(
                trace_id=trace, span_id=place.to_bytes(7, "big") + b"c", parent_span_id=b"rootroot", name="child"
            )
            child.start_time_unix_nano = child.end_time_unix_nano = 10**9 + 5
            child.status.code = 2
    await pair.traces.consume(Traces.from_wire(made.SerializeToString()))
    await pair.clock.advance(12)
    shown = {}
    for component in pair.made.values():
        shown |= await component._show({})
    assert set(shown) == {"sampling@traces", "sampling@logs"}
    traces = shown["sampling@traces"]
    assert traces["rules"] == [{"name": "all", "seen": 8, "kept": 8, "dropped": 0, "rate": 1.0}]
    assert [one["duration_ms"] for one in traces["slowest"]] == [8, 7, 6, 5, 4]
    slowest = traces["slowest"][0]
    assert (slowest["root_service"], slowest["root_name"], slowest["rule"]) == ("api", "root", "all")
    assert len(slowest["spans"]) == 200
    first = slowest["spans"][0]
    assert (first["kind"], first["status"], first["parent_span_id"], first["start_offset_ms"]) == (
        "server",
        "unset",
        "",
        0,
    )
    assert first["attributes"]["n"] == 8
    assert len(first["attributes"]["text"]) == 256
    assert first["attributes"]["text"].startswith("a\ufffd")
    assert slowest["spans"][1]["status"] == "error"
    await pair.clock.advance(700)
    assert (await pair.traces._show({}))["sampling@traces"]["slowest"] == []
    await pair.stop()
