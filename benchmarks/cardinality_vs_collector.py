"""Removes ``user_id`` from a cumulative counter with the Go collector and with Tailrace, and compares with the truth.

    python benchmarks/cardinality_vs_collector.py [--turns 30] [--no-plot]

Both get the very same requests at the same time and write to one Prometheus (external label ``via``). Two services:

``users``  one process; its three sources are three users, three points of each request
``pods``   three processes with the same resource (the default resource of the SDKs names neither pod nor host), one
           user each

One process restarts on the way: new start time, values from 0. Needs the servers of ``make backends``. Prints both
sides' numbers; draws docs/images/cardinality-vs-collector.png (extra ``docs``). The page:
docs/cardinality-comparison.md.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from collector.testing import free_port

ROOT = Path(__file__).parents[1]
PLOT = ROOT / "docs" / "images" / "cardinality-vs-collector.png"
CACHE = Path(
    os.environ.get("TAILRACE_BACKENDS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace-backends"
)
SIDES = ("collector", "tailrace")
SERVICES = ("users", "pods")
USERS = ("alice", "bob", "carol")
RATES = (9, 4, 2)  # requests a turn, on average
METRIC = "http_requests_total"
SETTLE_S = 15

COLLECTOR = """
extensions: {health_check: {endpoint: "127.0.0.1:HEALTH"}}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:HTTP"}}}}
processors:
  attributes: {actions: [{key: user_id, action: delete}]}
  batch: {timeout: 200ms}
exporters:
  prometheusremotewrite: {endpoint: "PROMETHEUS/api/v1/write", external_labels: {via: collector}}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [otlp], processors: [attributes, batch], exporters: [prometheusremotewrite]}}
"""
TAILRACE = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:HTTP"}}}}
processors:
  cardinality: {attributes: [{keys: [user_id], action: drop}], overflow: {flush_interval: 1s}}
  batch: {timeout: 200ms}
exporters:
  prometheus_remote_write: {endpoint: "PROMETHEUS/api/v1/write", external_labels: {via: tailrace}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:HEALTH"}}
  pipelines: {metrics: {receivers: [otlp], processors: [cardinality, batch], exporters: [prometheus_remote_write]}}
"""


@dataclass
class Source:
    """A process that counts requests, one cumulative series a user, as an SDK exports them."""

    service: str
    users: tuple[str, ...]
    start_unix_nano: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def restart(self):
        self.start_unix_nano, self.counts = time.time_ns(), dict.fromkeys(self.users, 0)

    def work(self, dice):
        """One turn; how many requests there were."""
        done = {user: dice.randint(0, 2 * RATES[USERS.index(user)]) for user in self.users}
        self.counts = {user: self.counts[user] + done[user] for user in self.users}
        return sum(done.values())

    def export(self):
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.name", value={"string_value": self.service})
        metric = resource.scope_metrics.add().metrics.add(name=METRIC)
        metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
        now = time.time_ns()
        for user in self.users:
            point = metric.sum.data_points.add(
                start_time_unix_nano=self.start_unix_nano, time_unix_nano=now, as_int=self.counts[user]
            )
            point.attributes.add(key="method", value={"string_value": "POST"})
            point.attributes.add(key="user_id", value={"string_value": user})
        return request.SerializeToString()


@dataclass
class Outcome:
    """What came of one service."""

    truth: list[tuple[float, int]]
    """(unix time, requests so far)."""
    samples: dict[str, list[tuple[float, float]]]
    """By side: every sample Prometheus has, of all series, by time."""
    series: dict[str, int]
    last: dict[str, float]
    """By side: the sum over all series at the end."""
    last_of_users: dict[str, int]
    increase: dict[str, float]
    """By side: what Prometheus takes for the increase: every fall is a restart."""

    @property
    def requests(self):
        return self.truth[-1][1]

    def falls(self, side):
        values = [value for _, value in self.samples[side]]
        return sum(after < before for before, after in pairwise(values))


def compare(folder, turns=20, interval_s=1.0, seed=7):
    """Runs it all; an Outcome by service. FileNotFoundError: a server is not built."""
    with contextlib.ExitStack() as stack:
        prometheus = start_prometheus(stack, folder)
        urls = {side: start_gateway(stack, folder, side, prometheus) for side in SIDES}
        truth, sources = drive(urls.values(), turns, interval_s, random.Random(seed))
        return {
            service: outcome(
                prometheus, service, truth[service], [source for source in sources if source.service == service]
            )
            for service in SERVICES
        }


def drive(urls, turns, interval_s, dice):
    """The sources' life: all begin, work and export in turn; at two fifths one process of each service restarts."""
    sources = [Source("users", USERS), *(Source("pods", (user,)) for user in USERS)]
    truth = {service: [(time.time(), 0)] for service in SERVICES}
    for source in sources:
        source.restart()
    begin = time.monotonic()
    for turn in range(turns):
        for number, source in enumerate(sources):
            time.sleep(max(0.0, begin + (turn + number / len(sources)) * interval_s - time.monotonic()))
            if turn == turns * 2 // 5 and number in {0, 2}:
                source.restart()
            requests = source.work(dice)
            truth[source.service].append((time.time(), truth[source.service][-1][1] + requests))
            for url in urls:
                post(url, source.export())
    return truth, sources


