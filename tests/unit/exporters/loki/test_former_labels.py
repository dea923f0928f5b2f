"""``default_labels_enabled``: labels, hints and tenants as the Collector's former exporter had them."""

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import ValidationError

from collector.model import Logs, Signal
from collector.testing import make_settings
from config.validation import parse_model
from config.yaml import Position, parse
from exporters.loki import factory
from exporters.loki.config import LokiConfig


def exporter(enabled=None, **keys):
    config = {"endpoint": "http://localhost:3100", "default_labels_enabled": enabled or {}, **keys}
    return factory.create(make_settings(factory, signals={Signal.LOGS}), LokiConfig.model_validate(config))


def add(target, attributes):
    for key, value in attributes.items():
        if isinstance(value, list):
            for one in value:
                target.attributes.add(key=key).value.array_value.values.add(string_value=one)
        else:
            target.attributes.add(key=key).value.string_value = value


def batch(*groups):
    """Each group: attributes of a resource, and for each record its attributes and severity number."""
    made = ExportLogsServiceRequest()
    for resource, *records in groups:
        logs = made.resource_logs.add()
        add(logs.resource, resource)
        scope = logs.scope_logs.add()
        for attributes, number in records:
            add(scope.log_records.add(time_unix_nano=1, severity_number=number), attributes)
    return Logs.from_wire(made.SerializeToString())


@pytest.fixture
def pushed(push_request):
    """(tenant, labels) → the structured metadata of each record."""

    def push(sut, logs):
        return {
            (part.payload[0], stream.labels): [
                {pair.name: pair.value for pair in entry.metadata if pair.name != "severity_number"}
                for entry in stream.entries
            ]
            for part in sut.encode(logs)
            for stream in push_request.FromString(part.payload[1]).streams
        }

    return push


@pytest.mark.parametrize(
    ("resource", "record", "labels"),
    [
        ({}, ({}, 0), '{exporter="OTLP"}'),
        ({"service.name": "api"}, ({}, 9), '{exporter="OTLP", job="api", level="INFO"}'),
        (
            {"service.namespace": "shop", "service.name": "api"},
            ({}, 14),
            '{exporter="OTLP", job="shop/api", level="WARN2"}',
        ),
        ({"service.namespace": "shop"}, ({}, 24), '{exporter="OTLP", level="FATAL4"}'),
        ({"service.instance.id": "i1"}, ({}, 1), '{exporter="OTLP", instance="i1", level="TRACE"}'),
        ({}, ({"level": "odd"}, 9), '{exporter="OTLP", level="odd"}'),
        ({"level": "of the resource"}, ({}, 25), '{exporter="OTLP"}'),
    ],
)
def test_default_labels(pushed, resource, record, labels):
    """exporter, job, instance and level, each only if there is a value."""
    assert list(pushed(exporter(), batch((resource, record)))) == [("", labels)]


def test_default_labels_can_be_switched_off(pushed):
    """Those left out stay on; labels and static_labels are added, and take precedence."""
    logs = batch(({"service.name": "api", "service.instance.id": "i", "zone": "z"}, ({}, 9)))
    assert list(pushed(exporter({"exporter": False, "level": False}), logs)) == [("", '{instance="i", job="api"}')]
    chosen = exporter({"instance": False}, labels={"zone": "zone", "job": "zone"}, static_labels={"exporter": "mine"})
    assert list(pushed(chosen, logs)) == [("", '{exporter="mine", job="z", level="INFO", zone="z"}')]
    nothing = exporter(dict.fromkeys(("exporter", "job", "instance", "level"), False))
    assert list(pushed(nothing, logs)) == [("", '{service_name="unknown_service"}')]


ONLY_HINTS = dict.fromkeys(("exporter", "job", "instance", "level"), False)


