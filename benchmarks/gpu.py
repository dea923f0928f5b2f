"""CPU of `gpu`: the join alone against a full 10-minute ring, the processor end to end, the sampler.

And a picture of a join.

Run: python benchmarks/gpu.py                               the figures of this tree
     python benchmarks/gpu.py --before ../other-checkout    both trees in one run; the other is built in place
     python benchmarks/gpu.py --picture docs/images/gpu-join.png   needs the extra `docs` (matplotlib)
"""

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SPANS = 1_000_000
BATCH = 8192
SECOND = 1_000_000_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, measured first")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="only draw this")
    parser.add_argument("--tree", type=Path, default=HERE, help=argparse.SUPPRESS)
    return parser.parse_args()


options = arguments()
sys.path.insert(0, str(options.tree.resolve()))

import numpy as np  # noqa: E402 - behind the choice of the tree

from collector.gpu import GpuSampler  # noqa: E402
from collector.gpu.nvml import NvmlBackend  # noqa: E402
from collector.gpu.simulated import SimulatedBackend  # noqa: E402
from collector.model import Context, Traces, TracesBuilder  # noqa: E402
from collector.testing import FakeClock, RecordingTelemetry, make_settings  # noqa: E402
from processors.gpu import factory  # noqa: E402
from processors.gpu.config import GpuProcessorConfig  # noqa: E402
from processors.gpu.gpu import GpuProcessor  # noqa: E402
from processors.gpu.join import join  # noqa: E402
from processors.gpu.locality import HostIdentity  # noqa: E402


