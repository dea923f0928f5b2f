"""What metric processors cost beside the Go collector's: CPU microseconds per request, from bytes to bytes, in one run.

``python benchmarks/metric_processors.py [--points 1000] [--rounds 5]``

Both sides get the same requests of the same process: ours checks and indexes the bytes and runs the processor, theirs
(tests/backends/metric_processors, built by ``make backends``) unmarshals them into pdata, runs the processor of the
Collector and marshals the result. Rounds alternate; the table shows medians. In each pass the streams of the stateful
processors are new, and then get four points each.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from collector.api import ComponentKind, Transform
from collector.model import Metrics, Signal
from collector.registry import Registry
from collector.testing import make_settings
from collector.testing.generate import metrics_request

_HOME: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE: Final = Path(os.environ.get("TAILRACE_BACKENDS") or _HOME / "tailrace-backends")
TICKS: Final = 4
DELTA: Final = 1

_AGGREGATE: Final = {"action": "aggregate_labels", "label_set": ["method", "status"], "aggregation_type": "sum"}
_ANY: Final = {"include": "^http_|embedding", "match_type": "regexp", "action": "update"}
CASES: Final[list[tuple[str, str, dict[str, Any]]]] = [
    ("rename by pattern", "metricstransform", {"transforms": [
        {"include": "^http_(.*)$", "match_type": "regexp", "action": "update", "new_name": "web.${1}"}]}),
    ("five transforms of names and labels", "metricstransform", {"transforms": [
        {"include": "http_requests_total", "action": "update", "new_name": "http.requests"},
        {"include": "^http", "match_type": "regexp", "action": "update",
         "operations": [{"action": "update_label", "label": "endpoint", "new_label": "http.route"}]},
        {"include": ".", "match_type": "regexp", "action": "update",
         "operations": [{"action": "add_label", "new_label": "env", "new_value": "prod"}]},
        {"include": "cuda_memory_usage_bytes", "action": "update",
         "operations": [{"action": "experimental_scale_value", "experimental_scale": 1e-6}]},
        {"include": "etl_batch_seconds", "action": "update", "new_name": "etl.batch"}]}),
    ("aggregate labels", "metricstransform", {"transforms": [{**_ANY, "operations": [_AGGREGATE]}]}),
    ("insert an aggregated copy", "metricstransform", {"transforms": [
        {"include": "http_requests_total", "action": "insert", "new_name": "requests", "operations": [_AGGREGATE]}]}),
    ("combine", "metricstransform", {"transforms": [
        {"include": "^http_requests_(?P<kind>.*)$", "match_type": "regexp", "action": "combine", "new_name": "http",
         "aggregation_type": "sum"}]}),
    ("cumulative to delta", "cumulativetodelta", {"initial_value": "keep"}),
    ("delta to cumulative", "deltatocumulative", {}),
]  # fmt: skip


def requests(points: int, *, delta: bool) -> list[bytes]:
    """The platform's metrics of four moments."""
    made = []
    for tick in range(TICKS):
        message = metrics_request(points=points, tick=tick)
        for resource in message.resource_metrics if delta else ():
            for metric in resource.scope_metrics[0].metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                if hasattr(data, "aggregation_temporality"):
                    data.aggregation_temporality = DELTA
        made.append(message.SerializeToString())
    return made


def processor(component_type: str, config: dict[str, Any]) -> Transform:
    """Ours."""
    factory = Registry().find(ComponentKind.PROCESSOR, component_type)
    assert factory is not None
    made = factory.create(make_settings(factory, signals={Signal.METRICS}), factory.config_type.model_validate(config))
    assert isinstance(made, Transform)
    return made


def ours(component_type: str, config: dict[str, Any], bodies: list[bytes], repeat: int) -> float:
    """CPU microseconds per request."""
    first, *others = [processor(component_type, config) for _ in range(repeat + 1)]
    for body in bodies:
        first.transform(Metrics.from_wire(body))
    began = time.process_time()
    for under_test in others:
        for body in bodies:
            under_test.transform(Metrics.from_wire(body))
    return (time.process_time() - began) / (repeat * len(bodies)) * 1e6


def theirs(component_type: str, config: dict[str, Any], bodies: list[bytes], repeat: int) -> float:
    """CPU microseconds per request."""
    data = [base64.b64encode(body).decode() for body in bodies]
    request = {"processor": component_type, "config": config, "data": data, "repeat": repeat}
    done = subprocess.run(
        [CACHE / "metric_processors"], input=json.dumps(request) + "\n", capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout)["cpu_s"]) * 1e6


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000, help="per request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="a part of the names of the lines to measure")
    options = parser.parse_args()
    table = Table("processor", "Tailrace, µs", "Go collector, µs", "Go / Tailrace")
    repeat = max(20_000 // options.points, 5)
    for name, component_type, config in CASES:
        if options.only not in name:
            continue
        bodies = requests(options.points, delta=component_type == "deltatocumulative")
        pairs = [
            (ours(component_type, config, bodies, repeat), theirs(component_type, config, bodies, repeat))
            for _ in range(options.rounds)
        ]
        own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        table.add_row(name, f"{own:,.0f}", f"{other:,.0f}", f"{other / own:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
