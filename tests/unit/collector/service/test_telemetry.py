"""The page /metrics: the Collector's names without _total, readable by the parser of prometheus_client."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.api import ComponentId, ComponentKind
from collector.model import Signal
from collector.service.ledger import Ledger
from collector.service.telemetry import ServiceTelemetry
from collector.testing import FakeClock

EXPORTER = (ComponentKind.EXPORTER, ComponentId("otlp_grpc", "a"))


def service() -> ServiceTelemetry:
    resource = {"service.name": "tailrace", "service.version": "1.2.3", "service.instance.id": "me"}
    return ServiceTelemetry(ledger=Ledger(), clock=FakeClock(), resource=resource)


def samples(telemetry: ServiceTelemetry) -> dict:
    # The parser of prometheus_client appends _total to every counter, whatever the page says.
    families = text_string_to_metric_families(telemetry.render())
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_ledger_gives_the_collectors_exporter_counters():
    """sent, send_failed and enqueue_failed are separate counters."""
    telemetry = service()
    exporter = telemetry.component(*EXPORTER)
    exporter.delivered(Signal.TRACES, 5)
    exporter.refused(Signal.TRACES, 2, "http_400")
    exporter.dropped(Signal.TRACES, 3, "retries_exhausted")
    exporter.dropped(Signal.TRACES, 4, "queue_full")
    shown, label = samples(telemetry), (("exporter", "otlp_grpc/a"),)
    assert shown["otelcol_exporter_sent_spans", label] == 5
    assert shown["otelcol_exporter_send_failed_spans", label] == 5
    assert shown["otelcol_exporter_enqueue_failed_spans", label] == 4
    node = {"signal": "traces", "component": "exporters/otlp_grpc/a"}
    lost = tuple(sorted({**node, "outcome": "dropped", "reason": "queue_full"}.items()))
    assert shown["tailrace_items", lost] == 4
    assert shown["tailrace_items_held", tuple(sorted(node.items()))] == 0


def test_a_processor_in_two_pipelines_is_one_series_for_the_collectors_dashboards():
    """incoming and outgoing are summed over pipelines; the processor's own metrics have a label for the pipeline."""
    telemetry = service()
    for pipeline, count in (("logs/a", 3), ("logs/b", 4)):
        component = telemetry.component(ComponentKind.PROCESSOR, ComponentId("batch"), pipeline)
        component.entry(Signal.LOGS).received = count
        component.counter("otelcol_processor_batch_timeout_trigger_send", "Sends by time").add(count)
    shown = samples(telemetry)
    assert shown["otelcol_processor_incoming_items", (("otel_signal", "logs"), ("processor", "batch"))] == 7
    assert shown["otelcol_processor_batch_timeout_trigger_send", (("pipeline", "logs/b"), ("processor", "batch"))] == 4


def test_metrics_of_all_kinds_are_rendered_and_parsed():
    """Counters without _total, gauges that are set or read, histograms with cumulative buckets, and escaped labels."""
    telemetry = service()
    component = telemetry.component(*EXPORTER)
    counter = component.counter("tailrace_tries", "Tries\nin two lines", ("code",))
    counter.add(code='4"0\\0\n')
    counter.add(2, code='4"0\\0\n')
    component.gauge("otelcol_exporter_queue_size", "Size", ("data_type",), read=lambda: {("traces",): 9.0})
    component.gauge("tailrace_plain", "Plain").set(1.5)
    histogram = component.histogram("tailrace_seconds", "Seconds", (0.1, 1.0))
    for value in (0.05, 0.5, 5.0):
        histogram.observe(value)
    shown = samples(telemetry)
    exporter = ("exporter", "otlp_grpc/a")
    assert shown["tailrace_tries", (("code", '4"0\\0\n'), exporter)] == 3
    assert shown["otelcol_exporter_queue_size", (("data_type", "traces"), exporter)] == 9
    assert shown["tailrace_plain", (exporter,)] == 1.5
    assert [shown["tailrace_seconds_bucket", (exporter, ("le", le))] for le in ("0.1", "1.0", "+Inf")] == [1, 2, 3]
    assert shown["tailrace_seconds_sum", (exporter,)] == 5.55
    assert "_total{" not in telemetry.render()
    assert "_total " not in telemetry.render()


def test_identity_and_process_are_shown():
    """target_info identifies the instance; the Collector's process metrics are on the page."""
    shown = samples(service())
    assert (
        shown[
            "target_info", (("service_instance_id", "me"), ("service_name", "tailrace"), ("service_version", "1.2.3"))
        ]
        == 1
    )
    for name in ("uptime", "cpu_seconds", "memory_rss"):
        assert (f"otelcol_process_{name}", ()) in shown
    assert shown["otelcol_process_memory_rss", ()] > 1_000_000


