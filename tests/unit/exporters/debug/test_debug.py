"""The debug exporter: counts, lines or every field, sampling per second, and data that cannot forge lines."""

import pytest

from collector.model import Signal, Traces
from collector.testing import (
    FakeHost,
    RecordingTelemetry,
    batch,
    logs,
    logs_request,
    make_settings,
    metrics,
    metrics_request,
    traces,
    traces_request,
)
from exporters.debug import factory
from exporters.debug.text import detailed_text, normal_text


def make(**config):
    telemetry = RecordingTelemetry()
    settings = make_settings(factory, telemetry=telemetry)
    return factory.create(settings, factory.config_type.model_validate(config)), telemetry, settings.clock


async def test_basic_shows_counts_in_the_log():
    exporter, telemetry, _ = make()
    await exporter.consume(traces(spans=10, services=2))
    await exporter.consume(metrics(points=20, services=2))
    await exporter.consume(logs(records=7, services=1))
    shown = [(event.event, dict(event.fields)) for event in telemetry.log.of_level("info")]
    assert shown[0] == ("Traces", {"resource_spans": 2, "spans": 10})
    assert shown[1] == ("Metrics", {"resource_metrics": 2, "metrics": 10, "data_points": 20})
    assert shown[2] == ("Logs", {"resource_logs": 1, "log_records": 7})


@pytest.mark.parametrize(("initial", "thereafter", "shown"), [(2, 1, 10), (2, 0, 2), (2, 4, 4), (0, 0, 0), (0, 5, 2)])
async def test_sampling_is_per_second(initial, thereafter, shown):
    exporter, telemetry, clock = make(sampling_initial=initial, sampling_thereafter=thereafter)
    for seconds in (1, 2):
        for _ in range(10):
            await exporter.consume(traces(spans=1))
        assert len(telemetry.log.events) == shown * seconds
        clock.move(1)


async def test_configured_outputs(tmp_path, capsys):
    exporter, telemetry, _ = make(
        use_internal_logger=False, output_paths=["stdout", "stderr", str(tmp_path / "x.txt")], verbosity="normal"
    )
    await exporter.start(FakeHost())
    await exporter.consume(traces(spans=3, services=1))
    await exporter.shutdown()
    text = (tmp_path / "x.txt").read_text()
    assert text.startswith("Traces resource spans: 1, spans: 3\nResourceTraces #0 ")
    assert tuple(capsys.readouterr()) == (text, text)
    assert telemetry.log.events == []


async def test_an_output_that_cannot_be_written_refuses_the_start(tmp_path):
    exporter, _, _ = make(use_internal_logger=False, output_paths=[str(tmp_path / "no" / "x")])
    with pytest.raises(ValueError, match="exporters::debug::output_paths"):
        await exporter.start(FakeHost())
    await exporter.shutdown()


@pytest.mark.parametrize("verbosity", ["normal", "detailed"])
@pytest.mark.parametrize("signal", list(Signal))
async def test_every_item_is_shown(signal, verbosity):
    exporter, telemetry, _ = make(verbosity=verbosity)
    await exporter.consume(batch(signal, items=30))
    text = telemetry.log.events[1].event
    marks = {
        (Signal.TRACES, "normal"): "http.request.method=POST",
        (Signal.TRACES, "detailed"): "Span #",
        (Signal.METRICS, "detailed"): "DataPoints #",
        (Signal.LOGS, "normal"): "request_id=",
        (Signal.LOGS, "detailed"): "LogRecord #",
    }
    if (signal, verbosity) in marks:
        assert text.count(marks[signal, verbosity]) == 30
    else:
        assert sum(not line.startswith(("Resource", "Scope")) for line in text.splitlines()) == 30


def test_a_span_in_detail():
    request = traces_request(spans=8, services=1, seed=3)
    span = request.resource_spans[0].scope_spans[0].spans[7]
    span.events.add(name="exception", time_unix_nano=1_700_000_000_000_000_001).attributes.add(
        key="n"
    ).value.int_value = 5
    span.kind, span.status.code = 2, 2
    text = detailed_text(Traces.from_wire(request.SerializeToString()))
    for line in (
        "     -> service.name: Str(backend-api)",
        "InstrumentationScope opentelemetry.instrumentation.fastapi 0.51b0",
        f"    Trace ID       : {span.trace_id.hex()}",
        "    Kind           : Server",
        "    Status code    : Error",
        "     -> batch_size: Int(",
        "     -> tags: Slice([prod,eu])",
        (
            "SpanEvent #0\n     -> Name: exception\n     -> Timestamp: 2023-11-14 22:13:20.000000001 +0000 UTC\n"
            "     -> Attributes:\n          -> n: Int(5)"
        ),
        "SpanLink #0",
    ):
        assert line in text


def test_metrics_of_every_type():
    text = detailed_text(metrics(points=50))
    for kind in ("Sum", "Histogram", "Gauge", "ExponentialHistogram", "Summary"):
        assert f"     -> DataType: {kind}\n" in text
    assert "     -> IsMonotonic: true\n     -> AggregationTemporality: Cumulative" in text
    lines = normal_text(metrics(points=50)).splitlines()
    assert any(
        line.startswith("http_request_duration_seconds{method=POST,") and " le0.005=" in line and " +Inf=" in line
        for line in lines
    )
    assert any(line.startswith("etl_batch_seconds{") and " q0.99=" in line for line in lines)


HOSTILE = "fine\nERROR forged \x1b[31m\x9b1m\x85\u2028\u202e\u2066\r\x00line"


def fill(message, text):
    """Put the text into every string of the message and of those in it, and count them."""
    count = 0
    for field, value in message.ListFields():
        children = value if field.is_repeated else [value]
        if field.message_type is not None:
            count += sum(fill(child, text) for child in children)
    for field in message.DESCRIPTOR.fields:
        one_of = field.containing_oneof
        if field.type != field.TYPE_STRING or (one_of and message.WhichOneof(one_of.name) not in (None, field.name)):
            continue
        if field.is_repeated:
            getattr(message, field.name).append(text)
        else:
            setattr(message, field.name, text)
        count += 1
    return count


@pytest.mark.parametrize("form", [normal_text, detailed_text])
@pytest.mark.parametrize("signal", list(Signal))
def test_no_text_of_a_sender_can_forge_lines(signal, form):
    requests = {Signal.TRACES: traces_request, Signal.METRICS: metrics_request, Signal.LOGS: logs_request}
    texts = []
    for text in ("fine", HOSTILE):
        request = requests[signal](services=1)
        for resource in getattr(request, request.DESCRIPTOR.fields[0].name):
            if signal is Signal.TRACES:
                span = resource.scope_spans[0].spans[0]
                span.events.add().attributes.add()
                span.links.add().attributes.add()
                span.status.SetInParent()
        assert fill(request, text) > 100
        texts.append(form(batch(signal).from_wire(request.SerializeToString())))
    calm, hostile = texts
    assert r"fine\nERROR forged \x1b[31m\x9b1m\x85\u2028\u202e\u2066\r\x00line" in hostile
    assert hostile.count("\n") == calm.count("\n")
    assert hostile.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"verbosity": "loud"}, "verbosity"),
        ({"output_paths": ["stderr"]}, "use_internal_logger: false"),
        ({"use_internal_logger": False, "output_paths": []}, "must not be empty"),
        ({"sampling_initial": -1}, "sampling_initial"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


def test_verbosity_may_be_written_in_capitals():
    assert factory.config_type(verbosity="Detailed").verbosity == "detailed"