def outcome(prometheus, service, truth, sources):
    """Waits until both sides stand still, or are right."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        samples = {side: matrix(prometheus, service, side) for side in SIDES}
        last = {side: sum(series[-1][1] for series in samples[side]) for side in SIDES}
        if last["tailrace"] == truth[-1][1] or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return Outcome(
        truth=truth,
        samples={side: sorted(sample for series in samples[side] for sample in series) for side in SIDES},
        series={side: len(samples[side]) for side in SIDES},
        last=last,
        last_of_users={user: count for source in sources for user, count in source.counts.items()},
        increase={side: sum(increase(series) for series in samples[side]) for side in SIDES},
    )


def increase(samples):
    """Of a series from birth, as Prometheus counts it: a value below the one before began at 0."""
    values = [0.0, *(value for _, value in samples)]
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def matrix(prometheus, service, side):
    query = urllib.parse.urlencode({"query": f'{METRIC}{{job="{service}",via="{side}"}}[1h]'})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return [[(float(at), float(value)) for at, value in series["values"]] for series in found]


def post(url, body):
    headers = {"Content-Type": "application/x-protobuf"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        assert answer.status == 200


# The servers.


def binary(name):
    path = CACHE / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `make backends`")
    return str(path)


def start_prometheus(stack, folder):
    port = free_port()
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    arguments = [
        binary("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]
    return run(stack, folder, "prometheus", arguments, f"http://127.0.0.1:{port}", "/-/ready")


def start_gateway(stack, folder, side, prometheus):
    http, health = free_port(), free_port()
    text = COLLECTOR if side == "collector" else TAILRACE
    for word, value in (("HTTP", http), ("HEALTH", health), ("PROMETHEUS", prometheus)):
        text = text.replace(word, str(value))
    path = folder / f"{side}.yaml"
    path.write_text(text)
    if side == "collector":
        arguments, ready = [binary("otelcol"), f"--config={path}"], "/"
    else:
        arguments, ready = (
            [sys.executable, "-c", "from collector.cli import main; main()", "run", "--config", str(path)],
            "/health/ready",
        )
    run(stack, folder, side, arguments, f"http://127.0.0.1:{health}", ready)
    return f"http://127.0.0.1:{http}/v1/metrics"


def run(stack, folder, name, arguments, url, ready):
    """Starts a server and waits for it."""
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    deadline = time.monotonic() + 60
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url + ready, timeout=2) as answer,
        ):
            if answer.status == 200:
                return url
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} is not ready:\n{(folder / f'{name}.log').read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


# What is shown.

TITLES = {"users": "one process, three users", "pods": "three processes, one user each"}


def show(outcomes):
    for service, result in outcomes.items():
        print(f"\n{service}: {TITLES[service]}; one restart")
        print(f"  {'':28}{'truth':>10}{'collector':>12}{'tailrace':>12}")
        print(f"  {'series':28}{1:>10}" + "".join(f"{result.series[side]:>12}" for side in SIDES))
        print(
            f"  {'increase(' + METRIC + ')':28}{result.requests:>10}"
            + "".join(f"{result.increase[side]:>12.0f}" for side in SIDES)
        )
        off = "".join(f"{100 * (result.increase[side] / result.requests - 1):>+11.0f}%" for side in SIDES)
        print(f"  {'error':28}{'':>10}{off}")
        print(f"  {'last value':28}{result.requests:>10}" + "".join(f"{result.last[side]:>12.0f}" for side in SIDES))
        print(f"  {'falls of the counter':28}{0:>10}" + "".join(f"{result.falls(side):>12}" for side in SIDES))
        print(
            "  last exported by the sources: "
            + ", ".join(f"{user} {count}" for user, count in result.last_of_users.items())
        )


def draw(outcomes, path):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), dpi=90, sharey=True)
    for panel, (service, result) in zip(panels, outcomes.items(), strict=True):
        begin = result.truth[0][0]
        for name, samples, style in (
            ("truth", result.truth, {"color": "black", "linestyle": "--", "linewidth": 1}),
            (
                "Go collector, attributes: delete",
                result.samples["collector"],
                {"color": "tab:red", "marker": ".", "markersize": 4},
            ),
            (
                "Tailrace, cardinality: drop",
                result.samples["tailrace"],
                {"color": "tab:green", "linewidth": 2, "alpha": 0.8},
            ),
        ):
            panel.step(
                [at - begin for at, _ in samples], [value for _, value in samples], label=name, where="post", **style
            )
        panel.set_title(f"{TITLES[service]}; one restart", fontsize=10)
        panel.set_xlabel("s")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"sum({METRIC})")
    panels[0].legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="exports of each source, one a second")
    parser.add_argument("--no-plot", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = compare(Path(folder), options.turns)
    show(outcomes)
    if not options.no_plot:
        draw(outcomes, PLOT)
        print(f"\n{PLOT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
