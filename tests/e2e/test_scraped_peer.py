"""Pages that the Go collector's receiver ``prometheus`` and ours scrape at the same time: the OTLP must be equal."""

import asyncio
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from collector.model import Signal, to_json
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, Sink, eventually, make_settings
from receivers.prometheus import factory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TEXT = r"""# HELP http_requests_total Total of "requests"\nand more.
# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 1027
http_requests_total{code="400",method="a\\b\"c\nd"} 3 
# TYPE temp gauge
temp{le="x",empty="",job="inner",instance="i"} -1.5e-3
untyped_thing 7
big 123456789012345678901234567890
tiny 4.9e-324
nan NaN
inf{a="1"} +Inf
{"größe.x","lab.el"="v"} 4
# TYPE lat histogram
lat_bucket{le="1"} 5
lat_bucket{le="0.1"} 2
lat_bucket{le="+Inf"} 6
lat_sum 4.5
lat_count 6
lat_bucket{a="b",le="+Inf"} 1
lat_sum{a="b"} 2
lat_count{a="b"} 1
# TYPE no_count histogram
no_count_bucket{le="1"} 5
# TYPE rpc summary
rpc{quantile="0.9"} 2
rpc{quantile="0.5"} NaN
rpc_sum 10
rpc_count 4
# TYPE bare summary
bare_sum 1
bare_count 1
scoped{otel_scope_name="lib",otel_scope_version="1",otel_scope_a="b",x="y"} 1
stamped 5 1700000000123
dup 1
target_info{version="1.2",env="x"} 1
process_start_time_seconds 1700000000
"""  # noqa: W291 - a blank behind the value is allowed
OPEN = """# HELP reqs Total.
# TYPE reqs counter
# UNIT t_seconds seconds
# TYPE t_seconds gauge
t_seconds 3
reqs_total{a="b"} 10 # {trace_id="0102030405060708090a0b0c0d0e0f10",span_id="0102030405060708",k="v"} 0.5 1700000000.5
reqs_created{a="b"} 1700000000.25
# TYPE h histogram
h_bucket{le="0.1"} 2 # {trace_id="0102030405060708090a0b0c0d0e0f10"} 0.05
h_bucket{le="+Inf"} 3 # {trace_id="short"} 7
h_sum 1
h_count 3
h_created 1700000001
# TYPE build info
build_info{v="1"} 1
# TYPE st stateset
st{st="a"} 1
st{st="b"} 0
# TYPE speed_bytes_per_second gauge
# UNIT speed_bytes_per_second bytes_per_second
speed_bytes_per_second 12.5 1700000000.125
# EOF
"""
GONE = ('http_requests_total{code="200",method="get"} 1027\n', "rpc", 'lat_bucket{a="b",le="+Inf"} 1\n')
VARIABLE = {"scrape_duration_seconds"}