def test_asking_twice_gives_the_same_metric_and_another_shape_is_refused():
    """A new object that requests the metric after a reload gets the same one."""
    telemetry = service()
    component = telemetry.component(*EXPORTER)
    assert component.counter("tailrace_x", "X") is telemetry.component(*EXPORTER).counter("tailrace_x", "X")
    with pytest.raises(ValueError, match="tailrace_x is already a counter"):
        component.gauge("tailrace_x", "X")
    with pytest.raises(ValueError, match="cannot be decreased"):
        component.counter("tailrace_x", "X").add(-1)
    with pytest.raises(ValueError, match="labels"):
        component.counter("tailrace_x", "X").add(code="1")
    component.gauge("tailrace_read", "R", read=lambda: 1)
    component.gauge("tailrace_read", "R", read=lambda: 2)
    assert samples(telemetry)["tailrace_read", (("exporter", "otlp_grpc/a"),)] == 2


def test_a_gauge_that_cannot_be_read_does_not_take_the_page_down():
    """The other metrics are on the page."""
    telemetry = service()
    component = telemetry.component(*EXPORTER)
    component.gauge("tailrace_broken", "B", read=lambda: 1 / 0)
    component.gauge("tailrace_fine", "F", read=lambda: 1)
    assert ("tailrace_fine", (("exporter", "otlp_grpc/a"),)) in samples(telemetry)


def test_a_removed_component_is_forgotten():
    """Its metrics are removed; its rows in the ledger stay."""
    telemetry = service()
    component = telemetry.component(*EXPORTER)
    component.counter("tailrace_x", "X").add()
    component.delivered(Signal.LOGS, 1)
    telemetry.retain({(ComponentKind.EXPORTER, ComponentId("loki"), "")})
    page = telemetry.render()
    assert "tailrace_x" not in page
    assert "exporters/otlp_grpc/a" in page


@pytest.mark.parametrize(
    "name",
    [
        "otelcol_exporter_sent_spans",
        "otelcol_exporter_enqueue_failed_log_records",
        "otelcol_receiver_accepted_metric_points",
        "otelcol_processor_incoming_items",
    ],
)
def test_what_the_ledger_says_no_component_counts_itself(name):
    """Such metrics have one source: a second would show a series twice, and Prometheus refuses such a page."""
    with pytest.raises(ValueError, match="is computed from the ledger"):
        service().component(*EXPORTER).counter(name, "Mine")


def test_what_a_full_storage_refused_was_never_queued():
    """It counts as enqueue_failed, like data that a full queue refused; all other failures count as send_failed."""
    telemetry = service()
    component = telemetry.component(*EXPORTER)
    for reason, count in (("queue_full", 1), ("storage_full", 2), ("retries_exhausted", 4)):
        component.dropped(Signal.TRACES, count, reason)
    page = telemetry.render()
    assert 'otelcol_exporter_enqueue_failed_spans{exporter="otlp_grpc/a"} 3.0' in page
    assert 'otelcol_exporter_send_failed_spans{exporter="otlp_grpc/a"} 4.0' in page


def test_the_resource_is_in_target_info_and_in_every_metric_if_selected():
    """Names are sanitized, values of names that become equal are joined, and a metric's own labels take precedence."""
    resource = {"service.name": "gateway", "a.b": "x", "a_b": "y", "exporter": "mine", "team": "7"}
    telemetry = ServiceTelemetry(
        ledger=Ledger(), clock=FakeClock(), resource=resource, constant=["service.name", "exporter"]
    )
    telemetry.component(*EXPORTER).delivered(Signal.TRACES, 5)
    telemetry.component(*EXPORTER).histogram("tailrace_h", "H", (1.0,)).observe(2)
    shown = samples(telemetry)
    identity = (("a_b", "x;y"), ("exporter", "mine"), ("service_name", "gateway"), ("team", "7"))
    assert shown["target_info", identity] == 1
    own = (("exporter", "otlp_grpc/a"), ("service_name", "gateway"))
    assert shown["otelcol_exporter_sent_spans", own] == 5
    assert shown["tailrace_h_count", own] == 1
    assert all(("service_name", "gateway") in labels for _, labels in shown)
    telemetry.identify({"service.name": "other"}, [])
    assert samples(telemetry)["otelcol_exporter_sent_spans", own[:1]] == 5


def test_a_successor_is_shown_once_it_runs():
    """Until then its predecessor's gauges are read; counters are the same from the beginning."""
    telemetry = service()
    old = telemetry.component(*EXPORTER)
    old.gauge("tailrace_size", "S", read=lambda: 1)
    old.counter("tailrace_x", "X").add()
    new = telemetry.component(*EXPORTER, is_shown=False)
    new.gauge("tailrace_size", "S", read=lambda: 2)
    new.counter("tailrace_x", "X").add()
    labels = (("exporter", "otlp_grpc/a"),)
    assert samples(telemetry)["tailrace_size", labels] == 1
    assert samples(telemetry)["tailrace_x", labels] == 2
    new.show()
    assert samples(telemetry)["tailrace_size", labels] == 2
    new.gauge("tailrace_size", "S", read=lambda: 3)
    assert samples(telemetry)["tailrace_size", labels] == 3
