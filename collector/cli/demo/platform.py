"""A simulated embedding platform: an API, an embedding server with a GPU, and a vector database.

Spans follow the semantic conventions of HTTP, GenAI and databases. Nothing is random except by the seed, apart from
the clock.
"""

import random
import time
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from collector.cli.demo.metrics import MODELS, PlatformMetrics, attributes_of
from collector.cli.demo.names import API, EMBEDDING_SERVER, GPU_HOST, SERVICES, VECTOR_DB

__all__ = ["Platform", "Totals"]

_COLLECTIONS: Final = ("documents", "products", "tickets")
_ENDPOINTS: Final = (
    ("POST", "/v1/embeddings", 50),
    ("POST", "/v1/search", 30),
    ("GET", "/v1/documents/{id}", 15),
    ("GET", "/health", 5),
)
"""Method, route and weight."""
_INTERNAL, _SERVER, _CLIENT = 1, 2, 3
_STATUS_ERROR: Final = 2
_SLOW_S: Final = 2.0
_NS: Final = 1_000_000_000


@dataclass
class Totals:
    """What was made, and how often sending it failed."""

    traces: int = 0
    spans: int = 0
    server_spans: int = 0
    error_traces: int = 0
    slow_traces: int = 0
    """Slow traces without an error."""
    health_traces: int = 0
    gpu_spans: int = 0
    metric_points: int = 0
    series: int = 0
    log_records: int = 0
    requests_value: int = 0
    """Sum of http_requests_total over all its series."""
    user_ids: int = 0
    """Distinct values of user_id."""
    failures: int = 0
    """Attempts to send that were not acknowledged."""


