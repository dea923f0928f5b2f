"""OTLP metrics as Prometheus metrics: names, labels and series, for the remote-write exporter and the pull exporter."""

from collector.prometheus.attributes import LabelEncoder, LabelFormat
from collector.prometheus.deltas import DeltaTotals
from collector.prometheus.encodable import Encodable, Family
from collector.prometheus.families import METADATA_TYPES
from collector.prometheus.labels import LabelSettings, SeriesLabels
from collector.prometheus.losses import LossReport
from collector.prometheus.naming import (
    UP_DOWN_COUNTER,
    TranslationStrategy,
    escape_by_values,
    escape_label_name,
    metric_name,
    prometheus_type,
)
from collector.prometheus.series import FUTURE_MAX_NS, SeriesCache

__all__ = [
    "FUTURE_MAX_NS",
    "METADATA_TYPES",
    "UP_DOWN_COUNTER",
    "DeltaTotals",
    "Encodable",
    "Family",
    "LabelEncoder",
    "LabelFormat",
    "LabelSettings",
    "LossReport",
    "SeriesCache",
    "SeriesLabels",
    "TranslationStrategy",
    "escape_by_values",
    "escape_label_name",
    "metric_name",
    "prometheus_type",
]
