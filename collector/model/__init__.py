"""Traces, Metrics and Logs: immutable tables over the bytes of a request. The public API of ``collector.wire``.

A batch consists of bytes and an index of them (``tables``, ``batch``). A component reads columns (``columns``,
``attributes``), computes masks or columns, and makes another batch with ``select``, ``edit``, ``partition`` or
``concat``. The state it keeps between batches is keyed by 128-bit keys (``KeyTable``); rows are grouped by ``groups``;
new data is made with the ``builders``.
"""

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.batch import Batch, Checked
from collector.model.builders import Attributes, Events, Exemplars, Links, LogsBuilder, MetricsBuilder, TracesBuilder
from collector.model.columns import StringColumn
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.edit import Edit
from collector.model.groups import Groups, groups
from collector.model.json import from_json, to_json
from collector.model.keys import combine_keys, hash_text
from collector.model.keytable import KeyTable
from collector.model.logs import Logs
from collector.model.metrics import Metrics
from collector.model.schema import ITEM
from collector.model.signal import Signal
from collector.model.tables import Table
from collector.model.traces import Traces
from collector.model.values import AttributeValue
from collector.wire.errors import MalformedBatch
from collector.wire.layout import (
    KIND_ABSENT,
    KIND_ARRAY,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_EMPTY,
    KIND_INT,
    KIND_MAP,
    KIND_STRING,
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_NONE,
    METRIC_SUM,
    METRIC_SUMMARY,
    PRESENT_MAX,
    PRESENT_MIN,
    PRESENT_SUM,
    TEMPORALITY_CUMULATIVE,
    TEMPORALITY_DELTA,
)

__all__ = [
    "EMPTY_CONTEXT",
    "ITEM",
    "KIND_ABSENT",
    "KIND_ARRAY",
    "KIND_BOOL",
    "KIND_BYTES",
    "KIND_DOUBLE",
    "KIND_EMPTY",
    "KIND_INT",
    "KIND_MAP",
    "KIND_STRING",
    "METRIC_EXPONENTIAL_HISTOGRAM",
    "METRIC_GAUGE",
    "METRIC_HISTOGRAM",
    "METRIC_NONE",
    "METRIC_SUM",
    "METRIC_SUMMARY",
    "PRESENT_MAX",
    "PRESENT_MIN",
    "PRESENT_SUM",
    "TEMPORALITY_CUMULATIVE",
    "TEMPORALITY_DELTA",
    "AttributeColumn",
    "AttributeTable",
    "AttributeValue",
    "Attributes",
    "Batch",
    "Checked",
    "Context",
    "Edit",
    "Events",
    "Exemplars",
    "Groups",
    "KeyTable",
    "Links",
    "Logs",
    "LogsBuilder",
    "MalformedBatch",
    "Metrics",
    "MetricsBuilder",
    "Signal",
    "StringColumn",
    "Table",
    "Traces",
    "TracesBuilder",
    "batch_type",
    "combine_keys",
    "from_json",
    "groups",
    "hash_text",
    "to_json",
]

_BATCH_TYPES: dict[Signal, type[Batch]] = {Signal.TRACES: Traces, Signal.METRICS: Metrics, Signal.LOGS: Logs}


def batch_type(signal: Signal) -> type[Batch]:
    """The batch class of a signal.

    >>> batch_type(Signal.LOGS)
    <class 'collector.model.logs.Logs'>
    """
    return _BATCH_TYPES[signal]
