// The OpenTelemetry SDK's exporters send a fixed set of telemetry: node main.mjs PROTOCOL URL COMPRESSION [CA]
// PROTOCOL: grpc, http/protobuf or http/json. COMPRESSION: none or gzip. CA: a PEM file; given: TLS.
// The same telemetry in every language: tests/e2e/test_sdks.py knows it by heart.
import { readFileSync } from "node:fs";

import { credentials } from "@grpc/grpc-js";
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, ValueType, trace } from "@opentelemetry/api";
import { SeverityNumber } from "@opentelemetry/api-logs";
import * as grpcLogs from "@opentelemetry/exporter-logs-otlp-grpc";
import * as jsonLogs from "@opentelemetry/exporter-logs-otlp-http";
import * as protoLogs from "@opentelemetry/exporter-logs-otlp-proto";
import * as grpcMetrics from "@opentelemetry/exporter-metrics-otlp-grpc";
import * as jsonMetrics from "@opentelemetry/exporter-metrics-otlp-http";
import * as protoMetrics from "@opentelemetry/exporter-metrics-otlp-proto";
import * as grpcTraces from "@opentelemetry/exporter-trace-otlp-grpc";
import * as jsonTraces from "@opentelemetry/exporter-trace-otlp-http";
import * as protoTraces from "@opentelemetry/exporter-trace-otlp-proto";
import { ExportResultCode, setGlobalErrorHandler } from "@opentelemetry/core";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { AggregationType, MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const COUNT = 300;
const KINDS = [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER];

const failures = [];
setGlobalErrorHandler((error) => failures.push(String(error?.message ?? error)));

/** An exporter whose failures are remembered: the SDK's processors report some only to a log. */
function watched(exporter) {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      if (result.code !== ExportResultCode.SUCCESS) failures.push(String(result.error ?? "an export failed"));
      done(result);
    });
  return exporter;
}

function exporters(protocol, url, compression, ca) {
  if (protocol === "grpc") {
    const options = { url, compression, credentials: ca ? credentials.createSsl(ca) : credentials.createInsecure() };
    return {
      spans: new grpcTraces.OTLPTraceExporter(options),
      metrics: new grpcMetrics.OTLPMetricExporter(options),
      logs: new grpcLogs.OTLPLogExporter(options),
    };
  }
  const families = { "http/protobuf": [protoTraces, protoMetrics, protoLogs], "http/json": [jsonTraces, jsonMetrics, jsonLogs] };
  if (!(protocol in families)) throw new Error(`no protocol ${protocol}: grpc, http/protobuf or http/json`);
  const [traces, metrics, logs] = families[protocol];
  const options = { compression, ...(ca ? { httpAgentOptions: { ca } } : {}) };
  return {
    spans: new traces.OTLPTraceExporter({ ...options, url: `${url}/v1/traces` }),
    metrics: new metrics.OTLPMetricExporter({ ...options, url: `${url}/v1/metrics` }),
    logs: new logs.OTLPLogExporter({ ...options, url: `${url}/v1/logs` }),
  };
}

function record(tracer, meter, logger) {
  const requests = meter.createCounter("requests", { unit: "1", valueType: ValueType.INT });
  const active = meter.createUpDownCounter("active", { valueType: ValueType.INT });
  const duration = meter.createHistogram("duration", { unit: "ms" });
  const size = meter.createHistogram("size", { unit: "By" });
  const temperature = meter.createGauge("temperature");
  const ids = [];
  let root;
  for (let i = 0; i < COUNT; i++) {
    const isRoot = i % 10 === 0;
    const links = isRoot && root ? [{ context: root.spanContext(), attributes: { number: i } }] : [];
    const attributes = { number: i, text: `värde-${i}`, ratio: i + 0.25, even: i % 2 === 0, words: ["a", String(i)] };
    const parent = isRoot ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, root);
    const span = tracer.startSpan(`op-${i % 7}`, { kind: KINDS[i % 5], attributes, links }, parent);
    if (isRoot) root = span;
    span.addEvent("moment", { number: i });
    const failed = i % 3 === 0;
    if (failed) span.setStatus({ code: SpanStatusCode.ERROR, message: "failed" });
    logger.emit({
      body: `rad ${i} € väl`,
      severityNumber: failed ? SeverityNumber.ERROR : SeverityNumber.INFO,
      attributes: { number: i },
      context: trace.setSpan(ROOT_CONTEXT, span),
    });
    const route = { route: `r${i % 5}` };
    requests.add(i + 1, route);
    active.add(2 - 3 * (i % 2));
    duration.record(i + 0.25, route);
    size.record(i + 0.25);
    temperature.record(i / 2);
    span.end();
    ids.push([span.spanContext().traceId, span.spanContext().spanId]);
  }
  return ids;
}

const [protocol, url, compression, file] = process.argv.slice(2);
const { spans, metrics, logs } = exporters(protocol, url, compression, file && readFileSync(file));
const resource = resourceFromAttributes({ "service.name": process.env.OTEL_SERVICE_NAME });
const tracers = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(watched(spans))] });
const meters = new MeterProvider({
  resource,
  views: [{ instrumentName: "size", aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
  readers: [new PeriodicExportingMetricReader({ exporter: watched(metrics) })],
});
const loggers = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor(watched(logs))] });
const ids = record(tracers.getTracer("interop", "1.0"), meters.getMeter("interop"), loggers.getLogger("interop"));
for (const each of [tracers, meters, loggers]) await each.shutdown().catch((error) => failures.push(String(error)));
if (failures.length > 0) {
  console.error(failures.join("\n"));
  process.exit(1);
}
console.log(JSON.stringify({ spans: ids }));
