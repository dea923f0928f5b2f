"""``validate`` foresees that an exporter to Prometheus will write several streams as one series."""

import pytest

from collector.registry import Registry
from config.load import examine

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{}}}}}}}}
processors:
  resource/name: {{attributes: [{{action: delete, key: service.name}}]}}
  resource/instance: {{attributes: [{{action: delete, key: service.instance.id}}]}}
  resource/host: {{attributes: [{{action: delete, key: host.name}}]}}
  resource/pattern: {{attributes: [{{action: delete, pattern: instance}}]}}
  resource/moved: {{attributes: [{{action: upsert, key: service.instance.id, from_attribute: host.name}}]}}
  resource/lost: {{attributes: [{{action: upsert, key: service.instance.id, from_attribute: service.instance.id}}]}}
  resource/put_back:
    attributes: [{{action: delete, key: service.instance.id}}, {{action: insert, key: service.instance.id, value: a}}]
  batch: {{}}
exporters:
  prometheus: {{endpoint: "localhost:0"}}
  prometheus_remote_write/hosts: {{endpoint: "http://localhost:1", resource_constant_labels: {{included: [host.name]}}}}
  debug: {{}}
connectors: {{span_metrics: {{}}, service_graph: {{}}, forward: {{}}}}
service: {{pipelines: {pipelines}}}
"""


def warnings(pipelines):
    """The warnings about merged series, as pairs of the processor and what it says."""
    found = examine([f"yaml:{CONFIG.format(pipelines=pipelines)}"], [], Registry(), environ={})
    assert found.config is not None, found.errors
    return [(warning.path[1], warning.message) for warning in found.warnings if "as one series" in warning.message]


@pytest.mark.parametrize(
    ("processors", "processor"),
    [
        ("resource/instance", "resource/instance"),
        ("batch, resource/instance, resource/host", "resource/instance"),
        ("resource/name", "resource/name"),
        ("resource/instance, resource/lost", "resource/instance"),
        ("resource/host", ""),
        ("resource/pattern", ""),
        ("resource/instance, resource/moved", ""),
        ("resource/put_back", ""),
        ("resource/moved", ""),
        ("batch", ""),
    ],
)
def test_processors(processors, processor):
    """A processor that certainly removes what identifies an instance is named, unless another one restores it."""
    found = warnings(f"{{metrics: {{receivers: [otlp], processors: [{processors}], exporters: [prometheus, debug]}}}}")
    assert [name for name, _ in found] == ([processor] if processor else [])


def test_the_message():
    """It names the attribute, the pipeline and the exporter, and says what will happen."""
    ((_, message),) = warnings(
        "{metrics/a: {receivers: [otlp], processors: [resource/instance], exporters: [prometheus]}}"
    )
    assert message == (
        "removes service.instance.id in the pipeline 'metrics/a', so the exporter 'prometheus' writes metrics of all "
        "instances of a service as one series: sums are added up, and only the latest value of a gauge remains"
    )


def test_another_label_may_identify_instances():
    """An exporter for which other resource attributes become labels is not reported."""
    metrics = "{receivers: [otlp], processors: [resource/instance], exporters: [prometheus_remote_write/hosts]}"
    assert warnings(f"{{metrics: {metrics}}}") == []


@pytest.mark.parametrize(
    ("connector", "signal", "count"),
    [("forward", "metrics", 1), ("span_metrics", "traces", 1), ("service_graph", "traces", 0)],
)
def test_behind_a_connector(connector, signal, count):
    """The loss is followed through connectors that keep resources, and a processor behind them may restore it."""
    first = f"{signal}/in: {{receivers: [otlp], processors: [resource/instance], exporters: [{connector}]}}"
    second = f"metrics/out: {{receivers: [{connector}], processors: [%s], exporters: [prometheus]}}"
    assert len(warnings(f"{{{first}, {second % 'batch'}}}")) == count
    assert warnings(f"{{{first}, {second % 'resource/moved'}}}") == []


def test_other_signals_do_not_matter():
    """Spans and log records keep their identity in themselves."""
    assert warnings("{traces: {receivers: [otlp], processors: [resource/instance], exporters: [debug]}}") == []
