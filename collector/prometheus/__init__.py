"""OTLP metrics as Prometheus sees them: names, labels and series, shared by the remote-write and the pull exporter."""

from collector.prometheus.labels import LabelSettings, SeriesLabels
from collector.prometheus.naming import STRATEGIES, TranslationStrategy, escape_label_name, metric_name, prometheus_type
from collector.prometheus.series import Encodable, Family, LabelEncoder, SeriesCache

__all__ = [
    "STRATEGIES",
    "Encodable",
    "Family",
    "LabelEncoder",
    "LabelSettings",
    "SeriesCache",
    "SeriesLabels",
    "TranslationStrategy",
    "escape_label_name",
    "metric_name",
    "prometheus_type",
]
