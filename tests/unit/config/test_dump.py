import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import load
from config.dump import dump, to_yaml
from config.schema import json_schema
from config.yaml import parse, plain

TEXT = """
receivers: {otlp: {protocols: {http: }}}
exporters:
  otlp_grpc:
    endpoint: http://user:hunter2@host/?api_key=hunter2
    password: hunter2
    headers: {x-key: hunter2, y: "010"}
    label: "yes $${x}"
    extra: {api_key: hunter2, n: 1, t: "1"}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}
"""


def config(registry, text=TEXT):
    return load(["f"], (), registry, environ={}, read=lambda path: text)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_redacted_by_default(registry, form):
    """No secret is printed unless asked for."""
    text = dump(config(registry), output_format=form)
    assert "hunter2" not in text
    assert "[REDACTED]" in text
    assert "hunter2" in dump(config(registry), redact=False, output_format=form)


def test_what_is_printed_loads_again(registry):
    """The unredacted text means the same when loaded again; blocks that are absent stay absent."""
    printed = dump(config(registry), redact=False)
    again = config(registry, printed)
    assert dump(again, redact=False) == printed
    (receiver,) = again.receivers.values()
    assert receiver.config.protocols.grpc is None
    (exporter,) = again.exporters.values()
    assert exporter.config.label == "yes ${x}"
    assert exporter.config.extra == {"api_key": "hunter2", "n": 1, "t": "1"}


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
)
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)


@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
        ),
    )
)
def test_yaml_survives(document):
    """Everything written as YAML is read back equal, including texts that look like numbers."""
    assert plain(parse(to_yaml(document), "f")) == document


@pytest.mark.parametrize(
    "text",
    [
        "010",
        "0o17",
        "yes",
        "1_000",
        "~",
        "",
        "<<",
        ".5",
        "1e3",
        "12:30:45",
        "2001-01-01",
        "- a",
        "a: b",
        "#",
        "'",
        '"',
        "null",
        "0x1f",
    ],
)
def test_texts_stay_texts(text):
    """Text that would mean something else unquoted is quoted."""
    assert plain(parse(to_yaml({"v": text, "l": [text]}), "f")) == {"v": text, "l": [text]}


def test_schema_covers_every_section(registry):
    """The JSON Schema has every component type and alias, and shows defaults as they are written."""
    schema = json_schema([each.factory for each in registry.describe() if each.factory])
    json.dumps(schema)
    exporters = schema["properties"]["exporters"]["patternProperties"]
    assert "^(otlp|otlp_grpc)(/.+)?$" in exporters
    assert schema["$defs"]["ExporterConfig"]["properties"]["timeout"]["default"] == "5s"
    assert schema["$defs"]["ExporterConfig"]["additionalProperties"] is False
    assert schema["properties"]["service"]["properties"]["telemetry"]["$ref"] == "#/$defs/TelemetryConfig"
