"""Batches from and to OTLP/JSON. The JSON text of single values is in ``values``."""

from collector.model.batch import Batch
from collector.model.signal import Signal
from collector.wire import json as wire_json

__all__ = ["from_json", "to_json"]


def from_json(signal: Signal, body: bytes) -> bytes:
    """The protobuf bytes of an OTLP/JSON request. They are not validated yet: pass them to ``Batch.check``.

    >>> from collector.model import Logs, Signal, from_json
    >>> body = b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}}]}]}]}'
    >>> Logs.from_wire(from_json(Signal.LOGS, body)).field("body").text.to_list()
    ['hello']

    Raises:
        MalformedBatch: The body is not JSON, or a value does not fit its field, which the path names.
    """
    return wire_json.from_json(signal.value, body)


def to_json(batch: Batch | tuple[Signal, bytes]) -> bytes:
    """A batch, or a signal and the bytes of a valid request, as OTLP/JSON on one line without a line end.

    >>> to_json(traces)[:57]
    b'{"resourceSpans":[{"resource":{"attributes":[{"key":"serv'

    Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding"; file exporters write one such object
    per line.
    """
    signal, wire = batch if isinstance(batch, tuple) else (batch.signal, batch.wire)
    return wire_json.to_json(signal.value, wire)
