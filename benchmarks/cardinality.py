"""CPU of ``cardinality`` for each million points, by how many distinct series are offered at a limit of 10 000.

And its memory.

Run: python benchmarks/cardinality.py [--before ../other-checkout] [--plot docs/images/cardinality-cost.png]

The plot needs matplotlib (extra ``docs``). ``--before`` measures another checkout, built in place, in the same run: row
by row the two take turns. Each row is a process of its own: as many points as there are series are sent first (their
first sight, timed for itself), then 400 000 points in batches of 8 192; the cost of the median batch counts.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, sys.argv[2] if sys.argv[1:2] == ["--tree"] else str(Path(__file__).parents[1]))

from collector.model import METRIC_HISTOGRAM, METRIC_SUM, Metrics, MetricsBuilder, Signal
from collector.testing import FakeClock, make_settings
from processors.cardinality import factory
from processors.cardinality.config import CardinalityConfig

HERE = Path(__file__).resolve().parents[1]
BATCH = 8192
POINTS = 400_000
DISTINCT = (1_000, 10_000, 100_000, 1_000_000)
LIMIT = 10_000
SECOND = 1_000_000_000
BOUNDS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])


class Nowhere:
    """An output that forgets."""

    async def consume(self, batch):
        pass


def batches(distinct, clock, kind, rounds):
    """Batches of cumulative points: every series in turn.

    Those of one round are made ahead, so that only the processor is timed.
    """
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
                scope,
                "latency",
                counts=counts.sum(axis=1),
                sums=counts.sum(axis=1) * 0.1,
                bucket_counts=counts,
                bounds=BOUNDS,
                **common,
            )
        else:
            builder.sum(scope, "requests", monotonic=True, values=np.full(count, 1 + at // distinct), **common)
        yield Metrics.from_wire(builder.build_wire())
        at += count


def consume(sut, made):
    """CPU seconds a million points: of all batches, of the median one.

    Their attributes are indexed before, as any processor needs.
    """
    spent, points = [], 0
    for batch in made:
        batch.attributes("points")
        began = time.process_time()
        asyncio_run(sut.consume(batch))
        spent.append((time.process_time() - began, batch.item_count))
        points += batch.item_count
    return 1e6 * sum(cost for cost, _ in spent) / points, 1e6 * statistics.median(cost / count for cost, count in spent)


def asyncio_run(coroutine):
    """Runs what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def measure(kind, distinct):
    """One row."""
    clock = FakeClock()
    clock.start = clock.time_unix_nano()
    settings = make_settings(factory, signals={Signal.METRICS}, clock=clock, outputs={Signal.METRICS: Nowhere()})
    sut = factory.create(settings, CardinalityConfig(limit=LIMIT))
    first, _ = consume(sut, batches(distinct, clock, kind, distinct))
    clock.move(1)
    _, steady = consume(sut, batches(distinct, clock, kind, POINTS))
    began = time.process_time()
    asyncio.run(sut._flush())  # the timer's work
    flush = time.process_time() - began
    limits = sut.state.limits
    return {
        "first": first,
        "steady": steady,
        "flush": 1e3 * flush,
        "named": len(limits.named),
        "demand": limits.demand_total,
        "state": sut.state.fold.state_bytes / 2**20,
        "memory": (sut.state.fold.state_bytes + limits.named.memory_bytes) / 2**20,
        "dropped": settings.telemetry.ledger.dropped_count(Signal.METRICS, "state_full"),
    }


def measured(tree, kind, distinct):
    """One row of a checkout."""
    command = [sys.executable, __file__, "--tree", str(tree), "--row", str(kind), str(distinct)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def plot(path, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    for (label, version), found in rows.items():
        style = {"marker": "o"} if version == "now" else {"linestyle": ":", "color": left.lines[-1].get_color()}
        left.plot(
            DISTINCT,
            [row["steady"] for row in found],
            label=label if version == "now" else f"{label}, {version}",
            **style,
        )
        if version == "now":
            right.plot(DISTINCT, [row["state"] for row in found], label=label, **style)
    left.set(
        xscale="log", xlabel="distinct series offered (10 000 allowed)", ylabel="CPU seconds a million points", ylim=0
    )
    right.set(xscale="log", xlabel="distinct series offered (10 000 allowed)", ylabel="state, MiB", ylim=(0, 145))
    right.axhline(128, linestyle="--", color="grey", linewidth=1)
    right.text(DISTINCT[0], 130, "state_limit_mib", color="grey", fontsize=8)
    left.set_ylim(top=1.5 * left.get_ylim()[1])
    left.legend(frameon=False, ncols=2, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", help=argparse.SUPPRESS)
    parser.add_argument("--row", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="measure another checkout beside this one")
    parser.add_argument("--plot", help="write the picture there")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(*arguments.row)))
        return
    trees = {"now": HERE, **({"before": arguments.before.resolve()} if arguments.before else {})}
    columns = ("first", "steady", "flush", "memory", "named", "dropped", "demand")
    print(f"{'':10}{'':8}{'distinct':>10}" + "".join(f"{name:>10}" for name in columns))
    print(f"{'':28}" + "".join(f"{unit:>10}" for unit in ("s/M points", "s/M points", "ms", "MiB", "", "", "")))
    rows = {}
    for label, kind in (("sum", METRIC_SUM), ("histogram", METRIC_HISTOGRAM)):
        for distinct in DISTINCT:
            for version, tree in trees.items():
                row = measured(tree, kind, distinct)
                rows.setdefault((label, version), []).append(row)
                numbers = "".join(f"{row[name]:10.{2 if name in {'first', 'steady'} else 0}f}" for name in columns)
                print(f"{label:10}{version:8}{distinct:10}{numbers}", flush=True)
    if arguments.plot:
        plot(arguments.plot, rows)


if __name__ == "__main__":
    main()
