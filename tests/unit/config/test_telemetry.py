"""``service::telemetry``: which attributes the service has, and where they are shown, as the Collector 0.156 does it."""

import pytest
from pydantic import ValidationError

from config.model import TelemetryConfig

READER = {"pull": {"exporter": {"prometheus": {"port": 1}}}}


def reader(constant_labels):
    prometheus = {"port": 1, "with_resource_constant_labels": constant_labels}
    return {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]}}


@pytest.mark.parametrize(
    ("resource", "attributes"),
    [
        (
            {"service.name": "mine", "service.version": None, "schema_url": "x"},
            {"service.name": "mine", "service.version": None},
        ),
        (
            {
                "attributes": [
                    {"name": "team", "value": 7},
                    {"name": "ok", "value": True},
                    {"name": "l", "value": ["a", "b"]},
                ]
            },
            {"team": "7", "ok": "true", "l": "[a b]"},
        ),
        ({"attributes_list": "a=x%20y, b = z,c"}, {"a": "x y", "b": "z"}),
        ({"attributes_list": "a=x", "attributes": [{"name": "a", "value": "y"}]}, {"a": "y"}),
    ],
)
def test_resource_attributes(resource, attributes):
    """The older form and the declarative one are read; values are shown as the Collector shows them."""
    assert TelemetryConfig.model_validate({"resource": resource}).resource_attributes() == attributes


@pytest.mark.parametrize("attributes", [{"a": "b"}, ["a"], [{"value": "x"}], [{"name": ""}]])
def test_attributes_without_names_are_refused(attributes):
    """What is not a list of attributes with names is not ignored."""
    with pytest.raises(ValidationError, match="expected a list of mappings such as"):
        TelemetryConfig.model_validate({"resource": {"attributes": attributes}})


@pytest.mark.parametrize(
    ("constant_labels", "selected"),
    [
        ({}, ["service.name", "team"]),
        ({"included": []}, ["service.name", "team"]),
        ({"included": ["team", "absent"]}, ["team"]),
        ({"excluded": ["team"]}, ["service.name"]),
        ({"included": ["*"]}, []),
    ],
)
def test_constant_labels(constant_labels, selected):
    """An empty list includes everything; names are compared as they are."""
    labels = TelemetryConfig.model_validate(reader(constant_labels)).metrics.constant_labels()
    assert [name for name in ("service.name", "team") if labels.selects(name)] == selected


def test_no_constant_labels_by_default():
    """Without the key, attributes are labels of target_info only."""
    assert TelemetryConfig().metrics.constant_labels() is None
    assert TelemetryConfig.model_validate({"metrics": {"readers": [READER]}}).metrics.constant_labels() is None


def test_contradictory_constant_labels_are_refused():
    """A name cannot be both included and excluded."""
    with pytest.raises(ValidationError, match="'a' is both included and excluded; remove it from one of the lists"):
        TelemetryConfig.model_validate(reader({"included": ["a", "b"], "excluded": ["a"]}))
