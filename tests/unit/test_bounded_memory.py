"""Whatever senders write into texts, little of it is held: nothing that is keyed by text from outside grows for good."""

import contextlib

import pytest
import structlog
from held_memory import assert_bounded

from collector.api import ComponentId, ComponentKind
from collector.cli._logs import LogThrottle
from collector.delivery.log import RateLimitedLog
from collector.model import Batch, Context, Logs, Metrics, Signal, StringColumn, Traces
from collector.otlp.adjusted_count import adjusted_counts
from collector.service.ledger import Ledger, LedgerEntry
from collector.service.telemetry import ServiceTelemetry
from collector.testing import FakeClock, FakeHost, make
from collector.testing.generate import logs_request, metrics_request, traces_request
from collector.transport.context import ContextCache
from config.model import LogSampling
from connectors.service_graph import factory as service_graph
from connectors.span_metrics import factory as span_metrics
from exporters.loki.config import LokiConfig
from exporters.loki.streams import StreamEncoder
from processors.batch import factory as batch
from processors.cardinality import factory as cardinality
from processors.redaction import factory as redaction
from processors.sampling.rules import any_glob
from processors.tail_sampling.span_features import StringMatch, TraceStateMatch

MIB = 1024 * 1024
LABEL_NAMES = ("key",)  # translated by collector.prometheus, which has bounds of its own
NAMES = frozenset({"service.name", "http.request.method", "url.path", "tenant_id"})  # what components look for


