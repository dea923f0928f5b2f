"""CPU of the GPU join: spans a CPU second against a full 10-minute ring, and of the whole processor, and of the sampler.

Run: python benchmarks/gpu.py
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.helpers.gpu import Sampler
from collector.helpers.gpu.simulated import SimulatedBackend
from collector.model import Context, TracesBuilder
from collector.testing import FakeClock, RecordingTelemetry, make_settings
from processors.gpu import factory
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor
from processors.gpu.join import join
from processors.gpu.locality import HostIdentity

SPANS = 1_000_000
BATCH = 8192
SECOND = 1_000_000_000


class Inline:
    def call(self, function, _timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


def filled_sampler(config, clock):
    sampler = Sampler(
        lambda: SimulatedBackend(config.simulated), config, RecordingTelemetry().log, caller=Inline(),
        time_unix_nano=clock.time_unix_nano, monotonic_s=clock.monotonic_s,
    )  # fmt: skip
    turns = round(config.ring / config.sample_interval)
    began = time.process_time()
    for _ in range(turns):
        sampler.step()
        clock.move(config.sample_interval)
    cpu = time.process_time() - began
    print(f"sampler           {1e6 * cpu / turns:8.1f} µs a turn of {config.simulated.gpus} GPU = {cpu / config.ring:.2%} of a core")
    return sampler


def best_of(runs, work):
    times = []
    for _ in range(runs):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def bench_join(snapshot, now, name, lengths, order):
    rng = np.random.default_rng(1)
    end = (now - rng.integers(0, 590 * SECOND, SPANS)).astype(np.uint64)
    if order:
        end.sort()
    start = end - lengths(rng).astype(np.uint64)
    target = np.zeros(SPANS, np.int32)
    cuts = range(0, SPANS, BATCH)

    def work():
        for at in cuts:
            rows = slice(at, at + BATCH)
            join(snapshot, [(0,)], target[rows], start[rows], end[rows])

    cpu = best_of(5, work)
    print(f"join  {name:<12}{SPANS / cpu / 1e6:8.2f} M spans a CPU second")


def bench_processor(sampler, clock, config, share):
    settings = make_settings(factory, clock=clock, telemetry=RecordingTelemetry())
    processor = GpuProcessor(settings, config, sampler=sampler, host=HostIdentity.of(set(), {"bench"}))
    rng = np.random.default_rng(1)
    builder = TracesBuilder(Context(local_peer=True))
    count = 512
    scope = builder.scope(builder.resource({"service.name": "embedding-server"}))
    starts = clock.time_unix_nano() - rng.integers(5 * SECOND, 60 * SECOND, count)
    builder.spans(
        scope, names=["encode" if n < share * count else "GET /documents" for n in range(count)],
        trace_ids=rng.integers(1, 2**63, (count, 2)).astype(np.uint64), span_ids=rng.integers(1, 2**63, count).astype(np.uint64),
        start_times=starts.astype(np.uint64), end_times=(starts + rng.integers(SECOND // 100, SECOND, count)).astype(np.uint64),
        kinds=np.ones(count, np.int32), attributes=[{"tenant_id": "acme", "batch_size": 32, "user_id": f"u{n}"} for n in range(count)],
    )  # fmt: skip
    batch = builder.build()
    rounds = 100

    def work():
        for _ in range(rounds):
            processor.transform(batch.without_index())

    cpu = best_of(3, work) / rounds
    print(
        f"processor {share:4.0%} GPU  {1e6 * cpu:8.0f} µs a batch of {count} = {count / cpu / 1e6:.2f} M spans a CPU second, index included"
    )


def main():
    clock = FakeClock()
    config = GpuProcessorConfig(backend="simulated")
    sampler = filled_sampler(config, clock)
    snapshot, now = sampler.snapshot, clock.time_unix_nano()
    for name, lengths in (
        ("75 ms", lambda _: np.full(SPANS, SECOND * 3 // 40)),
        ("1 ms-10 s", lambda rng: rng.integers(SECOND // 1000, 10 * SECOND, SPANS)),
    ):
        for order in (True, False):
            bench_join(snapshot, now, f"{name} {'' if order else '(any)'}", lengths, order)
    for share in (0.0, 0.1, 1.0):
        bench_processor(sampler, clock, config, share)


if __name__ == "__main__":
    main()
