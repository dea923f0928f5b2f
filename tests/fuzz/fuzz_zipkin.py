"""Fuzz target: whatever a Zipkin decoder accepts is valid OTLP that the door takes whole.

First byte: the format; then the message. Under atheris: ``python tests/fuzz/fuzz_zipkin.py CORPUS_DIR``.
"""

import contextlib
import sys
from typing import Any

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=["receivers.zipkin"])
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from receivers.zipkin._v1 import decode_json as v1_json
    from receivers.zipkin._v1 import decode_thrift
    from receivers.zipkin._v2 import decode_json as v2_json
    from receivers.zipkin._v2 import decode_proto
from collector.model import MalformedBatch, Traces


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    try:
        if data[0] % 4 == 0:
            wire = decode_thrift(data[1:])
        else:
            wire = (v1_json, v2_json, decode_proto)[data[0] % 4 - 1](data[1:], data[0] > 127)
    except MalformedBatch:
        return
    if wire:
        checked = Traces.check(wire)
        assert checked.rejected_count == checked.repaired_count == 0
        assert checked.batch is not None


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
