"""The kernel that writes the labels of new series agrees with the rules in ``SeriesLabels``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUMMARY, Metrics
from collector.prometheus import LabelSettings, SeriesLabels
from collector.prometheus.families import Families
from collector.prometheus.source_labels import SourceLabels
from exporters.prometheus.store import LABEL_FORMAT as TEXT
from exporters.prometheus_remote_write.messages import LABEL_FORMAT as PROTOBUF

KEYS = st.sampled_from(
    ["a.b", "a_b", "z", "le", "quantile", "job", "instance", "__name__", "otel_scope_name", "env", "UPPER", "имя", ""]
)
VALUES = st.one_of(st.text('a"\\\né\U0001f600', max_size=3), st.integers(-5, 5), st.booleans())
ATTRIBUTES = st.lists(st.tuples(KEYS, VALUES), max_size=6)
SAMPLED = (METRIC_HISTOGRAM, METRIC_SUMMARY)


def set_attributes(to, pairs):
    for key, value in pairs:
        at = to.add(key=key).value
        if isinstance(value, bool):
            at.bool_value = value
        elif isinstance(value, int):
            at.int_value = value
        else:
            at.string_value = value


def text_of(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def request(groups):
    """``groups``: (resource attributes, scope name, scope attributes, attributes of each point)."""
    made = ExportMetricsServiceRequest()
    for resource, scope, scope_attributes, points in groups:
        at = made.resource_metrics.add()
        set_attributes(at.resource.attributes, resource)
        at = at.scope_metrics.add()
        at.scope.name = scope
        set_attributes(at.scope.attributes, scope_attributes)
        for name, data in (("g", "gauge"), ("h", "histogram"), ("s", "summary")):
            metric = getattr(at.metrics.add(name=name), data)
            if data == "histogram":
                metric.aggregation_temporality = 2
            for pairs in points:
                set_attributes(metric.data_points.add(time_unix_nano=1).attributes, pairs)
    return Metrics.from_wire(made.SerializeToString())


def expected(labels, label_format, groups):
    found = []
    for resource, scope, scope_attributes, points in groups:
        for split, is_sampled in (("le", False), ("le", True), ("quantile", True)):
            for pairs in points:
                texts = [[(key, text_of(value)) for key, value in of] for of in (pairs, resource, scope_attributes)]
                pieces = [b"", b"", b""]
                for name, value in labels.series(texts[0], texts[1], (scope, "", "", texts[2])):
                    if not (is_sampled and name == split):
                        piece = 0 if name < "__name__" else 1 if name < split else 2
                        pieces[piece] += label_format.encode_label(name, value)
                found.append(pieces)
    return found


@pytest.mark.parametrize("label_format", [PROTOBUF, TEXT], ids=["protobuf", "text"])
@given(
    st.lists(
        st.tuples(ATTRIBUTES, st.sampled_from(["", "lib"]), ATTRIBUTES, st.lists(ATTRIBUTES, max_size=4)), max_size=3
    ),
    st.sampled_from([{}, {"env": "prod", "job": "mine", "z": "1"}]),
    st.booleans(),
)
def test_labels_are_those_of_the_rules(label_format, groups, external, scope_info):
    """Any attributes, also with equal names, empty values and names that the exporter itself uses."""
    labels = SeriesLabels(
        LabelSettings(external_labels=external, scope_info=scope_info, resource_attributes=("env", "z", "a*"))
    )
    batch = request(groups)
    if not batch.item_count:
        return
    families = Families(label_format.encode_label, "UnderscoreEscapingWithSuffixes", "", SAMPLED)
    family = families.numbers_of(batch)[batch.table().rows["parent"]]
    types = batch.table("metrics").rows["type"][batch.table().rows["parent"]]
    rows = np.arange(batch.item_count)
    written = SourceLabels(labels, label_format, SAMPLED).write(batch, rows, family, types, families)
    found = []
    for start, *sizes in written.pieces.tolist():
        ends = start + np.cumsum([0, *sizes])
        found.append([written.encoded[ends[i] : ends[i + 1]] for i in range(3)])
    assert found == expected(labels, label_format, groups)
    keys = {tuple(row) for row in written.identities.tolist()}
    distinct = {(b"".join(pieces), number) for pieces, number in zip(found, family.tolist(), strict=True)}
    assert len(keys) == len(distinct), "series are told apart by labels and name"


def test_points_with_very_many_attributes_have_the_same_labels():
    """They are not left to the kernel, which would take quadratic time."""
    pairs = [(f"key{i:03}", str(i)) for i in range(200)]
    groups = [([("service.name", "api")], "lib", [], [pairs, pairs[:5]])]
    labels = SeriesLabels(LabelSettings())
    batch = request(groups)
    families = Families(PROTOBUF.encode_label, "UnderscoreEscapingWithSuffixes", "", SAMPLED)
    family = families.numbers_of(batch)[batch.table().rows["parent"]]
    types = batch.table("metrics").rows["type"][batch.table().rows["parent"]]
    written = SourceLabels(labels, PROTOBUF, SAMPLED).write(batch, np.arange(batch.item_count), family, types, families)
    assert [written.labels(row).tobytes() for row in range(6)] == [
        b"".join(pieces) for pieces in expected(labels, PROTOBUF, groups)
    ]
    assert METRIC_GAUGE in types


def test_only_some_of_the_points_of_a_batch():
    """The texts of the others are not encoded, and those of the chosen ones are found."""
    groups = [([], "", [], [[("k", f"value {i}")] for i in range(50)])]
    batch = request(groups)
    families = Families(PROTOBUF.encode_label, "UnderscoreEscapingWithSuffixes", "", SAMPLED)
    family = families.numbers_of(batch)[batch.table().rows["parent"]]
    types = batch.table("metrics").rows["type"][batch.table().rows["parent"]]
    rows = np.array([3, 60, 61, 149])
    written = SourceLabels(SeriesLabels(LabelSettings()), PROTOBUF, SAMPLED).write(batch, rows, family, types, families)
    assert [written.labels(i).tobytes() for i in range(4)] == [
        PROTOBUF.encode_label("k", f"value {row % 50}") for row in rows.tolist()
    ]
