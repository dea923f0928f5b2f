"""Builders make batches from columns, for components that produce data: receivers, connectors, overflow series.

To change a batch use ``Batch.edit``. A builder holds encoded bytes only: each call encodes its items in one compiled
pass, and each attribute set once, however many rows have it.

The arguments that have a value per row take:

- numbers: an array, or one number for all rows; a masked array is absent where it is masked;
- texts: a sequence, a ``StringColumn``, or one text for all rows;
- attributes: an ``Attributes`` object or a mapping for all rows, a sequence with one of these per row, or
  ``(codes, sets)`` with codes I32[n] into the sets (-1 = none), for which the cost per row is negligible;
- ids: ``U64[n,2]`` (trace ids) or ``U64[n]`` (span ids), big-endian integers as in the model; 0 = unset.

``traces``, ``logs``, ``metrics``  the builder of each signal; ``base`` has what they share
``children``                       events and links of spans, exemplars of points
``attributes``                     encoded attribute sets
``fields``                         the arguments above as fields of messages

Source: opentelemetry-proto 1.x ``trace.proto``, ``metrics.proto``, ``logs.proto``.
"""

from collector.model.builders.attributes import Attributes
from collector.model.builders.children import Events, Exemplars, Links
from collector.model.builders.logs import LogsBuilder
from collector.model.builders.metrics import MetricsBuilder
from collector.model.builders.traces import TracesBuilder

__all__ = ["Attributes", "Events", "Exemplars", "Links", "LogsBuilder", "MetricsBuilder", "TracesBuilder"]
