"""What scraping costs: the parser beside prometheus_client's, and the service beside the Go collector.

Run: ``python benchmarks/scrape.py [--seconds 20]``. The second part needs the Go collector (``make backends``). Both
scrape the same pages every two seconds, by the same configuration, and the results go to
an exporter that does nothing.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sides import OTELCOL, OURS

from collector.exposition import TextPage

FAMILIES: Final = 60  # 2 580 samples, as many as a few exporters have
TARGETS: Final = 8
INTERVAL: Final = "2s"
WARM_UP_SCRAPES: Final = 4


def page(openmetrics: bool = False, families: int = FAMILIES) -> bytes:
    """Counters, gauges and histograms of a service, 43 samples per family."""
    lines = []
    for i in range(families):
        lines += [f"# HELP requests_{i}{'' if openmetrics else '_total'} Requests that were served."]
        lines += [f"# TYPE requests_{i}{'' if openmetrics else '_total'} counter"]
        lines += [
            f'requests_{i}_total{{method="GET",code="{200 + k}",route="/v1/x/{k}"}} {k * 1e6 + 3}' for k in range(20)
        ]
        lines += [f"# TYPE memory_{i}_bytes gauge"]
        lines += [f'memory_{i}_bytes{{pool="p{k}"}} {1.234567e9 + k}' for k in range(10)]
        lines += [f"# TYPE duration_{i}_seconds histogram"]
        lines += [
            f'duration_{i}_seconds_bucket{{route="/v1/x",le="{bound}"}} {100 * k}'
            for k, bound in enumerate(
                ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf")
            )
        ]
        lines += [
            f'duration_{i}_seconds_sum{{route="/v1/x"}} 1234.56789',
            f'duration_{i}_seconds_count{{route="/v1/x"}} 1000',
        ]
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""]).encode()


def best_s(call: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def parsers() -> None:
    """Nanoseconds per sample of both parsers."""
    for name, openmetrics, theirs in (("text", False, parse_text), ("OpenMetrics", True, parse_open)):
        body = page(openmetrics)
        count = len(TextPage(body, openmetrics).samples)
        ours = best_s(lambda body=body, kind=openmetrics: TextPage(body, kind), 50) / count * 1e9
        peer = best_s(lambda body=body, parse=theirs: list(parse(body.decode())), 3) / count * 1e9
        print(f"{name}: {count} samples; {ours:.0f} ns a sample, prometheus_client {peer:.0f}; {peer / ours:.0f} times")


def server(families: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        body = page(families=families)

        served = 0

        def do_GET(self) -> None:
            type(self).served += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


def services(seconds: float, families: int) -> None:
    """Samples per CPU second of both services."""
    pages = server(families)
    targets = [{"targets": [f"127.0.0.1:{pages.server_port}"], "labels": {"number": str(i)}} for i in range(TARGETS)]
    job = {"job_name": "bench", "scrape_interval": INTERVAL, "static_configs": targets}
    per_scrape = len(TextPage(page(families=families)).samples) + 5
    handler: Any = pages.RequestHandlerClass
    rates = {}
    for name, command in (("tailrace", [sys.executable, "-c", OURS, "run"]), ("otelcol", [str(OTELCOL)])):
        with tempfile.TemporaryDirectory() as folder:
            config = {
                "receivers": {"prometheus": {"config": {"scrape_configs": [job]}}},
                "exporters": {"nop": {}},
                "service": {
                    "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "error"}},
                    "pipelines": {"metrics": {"receivers": ["prometheus"], "exporters": ["nop"]}},
                },
            }
            path = Path(folder, "config.yaml")
            path.write_text(json.dumps(config))
            process = subprocess.Popen([*command, "--config", str(path)], cwd=folder)
            try:
                first = handler.served
                while handler.served < first + WARM_UP_SCRAPES * TARGETS:
                    time.sleep(0.1)
                watched = psutil.Process(process.pid)
                family = [watched, *watched.children(recursive=True)]
                first = handler.served
                before = sum(sum(one.cpu_times()[:2]) for one in family)
                time.sleep(seconds)
                used = sum(sum(one.cpu_times()[:2]) for one in family) - before
                scrapes = handler.served - first
                rss = sum(one.memory_info().rss for one in family) / 1e6
            finally:
                process.terminate()
                process.wait()
        rates[name] = per_scrape * scrapes / used
        print(f"{name}: {rates[name]:,.0f} samples per CPU second ({scrapes} scrapes), {rss:.0f} MB")
    print(f"{rates['tailrace'] / rates['otelcol']:.1f} times as many")
    pages.shutdown()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=20.0)
    arguments = options.parse_args()
    parsers()
    if OTELCOL.exists():
        for families in (FAMILIES, 10 * FAMILIES):
            print(f"{TARGETS} targets of {43 * families} samples:")
            services(arguments.seconds, families)
    else:
        print("the Go collector is not built: run `make backends`")


if __name__ == "__main__":
    main()
