"""A small embedding API with the OpenTelemetry SDK: sends traces, metrics and logs over OTLP/gRPC to a local gateway.

It is not part of the product. All settings are the SDK's own environment variables; see the README in this folder.
"""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

tracer_provider, logger_provider = TracerProvider(), LoggerProvider()
tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
meter_provider = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
trace.set_tracer_provider(tracer_provider)
metrics.set_meter_provider(meter_provider)
set_logger_provider(logger_provider)

log = logging.getLogger("embedding_api")
log.setLevel(logging.INFO)
log.addHandler(LoggingHandler(logger_provider=logger_provider))
tracer = trace.get_tracer("embedding_api")
DIMENSIONS = 8


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Flush the SDK before the process ends."""
    yield
    for provider in (tracer_provider, meter_provider, logger_provider):
        provider.shutdown()


app = FastAPI(title="Embedding API", lifespan=lifespan)


@app.post("/v1/embeddings")
def embed(text: str) -> list[float]:
    """A vector for the text; the same text always gives the same vector."""
    with tracer.start_as_current_span("encode") as span:
        span.set_attribute("gen_ai.operation.name", "embeddings")
        digest = hashlib.sha256(text.encode()).digest()
    log.info("embedded %d characters", len(text))
    return [byte / 255 for byte in digest[:DIMENSIONS]]


@app.get("/v1/documents/{number}")
def document(number: int) -> dict[str, int]:
    """Documents below 500 exist; those from 500 to 999 are on a shard that is unavailable, which raises an error."""
    if number >= 1000:
        raise HTTPException(404)
    if number >= 500:
        log.error("the shard of document %d is unavailable", number)
        raise ConnectionError("the shard is unavailable")
    return {"number": number}


FastAPIInstrumentor.instrument_app(app)
