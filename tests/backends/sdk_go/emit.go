package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
)

const count = 300

// The same telemetry in every language: tests/e2e/test_sdks.py knows it by heart.
var kinds = []trace.SpanKind{trace.SpanKindInternal, trace.SpanKindServer, trace.SpanKindClient, trace.SpanKindProducer, trace.SpanKindConsumer}

type exporters struct {
	spans   sdktrace.SpanExporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

func emit(ctx context.Context, protocol, url, compression string, secure *tls.Config) error {
	var failures errorList
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failures.add))
	var each exporters
	var err error
	switch protocol {
	case "grpc":
		each, err = overGRPC(ctx, url, compression, secure)
	case "http/protobuf":
		each, err = overHTTP(ctx, url, compression, secure)
	default:
		err = fmt.Errorf("no protocol %q: grpc or http/protobuf", protocol)
	}
	if err != nil {
		return err
	}
	from := resource.NewSchemaless(attribute.String("service.name", os.Getenv("OTEL_SERVICE_NAME")))
	exponential := sdkmetric.NewView(
		sdkmetric.Instrument{Name: "size"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}},
	)
	tracers := sdktrace.NewTracerProvider(sdktrace.WithResource(from), sdktrace.WithBatcher(each.spans))
	meters := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(from), sdkmetric.WithView(exponential), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(each.metrics)),
	)
	loggers := sdklog.NewLoggerProvider(sdklog.WithResource(from), sdklog.WithProcessor(sdklog.NewBatchProcessor(each.logs)))
	ids, err := record(ctx, tracers.Tracer("interop", trace.WithInstrumentationVersion("1.0")), meters.Meter("interop"), loggers.Logger("interop"))
	failures.add(err)
	for _, end := range []func(context.Context) error{tracers.Shutdown, meters.Shutdown, loggers.Shutdown} {
		failures.add(end(ctx))
	}
	if err := errors.Join(failures.all...); err != nil {
		return err
	}
	return say(map[string]any{"spans": ids})
}

func record(ctx context.Context, tracer trace.Tracer, meter metric.Meter, logger log.Logger) ([][2]string, error) {
	requests, err1 := meter.Int64Counter("requests", metric.WithUnit("1"))
	active, err2 := meter.Int64UpDownCounter("active")
	duration, err3 := meter.Float64Histogram("duration", metric.WithUnit("ms"))
	size, err4 := meter.Float64Histogram("size", metric.WithUnit("By"))
	temperature, err5 := meter.Float64Gauge("temperature")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	var ids [][2]string
	root := ctx
	for i := range count {
		options := []trace.SpanStartOption{trace.WithSpanKind(kinds[i%5]), trace.WithAttributes(
			attribute.Int("number", i), attribute.String("text", fmt.Sprintf("värde-%d", i)), attribute.Float64("ratio", float64(i)+0.25),
			attribute.Bool("even", i%2 == 0), attribute.StringSlice("words", []string{"a", fmt.Sprint(i)}),
		)}
		parent := root
		if i%10 == 0 {
			parent = ctx
			if i > 0 {
				options = append(options, trace.WithLinks(trace.LinkFromContext(root, attribute.Int("number", i))))
			}
		}
		current, span := tracer.Start(parent, fmt.Sprintf("op-%d", i%7), options...)
		if i%10 == 0 {
			root = current
		}
		span.AddEvent("moment", trace.WithAttributes(attribute.Int("number", i)))
		var line log.Record
		line.SetTimestamp(time.Now())
		line.SetBody(attribute.StringValue(fmt.Sprintf("rad %d € väl", i)))
		line.AddAttributes(attribute.Int("number", i))
		line.SetSeverity(log.SeverityInfo)
		if i%3 == 0 {
			span.SetStatus(codes.Error, "failed")
			line.SetSeverity(log.SeverityError)
		}
		logger.Emit(current, line)
		route := metric.WithAttributes(attribute.String("route", fmt.Sprintf("r%d", i%5)))
		requests.Add(ctx, int64(i+1), route)
		active.Add(ctx, int64(2-3*(i%2)))
		duration.Record(ctx, float64(i)+0.25, route)
		size.Record(ctx, float64(i)+0.25)
		temperature.Record(ctx, float64(i)/2)
		span.End()
		ids = append(ids, [2]string{span.SpanContext().TraceID().String(), span.SpanContext().SpanID().String()})
	}
	return ids, nil
}

func overGRPC(ctx context.Context, url, compression string, secure *tls.Config) (each exporters, err error) {
	spans := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(url)}
	metrics := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpointURL(url)}
	logs := []otlploggrpc.Option{otlploggrpc.WithEndpointURL(url)}
	if secure != nil {
		trusted := credentials.NewTLS(secure)
		spans = append(spans, otlptracegrpc.WithTLSCredentials(trusted))
		metrics = append(metrics, otlpmetricgrpc.WithTLSCredentials(trusted))
		logs = append(logs, otlploggrpc.WithTLSCredentials(trusted))
	}
	if compression == "gzip" {
		spans = append(spans, otlptracegrpc.WithCompressor("gzip"))
		metrics = append(metrics, otlpmetricgrpc.WithCompressor("gzip"))
		logs = append(logs, otlploggrpc.WithCompressor("gzip"))
	}
	var err1, err2, err3 error
	each.spans, err1 = otlptracegrpc.New(ctx, spans...)
	each.metrics, err2 = otlpmetricgrpc.New(ctx, metrics...)
	each.logs, err3 = otlploggrpc.New(ctx, logs...)
	return each, errors.Join(err1, err2, err3)
}

func overHTTP(ctx context.Context, url, compression string, secure *tls.Config) (each exporters, err error) {
	spans := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(url + "/v1/traces")}
	metrics := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(url + "/v1/metrics")}
	logs := []otlploghttp.Option{otlploghttp.WithEndpointURL(url + "/v1/logs")}
	if secure != nil {
		spans = append(spans, otlptracehttp.WithTLSClientConfig(secure))
		metrics = append(metrics, otlpmetrichttp.WithTLSClientConfig(secure))
		logs = append(logs, otlploghttp.WithTLSClientConfig(secure))
	}
	if compression == "gzip" {
		spans = append(spans, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		metrics = append(metrics, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		logs = append(logs, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	var err1, err2, err3 error
	each.spans, err1 = otlptracehttp.New(ctx, spans...)
	each.metrics, err2 = otlpmetrichttp.New(ctx, metrics...)
	each.logs, err3 = otlploghttp.New(ctx, logs...)
	return each, errors.Join(err1, err2, err3)
}

// errorList collects what the SDK reports from its own goroutines.
type errorList struct {
	mutex sync.Mutex
	all   []error
}

func (list *errorList) add(err error) {
	list.mutex.Lock()
	defer list.mutex.Unlock()
	if err != nil {
		list.all = append(list.all, err)
	}
}
