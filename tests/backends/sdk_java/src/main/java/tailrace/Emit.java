package tailrace;

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.logs.Logger;
import io.opentelemetry.api.logs.Severity;
import io.opentelemetry.api.metrics.DoubleGauge;
import io.opentelemetry.api.metrics.DoubleHistogram;
import io.opentelemetry.api.metrics.LongCounter;
import io.opentelemetry.api.metrics.LongUpDownCounter;
import io.opentelemetry.api.metrics.Meter;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.logs.OtlpHttpLogRecordExporter;
import io.opentelemetry.exporter.otlp.http.metrics.OtlpHttpMetricExporter;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.logs.OtlpGrpcLogRecordExporter;
import io.opentelemetry.exporter.otlp.metrics.OtlpGrpcMetricExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.logs.SdkLoggerProvider;
import io.opentelemetry.sdk.logs.export.BatchLogRecordProcessor;
import io.opentelemetry.sdk.logs.export.LogRecordExporter;
import io.opentelemetry.sdk.metrics.Aggregation;
import io.opentelemetry.sdk.metrics.InstrumentSelector;
import io.opentelemetry.sdk.metrics.SdkMeterProvider;
import io.opentelemetry.sdk.metrics.View;
import io.opentelemetry.sdk.metrics.export.MetricExporter;
import io.opentelemetry.sdk.metrics.export.PeriodicMetricReader;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;

/**
 * The OpenTelemetry SDK's exporters send a fixed set of telemetry: {@code Emit PROTOCOL URL COMPRESSION [CA]}.
 *
 * <p>PROTOCOL: grpc (OkHttp, the SDK's own), grpc-java (through {@link GrpcJavaSender}) or http/protobuf. COMPRESSION: none or gzip. CA: a PEM
 * file; given: TLS. The same telemetry in every language: tests/e2e/test_sdks.py knows it by heart.
 */
public final class Emit {
  private static final int COUNT = 300;
  private static final SpanKind[] KINDS = {
    SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER
  };
  private static final AttributeKey<Long> NUMBER = AttributeKey.longKey("number");
  private static final AttributeKey<String> ROUTE = AttributeKey.stringKey("route");

  private record Exporters(SpanExporter spans, MetricExporter metrics, LogRecordExporter logs) {}

  public static void main(String[] arguments) throws Exception {
    String protocol = arguments[0];
    String url = arguments[1];
    String compression = arguments[2];
    byte[] ca = arguments.length > 3 ? Files.readAllBytes(Path.of(arguments[3])) : null;
    GrpcJavaSender.trusted = ca;
    System.setProperty(
        "io.opentelemetry.sdk.common.export.GrpcSenderProvider",
        protocol.equals("grpc-java")
            ? GrpcJavaSender.Provider.class.getName()
            : "io.opentelemetry.exporter.sender.okhttp.internal.OkHttpGrpcSenderProvider");
    // The SDK reports failed exports to its log alone.
    List<String> failures = new ArrayList<>();
    java.util.logging.Logger sdk = java.util.logging.Logger.getLogger("io.opentelemetry");
    sdk.setUseParentHandlers(false);
    sdk.addHandler(collecting(failures));
    Exporters each =
        switch (protocol) {
          case "grpc", "grpc-java" -> overGrpc(url, compression, ca);
          case "http/protobuf" -> overHttp(url, compression, ca);
          default -> throw new IllegalArgumentException("no protocol " + protocol + ": grpc, grpc-java or http/protobuf");
        };
    Resource resource = Resource.create(Attributes.of(AttributeKey.stringKey("service.name"), System.getenv("OTEL_SERVICE_NAME")));
    SdkTracerProvider tracers =
        SdkTracerProvider.builder().setResource(resource).addSpanProcessor(BatchSpanProcessor.builder(each.spans).build()).build();
    SdkMeterProvider meters =
        SdkMeterProvider.builder()
            .setResource(resource)
            .registerView(
                InstrumentSelector.builder().setName("size").build(),
                View.builder().setAggregation(Aggregation.base2ExponentialBucketHistogram()).build())
            .registerMetricReader(PeriodicMetricReader.create(each.metrics))
            .build();
    SdkLoggerProvider loggers =
        SdkLoggerProvider.builder().setResource(resource).addLogRecordProcessor(BatchLogRecordProcessor.builder(each.logs).build()).build();
    String ids =
        record(tracers.get("interop", "1.0"), meters.get("interop"), loggers.get("interop"));
    for (CompletableResultCode end : List.of(tracers.shutdown(), meters.shutdown(), loggers.shutdown())) {
      if (!end.join(60, TimeUnit.SECONDS).isSuccess()) {
        failures.add("a shutdown failed");
      }
    }
    synchronized (failures) {
      if (!failures.isEmpty()) {
        System.err.println(String.join("\n", failures));
        System.exit(1);
      }
    }
    System.out.println("{\"spans\": [" + ids + "]}");
  }

