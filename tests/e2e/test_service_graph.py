"""Spans become a service graph in a real Prometheus, under the names that Grafana queries."""

import json
import os
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port

CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:HTTP"}}}}
exporters: {prometheus_remote_write: {endpoint: "PROMETHEUS/api/v1/write"}}
connectors:
  servicegraph:
    store: {ttl: 1s, max_items: 10000}
    store_expiration_loop: 200ms
    metrics_flush_interval: 500ms
    dimensions: [tenant.id]
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], exporters: [servicegraph]}
    metrics: {receivers: [servicegraph], exporters: [prometheus_remote_write]}
"""
SERVER, CLIENT = 2, 3
START = 1_700_000_000_000_000_000
REQUESTS = 100

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def request(spans):
    """Return a request with spans given as (service, kind, trace, span, parent, milliseconds, failed, attributes)."""
    message = ExportTraceServiceRequest()
    for service, kind, trace, span, parent, ms, failed, attributes in spans:
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name", value={"string_value": service})
        added = resource.scope_spans.add().spans.add(
            trace_id=trace,
            span_id=span,
            parent_span_id=parent,
            name="x",
            kind=kind,
            start_time_unix_nano=START,
            end_time_unix_nano=START + ms * 10**6,
        )
        added.status.code = 2 if failed else 0
        for key, value in attributes.items():
            added.attributes.add(key=key, value={"string_value": value})
    return message.SerializeToString()


def asked(prometheus, query):
    with urllib.request.urlopen(
        f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10
    ) as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def test_the_graph_arrives(gateway, load, prometheus):
    """Pairs across requests of different senders, a database, an unseen peer and a user each have their own edge.

    The ledger balances.
    """
    until = load[2]
    http = free_port()
    running = gateway(CONFIG.replace("HTTP", str(http)).replace("PROMETHEUS", prometheus))
    clients, servers = [], []
    for number in range(REQUESTS):
        trace, call, tenant = os.urandom(16), os.urandom(8), {"tenant.id": "acme"}
        clients.append(("graph-web", SERVER, trace, os.urandom(8), b"", 500, False, {}))
        clients.append(("graph-web", CLIENT, trace, call, os.urandom(8), 300, False, tenant))
        clients.append(
            ("graph-web", CLIENT, trace, os.urandom(8), os.urandom(8), 7, False, {"peer.service": "graph-mail"})
        )
        servers.append(("graph-embed", SERVER, trace, os.urandom(8), call, 30, number % 10 == 0, {}))
        servers.append(
            ("graph-embed", CLIENT, trace, os.urandom(8), os.urandom(8), 3, False, {"db.name": "graph-vectors"})
        )
    for spans in (servers, clients):
        headers = {"Content-Type": "application/x-protobuf"}
        url = f"http://127.0.0.1:{http}/v1/traces"
        with urllib.request.urlopen(urllib.request.Request(url, request(spans), headers), timeout=10) as answer:
            assert answer.status == 200
    pair = 'client="graph-web",server="graph-embed",client_tenant_id="acme"'
    for labels in (pair, 'client="user",server="graph-web"', 'client="graph-web",server="graph-mail",connection_type="virtual_node"',
                   'client="graph-embed",server="graph-vectors",connection_type="database"'):  # fmt: skip
        assert until(
            lambda labels=labels: asked(prometheus, f"sum(traces_service_graph_request_total{{{labels}}})") == REQUESTS
        ), labels
    assert asked(prometheus, f"traces_service_graph_request_failed_total{{{pair}}}") == REQUESTS / 10
    assert asked(prometheus, f"sum(traces_service_graph_request_server_seconds_sum{{{pair}}})") == pytest.approx(
        REQUESTS * 0.03
    )
    assert asked(prometheus, f"sum(traces_service_graph_request_client_seconds_sum{{{pair}}})") == pytest.approx(
        REQUESTS * 0.3
    )
    assert asked(prometheus, f'sum(traces_service_graph_request_server_seconds_bucket{{{pair},le="0.05"}})') == REQUESTS
    assert asked(prometheus, f'sum(traces_service_graph_request_server_seconds_bucket{{{pair},le="0.01"}})') == 0
    assert all(row["imbalance"] == 0 for row in running.ledger())
    assert running.stop() == 0
    assert running.final_ledger()["connectors/servicegraph", "traces"]["folded"] == 5 * REQUESTS
