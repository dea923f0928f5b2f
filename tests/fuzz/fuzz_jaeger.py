"""Fuzz target: whatever a Jaeger decoder accepts is valid OTLP that the door takes whole.

First byte: the encoding; then the message. Under atheris: ``python tests/fuzz/fuzz_jaeger.py CORPUS_DIR``.
"""

import contextlib
import sys
from typing import Any

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=["receivers.jaeger"])
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from receivers.jaeger._proto import decode_post_spans
    from receivers.jaeger._thrift import decode_batch, decode_packet
from collector.model import MalformedBatch, Traces


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    encoding, message = data[0] % 5, data[1:]
    try:
        if encoding == 0:
            wire = decode_post_spans(message)
        elif encoding < 3:
            wire = decode_batch(message, encoding == 2)
        else:
            wire = decode_packet(message, encoding == 4)
    except MalformedBatch:
        return
    if wire:
        checked = Traces.check(wire)
        assert checked.rejected_count == 0
        assert checked.batch is not None


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