  private static String record(Tracer tracer, Meter meter, Logger logger) {
    LongCounter requests = meter.counterBuilder("requests").setUnit("1").build();
    LongUpDownCounter active = meter.upDownCounterBuilder("active").build();
    DoubleHistogram duration = meter.histogramBuilder("duration").setUnit("ms").build();
    DoubleHistogram size = meter.histogramBuilder("size").setUnit("By").build();
    DoubleGauge temperature = meter.gaugeBuilder("temperature").build();
    List<String> ids = new ArrayList<>();
    Span root = null;
    for (int i = 0; i < COUNT; i++) {
      boolean isRoot = i % 10 == 0;
      SpanBuilder builder =
          tracer
              .spanBuilder("op-" + i % 7)
              .setSpanKind(KINDS[i % 5])
              .setAttribute("number", (long) i)
              .setAttribute("text", "värde-" + i)
              .setAttribute("ratio", i + 0.25)
              .setAttribute("even", i % 2 == 0)
              .setAttribute(AttributeKey.stringArrayKey("words"), List.of("a", Integer.toString(i)));
      if (!isRoot) {
        builder.setParent(Context.root().with(root));
      } else {
        builder.setNoParent();
        if (root != null) {
          builder.addLink(root.getSpanContext(), Attributes.of(NUMBER, (long) i));
        }
      }
      Span span = builder.startSpan();
      if (isRoot) {
        root = span;
      }
      span.addEvent("moment", Attributes.of(NUMBER, (long) i));
      boolean failed = i % 3 == 0;
      if (failed) {
        span.setStatus(StatusCode.ERROR, "failed");
      }
      logger
          .logRecordBuilder()
          .setContext(Context.root().with(span))
          .setBody("rad " + i + " € väl")
          .setSeverity(failed ? Severity.ERROR : Severity.INFO)
          .setAttribute(NUMBER, (long) i)
          .emit();
      Attributes route = Attributes.of(ROUTE, "r" + i % 5);
      requests.add(i + 1, route);
      active.add(2 - 3 * (i % 2));
      duration.record(i + 0.25, route);
      size.record(i + 0.25);
      temperature.set(i / 2.0);
      span.end();
      ids.add("[\"" + span.getSpanContext().getTraceId() + "\", \"" + span.getSpanContext().getSpanId() + "\"]");
    }
    return String.join(", ", ids);
  }

  private static Exporters overGrpc(String url, String compression, byte[] ca) {
    var spans = OtlpGrpcSpanExporter.builder().setEndpoint(url).setCompression(compression);
    var metrics = OtlpGrpcMetricExporter.builder().setEndpoint(url).setCompression(compression);
    var logs = OtlpGrpcLogRecordExporter.builder().setEndpoint(url).setCompression(compression);
    if (ca != null) {
      spans.setTrustedCertificates(ca);
      metrics.setTrustedCertificates(ca);
      logs.setTrustedCertificates(ca);
    }
    return new Exporters(spans.build(), metrics.build(), logs.build());
  }

  private static Exporters overHttp(String url, String compression, byte[] ca) {
    var spans = OtlpHttpSpanExporter.builder().setEndpoint(url + "/v1/traces").setCompression(compression);
    var metrics = OtlpHttpMetricExporter.builder().setEndpoint(url + "/v1/metrics").setCompression(compression);
    var logs = OtlpHttpLogRecordExporter.builder().setEndpoint(url + "/v1/logs").setCompression(compression);
    if (ca != null) {
      spans.setTrustedCertificates(ca);
      metrics.setTrustedCertificates(ca);
      logs.setTrustedCertificates(ca);
    }
    return new Exporters(spans.build(), metrics.build(), logs.build());
  }

  private static Handler collecting(List<String> failures) {
    return new Handler() {
      @Override
      public void publish(LogRecord line) {
        if (line.getLevel().intValue() >= Level.WARNING.intValue()) {
          synchronized (failures) {
            failures.add(line.getMessage() + (line.getThrown() == null ? "" : ": " + line.getThrown()));
          }
        }
      }

      @Override
      public void flush() {}

      @Override
      public void close() {}
    };
  }
}
