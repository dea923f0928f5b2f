"""What each processor of the default gateway costs: CPU seconds per million items, with and without it, in one run.

``python benchmarks/pipelines.py [--rounds 5] [--json FILE] [--only traces]``

One process, the real service and graph; in place of a transport a receiver hands ready-made Export…ServiceRequests to
the door, so that the pipeline alone is measured: checking, indexing, processors, and an exporter that takes the batch
and drops it (``nop``). The requests are the demo platform's: 100 requests to a service a batch, some 500 spans, metrics
whose ``user_id`` explodes. Variants alternate, the first round is not counted, the table shows medians. Absolute
figures depend on the machine; the differences between the rows of one run are what counts.
"""

import argparse
import asyncio
import gc
import json
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from rich.console import Console
from rich.table import Table
from ruamel import yaml

from collector.api import ComponentKind, Factory, Receiver, Settings, Stability
from collector.cli.demo.platform import Platform
from collector.cli.run import new_event_loop
from collector.gpu import SAMPLERS, SamplerPool
from collector.model import EMPTY_CONTEXT, Signal
from collector.registry import Registry
from collector.service import Service
from config.blocks import ComponentConfig
from config.load import load
from processors.gpu.config import GpuProcessorConfig

PROCESSORS: Final = """
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 4096}
  gpu: {backend: simulated, simulated: {gpus: 1, host_name: tailrace-demo-gpu}}
  cardinality:
    limit: 400
    attributes: [{keys: [endpoint, http.route, url.path], action: template}]
    overflow: {flush_interval: 1s}
  cardinality/wide: {limit: 0}
  filter:
    trace_conditions:
      - IsMatch(span.name, "^none")
      - span.attributes["http.response.status_code"] == 599
      - span.end_time - span.start_time > Duration("1h")
    metric_conditions:
      - IsMatch(metric.name, "^none")
      - datapoint.attributes["user_id"] == "none"
    log_conditions:
      - log.severity_number < SEVERITY_NUMBER_TRACE and IsMatch(log.body, "^none")
  transform:
    trace_statements:
      - set(span.attributes["deployment.environment.name"], "prod")
      - delete_key(span.attributes, "user_agent.original")
      - replace_pattern(span.name, "/[0-9]+", "/{id}")
      - truncate_all(span.attributes, 4096)
      - set(span.attributes["slow"], true) where span.end_time - span.start_time > Duration("1s")
    log_statements:
      - set(log.attributes["deployment.environment.name"], "prod")
      - delete_key(log.attributes, "code.filepath")
      - replace_pattern(log.body, "[0-9]+", "#")
      - truncate_all(log.attributes, 4096)
      - set(log.attributes["is_error"], true) where log.severity_number >= SEVERITY_NUMBER_ERROR
  sampling:
    decision_wait: 500ms
    rules:
      - {name: errors, any: {status: error, http_status: 5xx}, ratio: 1.0}
      - {name: slow, root_duration: 2s, ratio: 1.0}
      - {name: rest, ratio: 0.1}
"""
CONNECTORS: Final = ("span_metrics", "service_graph")
BATCHES: Final = 120
RING_S: Final = 4.0  # the platform's longest span


@dataclass
class Variant:
    """One pipeline."""

    name: str
    signal: Signal
    processors: Sequence[str] = ()
    connectors: Sequence[str] = ()
    cpu_s_per_million: list[float] = field(default_factory=list)

    def config(self) -> str:
        """Its YAML."""
        connectors = (
            f"connectors: {{{', '.join(f'{name}: {{}}' for name in self.connectors)}}}" if self.connectors else ""
        )
        processors, exporters = ", ".join(self.processors), ", ".join(["nop", *self.connectors])
        more = (
            f"metrics/made: {{receivers: [{', '.join(self.connectors)}], exporters: [nop]}}" if self.connectors else ""
        )
        return f"""
receivers: {{source: {{}}}}
{PROCESSORS}
{connectors}
exporters: {{nop: {{}}}}
service:
  telemetry: {{logs: {{level: error}}, metrics: {{level: none}}}}
  pipelines:
    {self.signal.value}: {{receivers: [source], processors: [{processors}], exporters: [{exporters}]}}
    {more}
"""