@pytest.fixture
def pages():
    """A server of the two pages; series disappear from the text while ``gone`` is set."""
    state = {"gone": False, "down": False}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_open = self.path.startswith("/open")
            body = OPEN if is_open else TEXT
            if state["gone"] and not is_open:
                body = body.replace(GONE[0], "").replace(GONE[1], "rpd").replace(GONE[2], "")
            kind = "application/openmetrics-text; version=1.0.0" if is_open else "text/plain; version=0.0.4"
            self.send_response(503 if state["down"] else 200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, state
    server.shutdown()
    server.server_close()


def is_up(document):
    """Whether the scrape succeeded."""
    metrics = [
        metric
        for resource in document["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    ]
    return all(metric["gauge"]["dataPoints"][0]["asDouble"] for metric in metrics if metric["name"] == "up")


def normal(documents, failures):
    """What one receiver sent, per resource, metric and attributes: the values of points, by whether they are stale.

    Without ``failures``, scrapes that failed are left out: a busy machine may be late once.
    """
    found, stale = {}, {}
    for document in documents:
        if not failures and not is_up(document):
            continue
        for resource in document["resourceMetrics"]:
            attributes = sorted(
                (one["key"], one["value"].get("stringValue", "")) for one in resource["resource"].get("attributes", [])
            )
            for scope in resource["scopeMetrics"]:
                name = json.dumps(scope.get("scope"), sort_keys=True)
                name = name.replace("0.156.0", "VERSION").replace("0.0.0-test", "VERSION")
                for metric in scope["metrics"]:
                    (kind,) = {"gauge", "sum", "histogram", "summary"} & set(metric)
                    head = {key: value for key, value in metric.items() if key != kind}
                    for point in metric[kind]["dataPoints"]:
                        labels = sorted(
                            (one["key"], one["value"]["stringValue"]) for one in point.pop("attributes", [])
                        )
                        time = int(point.pop("timeUnixNano"))
                        point["stamped"] = time if time < 1_750_000_000_000_000_000 else "now"
                        for exemplar in point.get("exemplars", []):
                            if int(exemplar["timeUnixNano"]) > 1_750_000_000_000_000_000:
                                exemplar["timeUnixNano"] = "now"
                        if metric["name"] in VARIABLE:
                            point.pop("asDouble", None)
                        if point.get("flags"):
                            # The Collector makes a start time of the stale marker of the _created line.
                            point.pop("startTimeUnixNano", None)
                        rest = {key: value for key, value in metric[kind].items() if key != "dataPoints"}
                        key = json.dumps([attributes, name, head, kind, rest, labels], sort_keys=True)
                        (stale if point.get("flags") else found)[key] = point
    return found, stale


def scrape_config(port):
    return {
        "scrape_configs": [
            {
                "job_name": "text", "scrape_interval": "1s",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"extra": "lab"}}],
                "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "dup", "action": "drop"}],
            },
            {
                "job_name": "open", "scrape_interval": "1s", "metrics_path": "/open", "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            },
        ]
    }  # fmt: skip


@contextlib.asynccontextmanager
async def go_collector(server, folder, config):
    output = folder / "out.json"
    document = {
        "receivers": {"prometheus": {"config": config}},
        "exporters": {"file": {"path": str(output)}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"metrics": {"receivers": ["prometheus"], "exporters": ["file"]}},
        },
    }
    (folder / "config.yaml").write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        server.binary("otelcol"), f"--config={folder / 'config.yaml'}", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        # Without the last line, which may be incomplete.
        yield lambda: [json.loads(line) for line in output.read_text().split("\n")[:-1]] if output.exists() else []
    finally:
        process.terminate()
        await process.wait()


async def test_both_make_the_same_of_a_page(server, tmp_path, pages):
    """All types, escapes, scopes, resources, exemplars; series that disappear; a target that goes away."""
    port, state = pages
    sink, telemetry = Sink(Signal.METRICS), RecordingTelemetry()
    settings = make_settings(factory, outputs={Signal.METRICS: sink}, telemetry=telemetry, clock=SystemClock())
    sut = factory.create(settings, factory.config_type.model_validate({"config": scrape_config(port)}))
    await sut.start(FakeHost())
    try:
        async with go_collector(server, tmp_path, scrape_config(port)) as read:

            def ours():
                return [json.loads(to_json(batch)) for batch in sink.batches]

            async def compare(expected_stale):
                mine = theirs = ({}, {})

                def is_done():
                    nonlocal mine, theirs
                    mine, theirs = normal(ours(), state["down"]), normal(read(), state["down"])
                    same = all(mine[part].keys() == theirs[part].keys() for part in (0, 1))
                    return same and len(mine[0]) > 20 and len(mine[1]) >= expected_stale

                with contextlib.suppress(TimeoutError):
                    await eventually(is_done, timeout_s=30)
                for part in (0, 1):
                    only_ours = {key: mine[part][key] for key in mine[part].keys() - theirs[part].keys()}
                    only_theirs = {key: theirs[part][key] for key in theirs[part].keys() - mine[part].keys()}
                    assert (only_ours, only_theirs) == ({}, {}), part
                for part in (0, 1):
                    for key, point in theirs[part].items():
                        if "scrape_series_added" not in key:
                            assert mine[part][key] == point, key

            await compare(0)
            state["gone"] = True
            await compare(2)
            state["down"] = True
            await compare(12)
    finally:
        await sut.shutdown()
