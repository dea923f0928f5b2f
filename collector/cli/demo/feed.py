"""The process of the simulated platform: makes telemetry at a steady rate and sends it to the gateway.

It runs as ``python -m collector.cli.demo.feed`` and knows nothing of the gateway except its two endpoints: traces go
over gRPC, metrics over HTTP as protobuf, logs over HTTP as JSON. It reports what was sent and acknowledged on standard
output, one JSON object per second and a final one; the demo compares these totals with what the gateway delivered.
"""

import argparse
import json
import signal
import sys
import time
from typing import Final

from collector.cli.demo.platform import Platform
from collector.cli.demo.sender import SEND_ERRORS, Sender

__all__ = ["main"]

_TICK_S: Final = 0.2
_METRICS_INTERVAL_S: Final = 1.0
_REPORT_INTERVAL_S: Final = 1.0


def main() -> None:
    """Send until the duration has passed, or until SIGTERM or SIGINT; then report the totals."""
    parser = argparse.ArgumentParser(description="Send the telemetry of a simulated platform.")
    parser.add_argument("--grpc", required=True, help="host:port for traces")
    parser.add_argument("--http", required=True, help="host:port for metrics and logs")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds to run; 0: until stopped")
    parser.add_argument("--rate", type=float, default=80.0, help="simulated requests per second")
    parser.add_argument("--seed", type=int, default=7, help="seed of the simulation")
    arguments = parser.parse_args()
    is_stopping = False

    def stop(*_: object) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    platform = Platform(arguments.seed)
    sender = Sender(arguments.grpc, arguments.http)
    started_s = last_metrics_s = last_report_s = time.monotonic()
    request_count = 0
    try:
        while not is_stopping and not (arguments.duration and time.monotonic() - started_s >= arguments.duration):
            due = int((time.monotonic() - started_s + _TICK_S) * arguments.rate) - request_count
            if due > 0:
                traces, logs = platform.requests(due)
                request_count += due
                sender.traces(traces)
                sender.logs(logs)
            if time.monotonic() - last_metrics_s >= _METRICS_INTERVAL_S:
                last_metrics_s = time.monotonic()
                sender.metrics(platform.metrics())
            if time.monotonic() - last_report_s >= _REPORT_INTERVAL_S:
                last_report_s = time.monotonic()
                _report(platform, sender, final=False)
            time.sleep(_TICK_S)
        sender.metrics(platform.metrics())
    except SEND_ERRORS as exc:
        print(f"the simulated platform cannot reach the gateway: {exc}", file=sys.stderr)  # noqa: T201
    finally:
        _report(platform, sender, final=True)
        sender.close()


def _report(platform: Platform, sender: Sender, *, final: bool) -> None:
    platform.totals.failures = sender.failures
    print(json.dumps({**vars(platform.totals), "final": final}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