VARIANTS: Final = (
    Variant("no processor", Signal.TRACES),
    Variant("memory_limiter", Signal.TRACES, ["memory_limiter"]),
    Variant("gpu", Signal.TRACES, ["gpu"]),
    Variant("sampling", Signal.TRACES, ["sampling"]),
    Variant("filter: three conditions", Signal.TRACES, ["filter"]),
    Variant("transform: five statements", Signal.TRACES, ["transform"]),
    Variant("span_metrics", Signal.TRACES, [], ["span_metrics"]),
    Variant("service_graph", Signal.TRACES, [], ["service_graph"]),
    Variant("the default: these, and memory_limiter", Signal.TRACES, ["memory_limiter", "gpu", "sampling"], CONNECTORS),
    Variant("no processor", Signal.METRICS),
    Variant("cardinality, nothing over its limit", Signal.METRICS, ["cardinality/wide"]),
    Variant("cardinality, three quarters folded", Signal.METRICS, ["cardinality"]),
    Variant("filter: two conditions", Signal.METRICS, ["filter"]),
    Variant("the default: that, and memory_limiter", Signal.METRICS, ["memory_limiter", "cardinality"]),
    Variant("no processor", Signal.LOGS),
    Variant("filter: one condition", Signal.LOGS, ["filter"]),
    Variant("transform: five statements", Signal.LOGS, ["transform"]),
    Variant("the default: memory_limiter, gpu", Signal.LOGS, ["memory_limiter", "gpu"]),
)


class Source(Receiver):
    """Hands over what it is told to."""

    def __init__(self, settings: Settings) -> None:
        self.outputs = settings.outputs

    async def start(self, host: Any) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""


class WithSource(Registry):
    """The installed components and ``source``."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Source] = []
        self._factory = Factory(
            component_type="source",
            config_type=ComponentConfig,
            create=self._create,
            stability=Stability.DEVELOPMENT,
            signals=frozenset(Signal),
            kind=ComponentKind.RECEIVER,
        )

    def _create(self, settings: Settings, config: Any) -> Source:
        del config
        self.made.append(Source(settings))
        return self.made[-1]

    def find(self, kind: ComponentKind, component_type: str) -> Factory | None:
        """Ours first."""
        return (
            self._factory
            if (kind, component_type) == (ComponentKind.RECEIVER, "source")
            else super().find(kind, component_type)
        )


POOL = SamplerPool()
"""One for all rounds: its ring must know the time of the spans."""


def requests() -> dict[Signal, list[bytes]]:
    """The platform's telemetry, encoded beforehand.

    The process's GPU sampler runs from here on, so that the ring knows the time of the spans.
    """
    gpu = yaml.YAML(typ="safe").load(PROCESSORS)["processors"]["gpu"]
    POOL.acquire(GpuProcessorConfig.model_validate(gpu), structlog.get_logger())
    time.sleep(RING_S)
    # so many that most series are known after some batches, as in a service that runs
    platform = Platform(seed=11, users=400)
    made: dict[Signal, list[bytes]] = {signal: [] for signal in Signal}
    for _ in range(BATCHES):
        traces, logs = platform.requests(100)
        made[Signal.TRACES].append(traces.SerializeToString())
        made[Signal.LOGS].append(logs.SerializeToString())
        if len(made[Signal.METRICS]) < BATCHES // 2:
            made[Signal.METRICS].append(platform.metrics().SerializeToString())
    return made


async def measured(variant: Variant, bodies: Sequence[bytes]) -> float:
    """CPU seconds per million items of one round, from the first request until the service has stopped."""
    registry = WithSource()
    service = Service(load((f"yaml:{variant.config()}",), (), registry))
    service._environment.shared[SAMPLERS.name] = POOL
    await service.start()
    door = registry.made[-1].outputs[variant.signal]
    gc.collect()
    began, items = time.process_time(), 0
    for body in bodies:
        receipt = await door.consume_request(body, EMPTY_CONTEXT)
        items += receipt.accepted_count
        await asyncio.sleep(0)  # timers have their turn, as between requests
    await service.shutdown()
    spent = time.process_time() - began
    if service.ledger.imbalances():
        raise SystemExit(f"{variant.name}: the ledger is not balanced: {service.ledger.imbalances()}")
    return spent / items * 1e6


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=[signal.value for signal in Signal])
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    registry, bodies = Registry(), requests()
    variants = [
        variant
        for variant in VARIANTS
        if arguments.only in {None, variant.signal.value}
        and all(registry.find(ComponentKind.CONNECTOR, name) is not None for name in variant.connectors)
    ]
    for number in range(max(arguments.rounds, 1) + 1):
        for variant in variants:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                cost = runner.run(measured(variant, bodies[variant.signal]))
            if number:
                variant.cpu_s_per_million.append(cost)
    table = Table(title="CPU seconds per million items, transport not counted (medians)")
    for name in ("signal", "pipeline", "CPU s", "more than without"):
        table.add_column(name, justify="right" if name in {"CPU s", "more than without"} else "left")
    base = {
        v.signal: statistics.median(v.cpu_s_per_million)
        for v in reversed(variants)
        if not v.processors and not v.connectors
    }
    rows = []
    for variant in variants:
        median = statistics.median(variant.cpu_s_per_million)
        rows.append(
            {
                "signal": variant.signal.value,
                "pipeline": variant.name,
                "cpu_s": median,
                "rounds": variant.cpu_s_per_million,
            }
        )
        more = median - base[variant.signal]
        table.add_row(
            variant.signal.value,
            variant.name,
            f"{median:.2f}",
            f"{more:+.2f}" if variant.processors or variant.connectors else "",
        )
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