@pytest.mark.parametrize(
    ("resource", "record", "labels", "metadata"),
    [
        (
            {"loki.resource.labels": "host.name, a", "host.name": "h", "a": "b", "c": "d"},
            {},
            '{a="b", host_name="h"}',
            {"c": "d"},
        ),
        ({"host.name": "h"}, {"loki.resource.labels": "host.name"}, '{host_name="h"}', {"host_name": "h"}),
        ({"x": "r"}, {"loki.attribute.labels": "x,y", "y": "1"}, '{y="1"}', {"x": "r"}),
        (
            {"loki.resource.labels": "x", "x": "r"},
            {"loki.attribute.labels": "x", "x": "a"},
            '{x="a"}',
            {},
        ),
        ({}, {"loki.attribute.labels": '["p", "q"]', "p": "1", "q": "2"}, '{p="1", q="2"}', {}),
        ({}, {"loki.attribute.labels": "absent, ,é", "é": "x"}, '{key_="x"}', {}),
        ({}, {"loki.attribute.labels": "[1", "loki.format": "json"}, '{service_name="unknown_service"}', {}),
        ({"y": "r"}, {"loki.attribute.labels": "y", "y": "a"}, '{y="a"}', {"y": "r"}),
    ],
)
def test_hints(pushed, resource, record, labels, metadata):
    """Hints name attributes that become labels; neither these nor the hints are sent as structured metadata."""
    assert pushed(exporter(ONLY_HINTS), batch((resource, (record, 0)))) == {("", labels): [metadata]}


def test_hints_hold_for_their_own_records(pushed):
    """Records and resources without a hint keep their attributes."""
    hint = {"loki.attribute.labels": "a"}
    logs = batch(
        ({"loki.resource.labels": "r", "r": "1"}, ({"a": "x", **hint}, 0), ({"a": "y"}, 0)),
        ({"r": "2"}, ({"a": "z", **hint}, 0)),
    )
    assert pushed(exporter(ONLY_HINTS), logs) == {
        ("", '{a="x", r="1"}'): [{}],
        ("", '{r="1"}'): [{"a": "y"}],
        ("", '{a="z"}'): [{"r": "2"}],
    }


def test_hints_are_ignored_otherwise(pushed):
    """Without default_labels_enabled they are attributes like any other."""
    config = LokiConfig.model_validate({"endpoint": "http://localhost:3100"})
    sut = factory.create(make_settings(factory, signals={Signal.LOGS}), config)
    logs = batch(({"service.name": "api"}, ({"loki.attribute.labels": "a", "a": "x"}, 0)))
    assert pushed(sut, logs) == {("", '{service="api"}'): [{"a": "x", "loki_attribute_labels": "a"}]}


def test_hints_are_bounded(pushed):
    """Senders cannot make more and more labels; values beyond the limit are replaced and kept."""
    sut = exporter(ONLY_HINTS, label_values_limit=2)
    for number in range(100):
        key = f"k{number}"
        pushed(sut, batch(({}, ({"loki.attribute.labels": key, key: "v"}, 0))))
    late = batch(({}, ({"loki.attribute.labels": "late", "late": "v"}, 0)))
    assert pushed(sut, late) == {("", '{service_name="unknown_service"}'): [{"late": "v"}]}
    hint = {"loki.attribute.labels": "k0"}
    for value in ("w", "x"):
        found = pushed(sut, batch(({}, ({"k0": value, **hint}, 0))))
    assert found == {("", '{k0="__other__"}'): [{"k0": "x"}]}
    huge = {"loki.attribute.labels": "k0," * 10_000, "k0": "w"}
    assert pushed(sut, batch(({}, (huge, 0)))) == {("", '{service_name="unknown_service"}'): [{"k0": "w"}]}


