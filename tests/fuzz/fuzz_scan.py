"""Fuzz target: the door. What it accepts protobuf and the index read alike; everything else is MalformedBatch. And of
what it accepts exactly the unknown fields can be left out.

First byte: the signal. Under atheris: ``python tests/fuzz/fuzz_scan.py CORPUS_DIR -max_total_time=60``.
"""

import sys
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan

SIGNALS: Final[tuple[tuple[str, Any], ...]] = (
    ("traces", ExportTraceServiceRequest),
    ("metrics", ExportMetricsServiceRequest),
    ("logs", ExportLogsServiceRequest),
)


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    signal, request = SIGNALS[data[0] % 3]
    joined = scan.check_joined(signal, [data[1 : len(data) // 2], data[len(data) // 2 :]]) if len(data) > 1 else None
    try:
        kept, tables, rejected, message, _ = scan.check(signal, data[1:])
    except MalformedBatch:
        assert joined is None  # two requests that pass are one that passes
        return
    request.FromString(kept)
    assert bool(message) or rejected == 0
    if joined is not None:
        assert joined[0] == kept
        for first, second in zip(tables, joined[1], strict=True):
            assert first.tobytes() == second.tobytes()
    again, tables_again, rejected_again, _, repaired_again = scan.check(signal, kept)
    assert again is kept
    assert rejected_again == repaired_again == 0
    for first, second, third in zip(tables, tables_again, scan.scan(signal, kept), strict=True):
        assert first.tobytes() == second.tobytes() == third.tobytes()
    known = scan.without_unknown_fields(signal, kept)
    message = request.FromString(kept)
    message.DiscardUnknownFields()
    assert request.FromString(known).SerializeToString() == message.SerializeToString()
    assert scan.without_unknown_fields(signal, known) is known


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