class Platform:
    """Simulates requests and turns them into telemetry."""

    def __init__(self, seed: int = 7, users: int = 5000, environment: str = "demo") -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._users = users
        self._environment = environment
        self._metrics = PlatformMetrics(self._random)
        self.totals = Totals()

    def resource(self, service: str) -> list[KeyValue]:
        """The resource of a service."""
        return attributes_of(
            {
                "service.name": service,
                "service.instance.id": f"{service}-0",
                "host.name": SERVICES[service],
                "deployment.environment.name": self._environment,
                "telemetry.sdk.language": "python",
            }
        )

    def metrics(self) -> ExportMetricsServiceRequest:
        """The current values of all metrics: cumulative, as an SDK exports them."""
        request = self._metrics.export(self.resource)
        self.totals.series = self._metrics.series_count
        self.totals.user_ids = self._metrics.user_count
        self.totals.metric_points += self.totals.series
        return request

    def requests(self, count: int) -> tuple[ExportTraceServiceRequest, ExportLogsServiceRequest]:
        """Spans and log records of ``count`` requests that have just ended."""
        traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
        spans, records = {}, {}
        for service in SERVICES:
            by_service = traces.resource_spans.add()
            by_service.resource.attributes.extend(self.resource(service))
            scope = by_service.scope_spans.add()
            scope.scope.name = "opentelemetry.instrumentation.fastapi"
            spans[service] = scope.spans
            log_service = logs.resource_logs.add()
            log_service.resource.attributes.extend(self.resource(service))
            log_scope = log_service.scope_logs.add()
            log_scope.scope.name = "structlog"
            records[service] = log_scope.log_records
        for _ in range(count):
            self._one_request(spans, records)
        return traces, logs

    def _one_request(self, spans: dict[str, Any], records: dict[str, Any]) -> None:
        chance = self._random
        method, route, _ = chance.choices(_ENDPOINTS, weights=[weight for *_, weight in _ENDPOINTS])[0]
        tenant = f"tenant-{int(chance.paretovariate(1.2)) % 20:02d}"
        user = f"user-{chance.randrange(self._users):05d}"
        is_health = route == "/health"
        failed = not is_health and chance.random() < 0.006
        slow = not is_health and chance.random() < 0.004
        model = chance.choice(MODELS)
        queue_s = chance.expovariate(1 / 0.01)
        model_s = chance.lognormvariate(-3.2, 0.5) + (chance.uniform(_SLOW_S, 3.0) if slow else 0.0)
        search_s = chance.lognormvariate(-4.2, 0.4) if "search" in route or "documents" in route else 0.0
        own_s = 0.001 + chance.expovariate(1 / 0.003)
        uses_model = route in {"/v1/embeddings", "/v1/search"}
        total_s = (
            own_s + (queue_s + model_s if uses_model else chance.uniform(_SLOW_S, 3.0) if slow else 0.0) + search_s
        )
        end = time.time_ns()
        start = end - int(total_s * _NS)
        status = chance.choice((500, 503)) if failed else 200
        path = route.replace("{id}", str(chance.randrange(100000)))
        trace_id = chance.randbytes(16)
        root_id = chance.randbytes(8)

        root = self._span(
            spans[API], trace_id, root_id, b"", f"{method} {route}", _SERVER, start, end,
            {"http.request.method": method, "http.route": route, "url.path": path, "http.response.status_code": status,
             "tenant_id": tenant, "user.id": user},
        )  # fmt: skip
        for part in ("http send", "http receive"):
            self._span(
                spans[API],
                trace_id,
                chance.randbytes(8),
                root_id,
                f"{method} {route} {part}",
                _INTERNAL,
                end - 200_000,
                end,
                {},
            )
        at = start + int(own_s / 2 * _NS)
        error = ""
        if failed:
            error = "CUDA out of memory" if uses_model and chance.random() < 0.5 else "upstream timed out"
        if uses_model:
            at = self._embed(spans, trace_id, root_id, at, model, tenant, queue_s, model_s, error)
            self._metrics.count_embedding(model, failed=failed)
        if search_s:
            at = self._search(spans, trace_id, root_id, at, search_s)
        if failed:
            root.status.code = _STATUS_ERROR
            root.status.message = error
        # Some instrumentations label with the path instead of the route.
        endpoint = path if route == "/v1/documents/{id}" and chance.random() < 0.3 else route
        self._metrics.count_request(method, endpoint, status, tenant, "" if is_health else user, total_s)
        if not is_health:
            self._log(records, trace_id, root_id, end, route, status, tenant, total_s, error)
        totals = self.totals
        totals.requests_value += 1
        totals.traces += 1
        totals.error_traces += failed
        totals.slow_traces += (end - start) / _NS >= _SLOW_S and not failed
        totals.health_traces += is_health

    def _embed(
        self,
        spans: dict[str, Any],
        trace_id: bytes,
        parent: bytes,
        at: int,
        model: str,
        tenant: str,
        queue_s: float,
        model_s: float,
        error: str,
    ) -> int:
        chance = self._random
        tokens = chance.randrange(8, 512)
        end = at + int((queue_s + model_s) * _NS)
        client_id = chance.randbytes(8)
        common = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "tei", "gen_ai.request.model": model}
        self._span(spans[API], trace_id, client_id, parent, f"embeddings {model}", _CLIENT, at, end,
                   {**common, "server.address": GPU_HOST, "server.port": 8080})  # fmt: skip
        span = self._span(
            spans[EMBEDDING_SERVER], trace_id, chance.randbytes(8), client_id, f"embeddings {model}", _SERVER,
            at + 50_000, end - 50_000,
            {**common, "gen_ai.usage.input_tokens": tokens, "gen_ai.embeddings.dimension.count": 384,
             "gen_ai.latency.time_in_queue": queue_s, "tenant_id": tenant},
        )  # fmt: skip
        self.totals.gpu_spans += 1
        if error:
            span.status.code = _STATUS_ERROR
            span.status.message = error
            event = span.events.add(name="exception", time_unix_nano=end - 60_000)
            event.attributes.extend(attributes_of({"exception.type": "RuntimeError", "exception.message": error}))
        return end

    def _search(self, spans: dict[str, Any], trace_id: bytes, parent: bytes, at: int, search_s: float) -> int:
        chance = self._random
        collection = chance.choice(_COLLECTIONS)
        end = at + int(search_s * _NS)
        client_id = chance.randbytes(8)
        common = {"db.system.name": "qdrant", "db.operation.name": "search", "db.collection.name": collection}
        self._span(spans[API], trace_id, client_id, parent, f"search {collection}", _CLIENT, at, end, common)
        self._span(
            spans[VECTOR_DB], trace_id, chance.randbytes(8), client_id, f"search {collection}", _SERVER,
            at + 30_000, end - 30_000, {**common, "db.response.returned_rows": chance.randrange(1, 20)},
        )  # fmt: skip
        self._metrics.count_search(collection)
        return end

    def _span(
        self,
        spans: Any,
        trace_id: bytes,
        span_id: bytes,
        parent: bytes,
        name: str,
        kind: int,
        start: int,
        end: int,
        values: dict[str, Any],
    ) -> Any:
        span = spans.add(
            trace_id=trace_id, span_id=span_id, parent_span_id=parent, name=name, kind=kind, start_time_unix_nano=start,
            end_time_unix_nano=end, flags=0x101,
        )  # fmt: skip
        span.attributes.extend(attributes_of(values))
        self.totals.spans += 1
        self.totals.server_spans += kind == _SERVER
        return span

    def _log(
        self,
        records: dict[str, Any],
        trace_id: bytes,
        span_id: bytes,
        at: int,
        route: str,
        status: int,
        tenant: str,
        duration_s: float,
        error: str,
    ) -> None:
        service = EMBEDDING_SERVER if error.startswith("CUDA") else API
        number, text = (17, "ERROR") if error else (13, "WARN") if duration_s >= _SLOW_S else (9, "INFO")
        body = error or f"{route} answered {status} in {duration_s * 1000:.0f} ms"
        record = records[service].add(
            time_unix_nano=at,
            observed_time_unix_nano=at,
            severity_number=number,
            severity_text=text,
            trace_id=trace_id,
            span_id=span_id,
        )
        record.body.string_value = body
        record.attributes.extend(attributes_of({"http.route": route, "tenant_id": tenant, "request_id": f"req-{at:x}"}))
        self.totals.log_records += 1
