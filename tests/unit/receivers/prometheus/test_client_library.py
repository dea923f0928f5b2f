"""A service with the client library of Prometheus for Python."""

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open

from collector.exposition import Identity, Page, SeriesTable, TextPage
from collector.model import Metrics, to_json


def registry():
    made = CollectorRegistry()
    Counter("served", "Requests.", ["code"], registry=made).labels("200").inc(3, exemplar={"trace_id": "0a" * 16})
    Gauge("load", "Load.", unit="ratio", registry=made).set(0.5)
    histogram = Histogram("latency", "Latency.", buckets=(0.1, 1), unit="seconds", registry=made)
    for value in (0.05, 0.5, 5):
        histogram.observe(value)
    Summary("size", "Size.", registry=made).observe(7)
    Info("build", "Build.", registry=made).info({"version": "1"})
    Enum("state", "State.", states=["up", "down"], registry=made).state("down")
    return made


async def convert(body, openmetrics):
    table = SeriesTable(
        lambda name, labels: {**dict(labels), "__name__": name}, lambda _: Identity("", ""), lambda _: {}, ("", "")
    )
    result = await table.convert(Page.of(TextPage(body, openmetrics)), 1)
    document = json.loads(to_json(Metrics.from_wire(result.wire)))
    (resource,) = document["resourceMetrics"]
    return {metric["name"]: metric for metric in resource["scopeMetrics"][0]["metrics"]}


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_what_a_service_exposes(openmetrics):
    """All of its types arrive, in both formats."""
    body = generate_open(registry()) if openmetrics else generate_latest(registry())
    got = await convert(body, openmetrics)
    served = got["served_total"]["sum"]
    assert (served["isMonotonic"], served["dataPoints"][0]["asDouble"]) == (True, 3)
    assert got["load_ratio"]["gauge"]["dataPoints"][0]["asDouble"] == 0.5
    (latency,) = got["latency_seconds"]["histogram"]["dataPoints"]
    assert (latency["count"], latency["sum"], latency["bucketCounts"]) == ("3", 5.55, ["1", "1", "1"])
    assert latency["explicitBounds"] == [0.1, 1]
    (size,) = got["size"]["summary"]["dataPoints"]
    assert (size["count"], size["sum"]) == ("1", 7)
    if openmetrics:
        assert served["dataPoints"][0]["exemplars"][0]["traceId"] == "0a" * 16
        assert int(latency["startTimeUnixNano"]) > 1_700_000_000 * 10**9
        assert [point["asDouble"] for point in got["state"]["sum"]["dataPoints"]] == [0, 1]
        assert got["build"]["metadata"] == [{"key": "prometheus.type", "value": {"stringValue": "info"}}]
