"""The receiver's responses in bytes: Export…ServiceResponse, as protobuf and as JSON.

They are encoded by hand, because their protobuf classes are in a package that nothing else needs. The response to a
request that was accepted completely is empty.

Source: OTLP specification 1.x (Partial Success).
"""

from typing import Final

import orjson

from collector.api import Receipt
from collector.model import Signal
from collector.transport.failure import printable
from collector.wire.protobuf import bytes_field, number_field, text_field

__all__ = ["partial_success_json", "partial_success_proto"]

_REJECTED: Final = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}


def partial_success_proto(receipt: Receipt) -> bytes:
    """Export…ServiceResponse as protobuf, for any signal; empty if everything was accepted."""
    return bytes_field(1, number_field(1, receipt.rejected_count) + text_field(2, printable(receipt.message)))


def partial_success_json(signal: Signal, receipt: Receipt) -> bytes:
    """Export…ServiceResponse as JSON; ``{}`` if everything was accepted."""
    partial: dict[str, str] = {}
    if receipt.rejected_count:
        partial[_REJECTED[signal]] = str(receipt.rejected_count)  # an int64 is a string in JSON
    if receipt.message:
        partial["errorMessage"] = printable(receipt.message)
    return orjson.dumps({"partialSuccess": partial}) if partial else b"{}"