class Inline:
    """No thread: the driver is called where the sampler runs, so its CPU is measured too."""

    def call(self, function, _timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


def sampler_of(make_backend, config, clock):
    return GpuSampler(
        make_backend,
        config,
        RecordingTelemetry().log,
        caller=Inline(),
        time_unix_nano=clock.time_unix_nano,
        monotonic_s=clock.monotonic_s,
    )


def sampled(sampler, config, clock, seconds):
    """CPU seconds a turn."""
    turns = round(seconds / config.sample_interval)
    began = time.process_time()
    for _ in range(turns):
        sampler.step()
        clock.move(config.sample_interval)
    return (time.process_time() - began) / turns


def stand_in():
    """nvidia-ml-py over the tests' stand-in for the driver's library; None without a compiler or the package."""
    compiler, source = shutil.which("cc") or shutil.which("gcc"), HERE / "tests/gpu_library/nvml_stand_in.c"
    try:
        import pynvml
    except ImportError:
        return None
    if compiler is None or not source.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libnvidia-ml.so.1"
        subprocess.run(
            [compiler, "-O2", "-fvisibility=hidden", "-shared", "-fPIC", "-pthread", "-o", library, source], check=True
        )
        pynvml.nvmlLib = ctypes.CDLL(str(library))
    return pynvml.nvmlLib


def bench_sampler():
    library = stand_in()
    for gpus in (1, 8):
        clock = FakeClock()
        config = GpuProcessorConfig(backend="simulated", simulated={"gpus": gpus})
        backends = {"simulated": lambda config=config: SimulatedBackend(config.simulated)}
        if library is not None:
            boards = ";".join(f"GPU-{n}/Stand-in/80" for n in range(gpus))
            library.stand_in_set(b"boards", boards.encode())
            backends["nvidia-ml-py over the stand-in"] = NvmlBackend
        for name, make in backends.items():
            sampler = sampler_of(make, config, clock)
            sampled(sampler, config, clock, 5)
            cpu = sampled(sampler, config, clock, 60)
            print(
                f"sampler   {gpus} GPU, {name:<31}{1e6 * cpu:6.0f} µs per turn = "
                f"{cpu / config.sample_interval:.2%} of a core at 100 ms"
            )


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
    print(f"join      {name:<26}{SPANS / cpu / 1e6:6.2f} M spans a CPU second, {SPANS} spans, ring of 10 minutes")


def batch_of(clock, share, count=512):
    """Spans of one service of the last minute, ``share`` of them GPU work."""
    rng = np.random.default_rng(1)
    builder = TracesBuilder(Context(local_peer=True))
    scope = builder.scope(builder.resource({"service.name": "embedding-server"}))
    starts = clock.time_unix_nano() - rng.integers(5 * SECOND, 60 * SECOND, count)
    builder.spans(
        scope,
        names=["encode" if n < share * count else "GET /documents" for n in range(count)],
        trace_ids=rng.integers(1, 2**63, (count, 2)).astype(np.uint64),
        span_ids=rng.integers(1, 2**63, count).astype(np.uint64),
        start_times=starts.astype(np.uint64),
        end_times=(starts + rng.integers(SECOND // 100, SECOND, count)).astype(np.uint64),
        kinds=np.ones(count, np.int32),
        attributes=[{"tenant_id": "acme", "batch_size": 32, "user_id": f"u{n}"} for n in range(count)],
    )
    return builder.build()


def processor_of(sampler, clock, config):
    settings = make_settings(factory, clock=clock, telemetry=RecordingTelemetry())
    return GpuProcessor(settings, config, sampler=sampler, host=HostIdentity.of(set(), {"bench"}))


def bench_processor(sampler, clock, config, share):
    processor, batch = processor_of(sampler, clock, config), batch_of(clock, share)
    rounds = 100

    def work():
        for _ in range(rounds):
            processor.transform(batch.without_index())

    cpu = best_of(5, work) / rounds
    name = f"{share:.0%} of {batch.item_count} spans GPU work"
    print(
        f"processor {name:<33}{1e6 * cpu:6.0f} µs per batch = "
        f"{1e6 * cpu / batch.item_count:.2f} CPU s per million spans, index included"
    )


def bench_new_sample(sampler, clock, config):
    """The first batch after a sample prepares the ring's view for all others until the next sample."""
    processor, batch = processor_of(sampler, clock, config), batch_of(clock, 1.0)
    first, again = [], []
    for _ in range(40):
        clock.move(config.sample_interval)
        sampler.step()
        for times in (first, again):
            fresh = batch.without_index()
            began = time.process_time()
            processor.transform(fresh)
            times.append(time.process_time() - began)
    extra = sorted(first)[20] - sorted(again)[20]
    print(
        f"processor {'first batch after a sample':<33}{1e6 * extra:+6.0f} µs, at most every 100 ms = "
        f"{extra / 0.1:.2%} of a core"
    )


def figures():
    bench_sampler()
    clock = FakeClock()
    config = GpuProcessorConfig(backend="simulated")
    sampler = sampler_of(lambda: SimulatedBackend(config.simulated), config, clock)
    sampled(sampler, config, clock, config.ring)
    snapshot, now = sampler.snapshot, clock.time_unix_nano()
    for name, lengths in (
        ("75 ms", lambda _: np.full(SPANS, SECOND * 3 // 40)),
        ("1 ms to 10 s", lambda rng: rng.integers(SECOND // 1000, 10 * SECOND, SPANS)),
    ):
        for order in (True, False):
            bench_join(snapshot, now, f"{name}, {'by time' if order else 'in any order'}", lengths, order)
    for share in (0.0, 0.1, 1.0):
        bench_processor(sampler, clock, config, share)
    bench_new_sample(sampler, clock, config)


def picture(path):
    """The ring of a simulated GPU, spans over it, and what the processor wrote on each."""
    import matplotlib.pyplot as plt

    clock = FakeClock()
    load = {"shape": "square", "period": "8s", "mean": 0.5, "amplitude": 0.4}
    config = GpuProcessorConfig(backend="simulated", simulated={"load": load, "model": "A"}, ring="60s")
    sampler = sampler_of(lambda: SimulatedBackend(config.simulated), config, clock)
    sampled(sampler, config, clock, 22)
    processor = processor_of(sampler, clock, config)
    origin = clock.time_unix_nano() - 20 * SECOND
    windows = [
        (0.8, 2.1, 0),
        (2.4, 4.6, 0),
        (3.1, 3.16, 0),
        (5.0, 9.5, 2.0),
        (7.2, 8.2, 0),
        (10.5, 14.5, 0),
        (13.5, 15.2, 0),
        (17.0, 21.8, 0),
    ]
    builder = TracesBuilder(Context(local_peer=True))
    scope = builder.scope(builder.resource({"service.name": "embedding-server"}))
    builder.spans(
        scope,
        names=["encode"] * len(windows),
        kinds=np.ones(len(windows), np.int32),
        trace_ids=np.ones((len(windows), 2), np.uint64),
        span_ids=np.arange(1, len(windows) + 1).astype(np.uint64),
        start_times=np.array([origin + int(a * SECOND) for a, _, _ in windows], np.uint64),
        end_times=np.array([origin + int(b * SECOND) for _, b, _ in windows], np.uint64),
        attributes=[{"queue_time": queue} if queue else {} for _, _, queue in windows],
    )
    clock.move(2.0)  # the last span ends behind the newest sample
    told = processor.transform(Traces.from_wire(builder.build().wire, Context(local_peer=True)))
    value = {
        key: told.attribute(key).numeric()
        for key in ("gpu.utilization.mean", "gpu.device.energy", "gpu.coverage", "gpu.samples")
    }
    view = sampler.snapshot.views[0]
    moments = view.column("time") + (view.origin_unix_nano - origin) / SECOND

    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 6.2), sharex=True, height_ratios=[2, 3], layout="constrained", gridspec_kw={"hspace": 0.02}
    )
    above.plot(moments, view.column("utilization"), drawstyle="steps-pre", color="#444", lw=1)
    above.plot(moments, view.column("utilization"), ".", color="#444", ms=3, label="sample, every 100 ms")
    above.set_ylabel("GPU utilisation in the ring")
    above.set_ylim(0, 1.05)
    above.legend(loc="upper right", frameon=False)
    above.set_title("Each span is told what the GPU did during its own interval")
    colors = plt.get_cmap("viridis")
    for row, (begin, end, queue) in enumerate(windows):
        mean, joules, coverage = (
            value[key][row] for key in ("gpu.utilization.mean", "gpu.device.energy", "gpu.coverage")
        )
        below.barh(row, end - begin, left=begin, height=0.55, color="none", edgecolor="#999", lw=0.8)
        below.barh(row, end - begin - queue, left=begin + queue, height=0.55, color=colors(mean))
        energy = "too short for energy" if np.isnan(joules) else f"{joules:.0f} J"
        extra = f", coverage {coverage:.2f}" if coverage < 1 else ""
        extra += ", 2 s of queue taken off" if queue else ""
        below.text(
            begin - 0.15 if end > 15.5 else end + 0.15,
            row,
            f"mean {mean:.2f}, {energy}, samples {value['gpu.samples'][row]:.0f}{extra}",
            va="center",
            ha="right" if end > 15.5 else "left",
            fontsize=8.5,
        )
    below.axvline(moments[-1] + 0.1, color="#c33", lw=1, ls=":")
    below.text(moments[-1] + 0.15, -0.4, "newest\nsample,\nheld", color="#c33", fontsize=8, va="top")
    below.invert_yaxis()
    below.set_yticks([])
    below.set_ylabel("spans")
    below.set_xlabel("seconds (simulated GPU: square load, 90 % and 10 %)")
    below.set_xlim(0, 22.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main():
    if options.picture:
        picture(options.picture)
        return
    if options.before:
        print(f"before: {options.before}")
        subprocess.run([sys.executable, __file__, "--tree", str(options.before)], check=True)
        print("after:")
    figures()


if __name__ == "__main__":
    main()
