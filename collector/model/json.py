"""OTLP/JSON and batches. Not JSON texts of single values (``model.values``)."""

from collector.model.batch import Batch
from collector.model.signal import Signal
from collector.wire import json as wire_json

__all__ = ["from_json", "to_json"]


def from_json(signal: Signal, body: bytes) -> bytes:
    """The protobuf bytes of an OTLP/JSON request; they are still to go through the door (``Batch.check``).

    Raises:
        MalformedBatch: the body is no JSON, or a value does not fit its field; its path says which.
    """
    return wire_json.from_json(signal.value, body)


def to_json(batch: Batch | tuple[Signal, bytes]) -> bytes:
    """A batch, or a signal with a valid request's bytes, as OTLP/JSON on one line without a line end.

    Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding"; file exporters write one such object a
        line.
    """
    signal, wire = batch if isinstance(batch, tuple) else (batch.signal, batch.wire)
    return wire_json.to_json(signal.value, wire)
