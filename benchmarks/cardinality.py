"""CPU of ``cardinality`` for each million points, by how many distinct series are offered at a limit of 10 000; and its memory.

Run: python benchmarks/cardinality.py [--plot docs/images/cardinality-cost.png]

The plot needs matplotlib (extra ``docs``). Each row is a process state of its own: as many points as there are series are sent first (their
first sight, timed for itself), then a million points in batches of 8 192.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.model import METRIC_HISTOGRAM, Metrics, MetricsBuilder, Signal
from collector.testing import FakeClock, make_settings
from processors.cardinality import factory
from processors.cardinality.config import CardinalityConfig

BATCH = 8192
POINTS = 1_000_000
DISTINCT = (1_000, 10_000, 100_000, 1_000_000)
LIMIT = 10_000
SECOND = 1_000_000_000
BOUNDS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])


class Nowhere:
    """An output that forgets."""

    async def consume(self, batch):
        pass


def batches(distinct, clock, kind, rounds):
    """Batches of cumulative points: every series in turn; those of one round are made ahead, so that only the processor is timed."""
    at = 0
    while at < rounds:
        count = min(BATCH, rounds - at)
        numbers = (np.arange(at, at + count) % distinct).tolist()
        clock.move(0.01)
        builder = MetricsBuilder()
        scope = builder.scope(builder.resource({"service.name": "api"}))
        attributes = [{"user_id": f"u{n}", "code": "200"} for n in numbers]
        times = np.full(count, clock.time_unix_nano() + at // distinct, np.uint64)
        starts = np.full(count, clock.start + 1, np.uint64)
        common = {"temporality": 2, "times": times, "start_times": starts, "attributes": attributes}
        if kind == METRIC_HISTOGRAM:
            counts = np.full((count, len(BOUNDS) + 1), 1 + at // distinct, np.uint64)
            builder.histogram(
                scope, "latency", counts=counts.sum(axis=1), sums=counts.sum(axis=1) * 0.1, bucket_counts=counts, bounds=BOUNDS, **common
            )
        else:
            builder.sum(scope, "requests", monotonic=True, values=np.full(count, 1 + at // distinct), **common)
        yield Metrics.from_wire(builder.build_wire())
        at += count


def consume(sut, made):
    """CPU seconds to take batches, and a bare index of them beside it (what any processor costs that looks at attributes)."""
    spent = 0.0
    points = 0
    for batch in made:
        batch.attributes("points")
        began = time.process_time()
        asyncio_run(sut.consume(batch))
        spent += time.process_time() - began
        points += batch.item_count
    return 1e6 * spent / points


def asyncio_run(coroutine):
    """Runs what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def measure(distinct, kind):
    clock = FakeClock()
    clock.start = clock.time_unix_nano()
    settings = make_settings(factory, signals={Signal.METRICS}, clock=clock, outputs={Signal.METRICS: Nowhere()})
    sut = factory.create(settings, CardinalityConfig(limit=LIMIT), None)
    first = consume(sut, batches(distinct, clock, kind, distinct))
    clock.move(1)
    steady = consume(sut, batches(distinct, clock, kind, POINTS))
    began = time.process_time()
    asyncio.run(sut._flush())  # the timer's work
    flush = time.process_time() - began
    limits = sut.state.limits
    dropped = settings.telemetry.ledger.dropped_count(Signal.METRICS, "state_full")
    memory = sut.state.fold.state_bytes + limits.named.memory_bytes
    return first, steady, 1e3 * flush, memory, len(limits.named), dropped, limits.demand_total


def plot(path, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    for label, measured in rows.items():
        left.plot(DISTINCT, [row[1] for row in measured], marker="o", label=label)
        right.plot(DISTINCT, [row[3] / 2**20 for row in measured], marker="o", label=label)
    left.set(xscale="log", xlabel="distinct series offered (10 000 allowed)", ylabel="CPU seconds a million points", ylim=0)
    right.set(xscale="log", xlabel="distinct series offered (10 000 allowed)", ylabel="state, MiB", ylim=0)
    right.axhline(128, linestyle="--", color="grey", linewidth=1)
    right.text(DISTINCT[0], 130, "state_limit_mib", color="grey", fontsize=8)
    left.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", help="write the picture there")
    arguments = parser.parse_args()
    rows = {}
    print(f"{'':12}{'distinct':>10} {'first sight':>12} {'steady':>8} {'flush':>9} {'memory':>9} {'named':>7} {'dropped':>8} {'demand':>9}")
    print(f"{'':12}{'':>10} {'s/M points':>12} {'s/M':>8} {'ms':>9} {'MiB':>9}")
    for label, kind in (("sum", 2), ("histogram", METRIC_HISTOGRAM)):
        rows[label] = []
        for distinct in DISTINCT:
            row = measure(distinct, kind)
            rows[label].append(row)
            first, steady, flush, memory, named, dropped, demand = row
            mib = memory / 2**20
            print(
                f"{label:12}{distinct:10} {first:12.2f} {steady:8.2f} {flush:9.1f} {mib:9.1f} {named:7} {dropped:8} {demand:9.0f}",
                flush=True,
            )
    if arguments.plot:
        plot(arguments.plot, rows)


if __name__ == "__main__":
    main()
