"""The processor ``redaction`` beside the Go collector's, in one run: CPU of one request, from bytes to bytes.

``python benchmarks/redaction.py PROGRAM``, with the program that ``make backends`` builds as ``ottl``. Requests are
those of the test kit; user names in them are mostly new. Each figure is the median of several requests.
"""

import argparse
import base64
import json
import statistics
import subprocess
import time
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from collector.model import Signal, batch_type
from collector.testing import make_settings
from collector.testing.generate import request
from processors.redaction import factory

_VALUES: Final = ["4[0-9]{12}(?:[0-9]{3})?", "(5[1-5][0-9]{14})", "[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\\.[a-z]{2,}"]
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "allowed keys, three patterns": {
        "allowed_keys": [
            *("http.request.method", "http.response.status_code", "tenant_id", "user_id", "gen_ai.request.model"),
            *("batch_size", "score", "cached", "service.name", "service.instance.id", "host.name", "service.version"),
            *("exception.type", "exception.message"),
        ],
        "blocked_values": _VALUES,
    },
    "all keys, three patterns": {"allow_all_keys": True, "blocked_values": _VALUES, "summary": "info"},
    "a masked key, summary debug": {
        "allow_all_keys": True,
        "blocked_key_patterns": ["^user_id$"],
        "blocked_values": _VALUES,
        "summary": "debug",
    },
}
_WARM_UP: Final = 20
_REQUESTS: Final = 40


def ours(signal: Signal, config: dict[str, Any], wires: list[bytes]) -> float:
    """CPU seconds of one request."""
    sut: Any = factory.create(make_settings(factory, signals={signal}), factory.config_type.model_validate(config))
    kind = batch_type(signal)
    taken = []
    for wire in wires:
        before = time.process_time()
        batch = kind.check(wire).batch
        assert batch is not None
        sut.transform(batch)
        taken.append(time.process_time() - before)
    return statistics.median(taken[_WARM_UP:])


def theirs(program: str, signal: Signal, config: dict[str, Any], wires: list[bytes], repeat: int) -> float:
    """CPU seconds of one request."""
    lines = [
        json.dumps(
            {
                "signal": signal.value,
                "processor": "redaction",
                "config": config,
                "data": base64.b64encode(wire).decode(),
                "repeat": repeat,
            }
        )
        for wire in wires[_WARM_UP : _WARM_UP + 5]
    ]
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    return statistics.median(json.loads(line)["cpu_s"] for line in done.stdout.splitlines())


def main() -> None:
    """Measure all variants and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="the program ottl of tests/backends")
    program = parser.parse_args().program
    table = Table("signal", "items", "redaction", "ours, µs", "Go, µs", "times")
    for signal in Signal:
        for items, repeat in ((512, 20), (10, 200)):
            wires = [request(signal, items=items, seed=seed) for seed in range(_REQUESTS)]
            for name, config in CONFIGS.items():
                own, other = ours(signal, config, wires), theirs(program, signal, config, wires, repeat)
                table.add_row(
                    signal.value, str(items), name, f"{own * 1e6:.0f}", f"{other * 1e6:.0f}", f"{other / own:.1f}"
                )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
