"""Names of metrics and labels are those that the OTLP endpoint of a real Prometheus gives them."""

import asyncio
import contextlib
import http.client
import json
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.prometheus import UP_DOWN_COUNTER, LabelSettings, SeriesLabels, metric_name
from collector.testing import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

STRATEGIES = (
    "UnderscoreEscapingWithSuffixes",
    "UnderscoreEscapingWithoutSuffixes",
    "NoUTF8EscapingWithSuffixes",
    "NoTranslation",
)
ROWS = json.loads((Path(__file__).parents[1] / "data/prometheus_names.json").read_text(encoding="utf-8"))
KINDS = {
    "gauge": "gauge",
    "counter": "counter",
    "up_down_counter": UP_DOWN_COUNTER,
    "histogram": "histogram",
    "exponential_histogram": "histogram",
    "summary": "summary",
}
LABEL_KEYS = (
    ("a.b",), ("a b", "a.b", "a_b"), ("1a",), ("_",), ("_a",), ("__a",), ("a..b",), ("a:b",), ("éa",), ("é",), ("é1",),
    (" ",), ("-a",), ("--a",), ("a__",), ("a\nb",), ("__name__",), ("le",), ("job",), ("UPPER",), ("ключ1",),
)  # fmt: skip
REFUSED_KEYS = (("ключ",), ("ключ", "имя"), ("温度", "ok"), ("__",), ("é_",))
"""What Prometheus refuses to escape. Its points are kept here, see ``escape_label_name``."""


class Endpoint:
    """The OTLP endpoint of a Prometheus. ``post`` takes one metric with one point, whose ``case`` is given."""

    def __init__(self, port):
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def post(self, case, name, unit, kind, attributes=()):
        made = ExportMetricsServiceRequest()
        metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name=name, unit=unit)
        now = time.time_ns()
        if kind == "gauge":
            point = metric.gauge.data_points.add(as_int=1)
        elif kind in ("counter", "up_down_counter"):
            metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, kind == "counter"
            point = metric.sum.data_points.add(as_int=1)
        elif kind == "summary":
            point = metric.summary.data_points.add(count=1, sum=1)
        else:
            getattr(metric, kind).aggregation_temporality = 2
            point = getattr(metric, kind).data_points.add(count=1, sum=1)
            if kind == "exponential_histogram":
                point.zero_count = 1
            else:
                point.bucket_counts.append(1)
        point.time_unix_nano = now
        for key, value in (*attributes, ("case", case)):
            point.attributes.add(key=key).value.string_value = value
        headers = {"Content-Type": "application/x-protobuf"}
        self._connection.request("POST", "/api/v1/otlp/v1/metrics", made.SerializeToString(), headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self):
        self._connection.close()

    def series(self):
        """The label sets of the stored series, by case."""
        query = urllib.parse.urlencode({"match[]": '{case!=""}'})
        found = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/series?{query}", timeout=30) as answer:
            for labels in json.load(answer)["data"]:
                found.setdefault(labels.pop("case"), []).append(labels)
        return found


@pytest.fixture(params=STRATEGIES)
def endpoint(request, server, tmp_path):
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1h}}\notlp: {{translation_strategy: {request.param}}}\n"
    )
    arguments = [server.binary("prometheus"), f"--config.file={tmp_path}/prometheus.yml",
                 f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}",
                 "--web.enable-otlp-receiver", "--log.level=error"]  # fmt: skip
    with (
        server.running(arguments, f"http://127.0.0.1:{port}/-/ready", tmp_path),
        contextlib.closing(Endpoint(port)) as found,
    ):
        yield request.param, found


def _base_name(labels, kind):
    """The name of the family, from the name of one of its series."""
    names = [found.get("__name__", "") for found in labels]
    if kind not in ("histogram", "summary"):
        (name,) = names
        return name
    (name,) = {name.removesuffix("_sum") for name in names if name.endswith("_sum")}
    return name


async def test_metric_names(endpoint):
    """For every name, unit and kind in the table, and what Prometheus refuses has no name here."""
    strategy, prometheus = endpoint

    def compare():
        refused = {
            (i, kind)
            for i, (name, unit, *_) in enumerate(ROWS)
            for kind in KINDS
            if prometheus.post(f"{i}/{kind}", name, unit, kind) != 200
        }
        stored = prometheus.series()
        different = {}
        for i, (name, unit, *_) in enumerate(ROWS):
            for kind, suffixes in KINDS.items():
                expected = "" if (i, kind) in refused else _base_name(stored[f"{i}/{kind}"], kind)
                found = metric_name(name, unit, suffixes, strategy)
                if found != expected:
                    different[name, unit, kind] = found, expected
        assert different == {}
        assert len(stored) + len(refused) == len(ROWS) * len(KINDS)

    await asyncio.to_thread(compare)


async def test_label_names(endpoint):
    """Also of keys that collide. Keys that Prometheus refuses to escape stay apart instead of losing their points."""
    strategy, prometheus = endpoint
    labels = SeriesLabels(LabelSettings(strategy=strategy, scope_info=False))

    def compare():
        cases = {str(i): [(key, f"value {key}") for key in keys] for i, keys in enumerate(LABEL_KEYS)}
        for case, attributes in cases.items():
            assert prometheus.post(case, "m", "", "gauge", attributes) == 200, attributes
        stored = prometheus.series()
        for case, attributes in cases.items():
            (expected,) = stored[case]
            assert dict(labels.series(attributes, [], ("", "", "", []))) | {"__name__": "m"} == expected
        for keys in REFUSED_KEYS:
            attributes = [(key, f"value {key}") for key in keys]
            status = prometheus.post("refused", "m", "", "gauge", attributes)
            ours = labels.series(attributes, [], ("", "", "", []))
            assert len(ours) == len(keys)
            assert (status == 200) == (strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation"))

    await asyncio.to_thread(compare)