@pytest.mark.parametrize(
    ("resource", "record", "tenant"),
    [
        ({}, {}, "shared"),
        ({"loki.tenant": "host.name", "host.name": "h"}, {}, "h"),
        ({"loki.tenant": "team"}, {"team": "t"}, "t"),
        ({}, {"loki.tenant": "team", "team": "t"}, "t"),
        ({"loki.tenant": "x", "x": "r"}, {"loki.tenant": "team", "team": "t"}, "r"),
        ({"loki.tenant": "absent"}, {}, "shared"),
    ],
)
def test_tenants(pushed, resource, record, tenant):
    """The hint of the resource precedes that of the record, and its attribute is looked up in the resource first."""
    sut = exporter(ONLY_HINTS, tenant={"default": "shared"})
    assert [found for found, _ in pushed(sut, batch((resource, (record, 0))))] == [tenant]


def test_a_configured_tenant_takes_precedence(pushed):
    """``tenant.attribute`` replaces the hint."""
    sut = exporter(ONLY_HINTS, tenant={"attribute": "team"})
    logs = batch(({"loki.tenant": "host.name", "host.name": "h"}, ({"team": "t"}, 0)))
    assert [tenant for tenant, _ in pushed(sut, logs)] == ["t"]


def test_what_differs_is_said():
    """For files of the Collector, which have the whole push URL, and for those that ask for its labels."""

    def keys(**config):
        return [key for key, _ in LokiConfig.model_validate(config).warnings()]

    url = "http://localhost:3100"
    assert keys(endpoint=url) == []
    assert keys(endpoint=f"{url}/loki/api/v1/push") == ["endpoint"]
    assert keys(endpoint=f"{url}/loki/api/v1/push", labels={"a": "a"}) == []
    assert keys(endpoint=f"{url}/loki/api/v1/push", default_labels_enabled={"job": False}) == ["default_labels_enabled"]


def test_contradictions_are_refused():
    """The level has one key only in this scheme."""
    with pytest.raises(ValidationError, match="level_label cannot be combined with default_labels_enabled"):
        LokiConfig.model_validate({"endpoint": "http://x", "default_labels_enabled": {}, "level_label": "severity"})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "labels: {attributes: {http.status_code: status, severity: ''}, resource: {pod: k8s_pod}}",
            "write labels: {status: http.status_code, severity: severity, k8s_pod: pod}, and default_labels_enabled: {}",
        ),
        ("labels: {record: {traceID: ''}}", "write labels: {traceID: traceID}, and default_labels_enabled"),
        (
            "format: json",
            "exporters::loki::format: this key of the Collector's former exporter is not available: lines",
        ),
        ("format: logfmt", "remove it (default_labels_enabled: {} keeps the former labels)"),
        (
            "tenant: {source: static, value: acme}",
            "exporters::loki::tenant::source: this key of the Collector's former",
        ),
        ("tenant: {source: static, value: acme}", "write tenant: {default: acme}"),
        ("tenant: {source: attributes, value: org}", "write tenant: {attribute: org}"),
        ("tenant: {source: context, value: X-Scope-OrgID}", "headers_setter"),
    ],
)
def test_keys_of_the_former_exporter_say_what_to_write_now(keys, said):
    """At the place of the key; everything else of the block is reported once these are changed."""
    node = parse(f"endpoint: http://x\n{keys}", "c.yaml")
    config, (error,) = parse_model(LokiConfig, node, Position("c.yaml", 1, 1), ("exporters", "loki"))
    assert config is None
    assert (said in str(error), error.line) == (True, 2)


def test_what_the_messages_say_is_accepted():
    """And tenant_id, whose meaning is the same, is accepted as it is."""
    keys = {"labels": {"status": "http.status_code"}, "default_labels_enabled": {}, "tenant": {"attribute": "org"}}
    assert LokiConfig.model_validate({"endpoint": "http://x", **keys}).labels == {"status": ("http.status_code",)}
    assert LokiConfig.model_validate({"endpoint": "http://x", "tenant_id": "acme"}).tenant.default == "acme"
    assert LokiConfig.model_validate({"endpoint": "http://x", "labels": {"attributes": ["a"]}}).labels