def everywhere(message, text, but=()):
    """The message with ``text`` in all of its texts: names, descriptions, units, keys, values, trace states."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                everywhere(child, text, but)
        elif (
            field.type == field.TYPE_STRING and isinstance(value, str) and value not in NAMES and field.name not in but
        ):
            setattr(message, field.name, f"{value} {text}")
    return message


def spans(text):
    """Spans of one service that the connectors count."""
    message = traces_request(spans=2, services=1)
    for span in message.resource_spans[0].scope_spans[0].spans:
        span.trace_state, span.kind = "ot=th:8;x:y", 2
        for key in ("http.request.method", "url.path"):
            span.attributes.add(key=key).value.string_value = "/"
    return Traces.from_wire(everywhere(message, text).SerializeToString())


def points(text):
    """Points with what the rules of ``cardinality`` look for."""
    message = metrics_request(points=8, services=1)
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        metric.description = "about"
        for point in [*metric.sum.data_points, *metric.gauge.data_points, *metric.histogram.data_points]:
            for key in ("tenant_id", "url.path"):
                point.attributes.add(key=key).value.string_value = "/"
    return Metrics.from_wire(everywhere(message, text).SerializeToString())


def records(text, but=()):
    return Logs.from_wire(everywhere(logs_request(records=2, services=1), text, but).SerializeToString())


class Nowhere:
    """An output that keeps nothing."""

    async def consume(self, batch: Batch) -> None:
        del batch

    def try_consume(self, batch: Batch) -> bool:
        del batch
        return True


COMPONENTS = {
    "cardinality": (
        cardinality,
        {
            "limit": 10,
            "state_limit_mib": 4,
            "tenant": {"attribute": "tenant_id", "limit": 5, "total": 20},
            "attributes": [{"keys": ["url.path"], "action": "template", "max_values": 5}],
        },
        points,
        16 * MIB,
    ),
    "span_metrics": (
        span_metrics,
        {
            "dimensions": [{"name": "url.path"}, {"glob": "*"}],
            "events": {"enabled": True, "dimensions": [{"name": "exception.type"}]},
        },
        spans,
        7 * MIB,
    ),
    "span_metrics, http": (span_metrics, {"names": "http"}, spans, 7 * MIB),
    "service_graph": (service_graph, {"dimensions": ["url.path"]}, spans, 4 * MIB),
}


@pytest.mark.parametrize("name", COMPONENTS)
async def test_a_component_holds_little_of_long_texts(name):
    """Four requests whose texts all have 2 MB, then two hundred ordinary ones; nothing is forgotten by time."""
    factory, config, request_of, max_bytes = COMPONENTS[name]
    signal = request_of("").signal
    outputs = {out: Nowhere() for out in ([Signal.METRICS] if factory.connects else [signal])}
    sut = make(factory, factory.config_type.model_validate(config), signals={signal}, outputs=outputs)
    await sut.start(FakeHost())

    def feed(text):
        coroutine = sut.consume(request_of(text))
        with pytest.raises(StopIteration):  # nothing in it waits
            coroutine.send(None)

    assert_bounded(feed, max_bytes=max_bytes, long_chars=2_000_000, short_texts=200)
    await sut.shutdown()


def _loki():
    encoder = StreamEncoder(LokiConfig.model_validate({"endpoint": "http://loki", "label_values_limit": 10}))
    return lambda text: encoder.encode(records(text, LABEL_NAMES), now_unix_nano=1)


def _contexts():
    contexts = ContextCache()
    return lambda text: contexts.context(None, {f"x-{text}": (text,)}, (("claim", text),))


def _own_metrics():
    telemetry = ServiceTelemetry(ledger=Ledger(), clock=FakeClock(), resource={})
    component = telemetry.component(ComponentKind.EXPORTER, ComponentId("loki"))
    counter = component.counter("a", "a", ("reason",))
    gauge = component.gauge("b", "b", ("reason",))
    histogram = component.histogram("c", "c", (1.0, 2.0), ("reason",))

    def feed(text):
        counter.add(1, reason=text)
        gauge.set(1, reason=text)
        histogram.observe(1, reason=text)

    return feed


def _ledger():
    entry = LedgerEntry(ComponentKind.EXPORTER, ComponentId("loki"), Signal.LOGS)

    def feed(text):
        entry.drop(1, text)
        entry.refuse(1, text)

    return feed


def _own_log():
    throttle = LogThrottle(LogSampling(), monotonic_s=lambda: 0.0)

    def feed(text):
        with contextlib.suppress(structlog.DropEvent):
            throttle(None, "info", {"event": text})

    return feed


def _rate_limited_log():
    limited = RateLimitedLog(structlog.get_logger(), FakeClock())
    return lambda text: limited.is_due("something was dropped", text)


def _redaction():
    sut = make(
        redaction,
        redaction.config_type.model_validate(
            {"allow_all_keys": True, "blocked_values": ["secret"], "summary": "debug"}
        ),
        signals={Signal.LOGS},
    )
    return lambda text: sut.transform(records(f"{text} secret", LABEL_NAMES))


FEEDERS = {
    "loki": _loki,
    "contexts of requests": _contexts,
    "adjusted counts": lambda: lambda text: adjusted_counts(StringColumn.of([f"ot=th:8;x:{text}"])),
    "globs of sampling": lambda: any_glob(["a*"]),
    "texts of tail_sampling": lambda: StringMatch("key", ("a.*",), is_regex=True)._matcher,
    "trace states of tail_sampling": lambda: TraceStateMatch("key", ("a",))._matcher,
    "own metrics": _own_metrics,
    "the ledger": _ledger,
    "the own log": _own_log,
    "rate-limited log lines": _rate_limited_log,
    "redaction": _redaction,
}


@pytest.mark.parametrize("name", FEEDERS)
def test_a_table_holds_little_of_long_texts(name):
    """Four long texts, then thousands of ordinary ones."""
    is_slow = name in {"loki", "redaction"}
    assert_bounded(FEEDERS[name](), max_bytes=7 * MIB, long_chars=2_000_000, short_texts=200 if is_slow else 20_000)


async def test_a_batch_processor_holds_little_of_the_contexts_of_its_batches():
    """Once everything is sent, nothing but a cache is left of the senders' headers."""
    sut = make(
        batch,
        batch.config_type.model_validate({"metadata_keys": ["x-kept"], "timeout": 0}),
        signals={Signal.LOGS},
        outputs={Signal.LOGS: Nowhere()},
    )
    await sut.start(FakeHost())

    def feed(text):
        context = Context(metadata=(("x-kept", (text,)), ("x-other", (text,))))
        with pytest.raises(StopIteration):
            sut.consume(records("").with_context(context)).send(None)

    assert_bounded(feed, short_texts=2000)
    await sut.shutdown()


def test_what_is_beyond_a_bound_is_counted_under_one_name():
    """Label sets of own metrics, and reasons of the ledger."""
    telemetry = ServiceTelemetry(ledger=Ledger(), clock=FakeClock(), resource={})
    counter = telemetry.component(ComponentKind.EXPORTER, ComponentId("loki")).counter("a", "a", ("reason",))
    entry = LedgerEntry(ComponentKind.EXPORTER, ComponentId("loki"), Signal.LOGS)
    for number in range(3000):
        counter.add(1, reason=f"{number}")
        entry.drop(1, f"{number}")
    page = telemetry.render()
    assert 'a{exporter="loki",reason="1999"} 1.0' in page
    assert 'a{exporter="loki",reason="__other__"} 1000.0' in page
    assert 'reason="2000"' not in page
    assert (len(entry.dropped), entry.dropped["other"], sum(entry.dropped.values())) == (65, 2936, 3000)


async def test_log_lines_of_many_topics_are_left_out_until_the_interval_is_over():
    """Topics can be texts from outside; sentences without a topic are logged all the same."""
    clock = FakeClock()
    limited = RateLimitedLog(structlog.get_logger(), clock)
    assert sum(limited.is_due("dropped", f"{number}") for number in range(5000)) == 1024
    assert limited.is_due("a sentence of its own")
    await clock.advance(11)
    assert limited.is_due("dropped", "4999")
