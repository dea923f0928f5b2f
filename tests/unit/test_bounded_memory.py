"""Whatever senders write into texts, components hold little of it: no cache keyed by text from outside grows for good."""

from collector.model import Logs, Metrics, Traces
from collector.testing import FakeHost, make
from collector.testing.generate import logs_request, metrics_request, traces_request

MIB = 1024 * 1024


def everywhere(message, text):
    """The message with ``text`` in each of its texts: names, descriptions, keys, values, trace states."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if field.is_repeated else [value]:
                everywhere(child, text)
        elif field.type == field.TYPE_STRING and not field.is_repeated:
            # What components look for stays what it is.
            kept = field.name == "key" and value in ("service.name", "http.request.method", "url.path", "tenant_id")
            if not kept:
                setattr(message, field.name, f"{value} {text}")
    return message


def one_of_each(request, signal):
    """A small request: with every kind of item, but few of them."""
    for group in getattr(request, {"traces": "resource_spans"}.get(signal, f"resource_{signal}")):
        group.resource.attributes.add(key="service.name").value.string_value = "a"
    return request


def spans(text):
    message = traces_request(spans=2, services=1)
    for group in message.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                span.trace_state = "ot=th:8;x:y"
                for key in ("http.request.method", "url.path"):
                    span.attributes.add(key=key).value.string_value = "/"
    return Traces.from_wire(everywhere(message, text).SerializeToString())


def points(text):
    message = metrics_request(points=8, services=1)
    for group in message.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                metric.description = "about"
                for point in [*metric.sum.data_points, *metric.gauge.data_points]:
                    point.attributes.add(key="tenant_id").value.string_value = "t"
                    point.attributes.add(key="url.path").value.string_value = "/"
    return Metrics.from_wire(everywhere(message, text).SerializeToString())


def records(text):
    return Logs.from_wire(everywhere(logs_request(records=2, services=1), text).SerializeToString())


class Component:
    """A running component whose outputs keep nothing."""

    def __init__(self, factory, kind, config, signal):
        self.probe = make(factory, kind, config, signal=signal)

    async def __aenter__(self):
        await self.probe.component.start(FakeHost())
        return self.probe

    async def __aexit__(self, *_):
        await self.probe.component.shutdown()
