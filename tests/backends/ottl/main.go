// Runs statements of the transform processor, conditions of OTTL and redactions over OTLP requests, for comparison with
// ours.
//
// Reads one JSON object a line: {"signal": "traces", "config": {...}, "data": BASE64}. The config is that of the processor
// transform, or of the one that "processor" names: attributes, filter, redaction or resource. Answers one JSON object a
// line: {"invalid": TEXT} if the config is refused, {"error": TEXT} if the processor returns an error, else
// {"data": BASE64, "failures": [TEXT...]} with the request after the processor. With "repeat": N the request is processed
// N more times, and "cpu_s" is what one costs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/attributesprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/redactionprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/resourceprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/xconfmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

type request struct {
	Signal    string         `json:"signal"`
	Processor string         `json:"processor"`
	Config    map[string]any `json:"config"`
	Data      []byte         `json:"data"`
	Repeat    int            `json:"repeat"`
}

type answer struct {
	Invalid  string   `json:"invalid,omitempty"`
	Error    string   `json:"error,omitempty"`
	Failures []string `json:"failures,omitempty"`
	Data     []byte   `json:"data,omitempty"`
	// Of one request, from bytes to bytes, if it was repeated.
	CPUSeconds float64 `json:"cpu_s,omitempty"`
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 64<<20)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		var given request
		if err := json.Unmarshal(input.Bytes(), &given); err != nil {
			panic(err)
		}
		if err := output.Encode(run(given)); err != nil {
			panic(err)
		}
	}
	if err := input.Err(); err != nil {
		panic(err)
	}
}

func run(given request) (result answer) {
	defer func() {
		if reason := recover(); reason != nil {
			result = answer{Error: fmt.Sprintf("panic: %v", reason)}
		}
	}()
	factory := transformprocessor.NewFactory()
	switch given.Processor {
	case "attributes":
		factory = attributesprocessor.NewFactory()
	case "filter":
		factory = filterprocessor.NewFactory()
	case "redaction":
		factory = redactionprocessor.NewFactory()
	case "resource":
		factory = resourceprocessor.NewFactory()
	}
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(given.Config).Unmarshal(config); err != nil {
		return answer{Invalid: err.Error()}
	}
	if err := xconfmap.Validate(config); err != nil {
		return answer{Invalid: err.Error()}
	}
	core, logs := observer.New(zapcore.WarnLevel)
	settings := processortest.NewNopSettings(factory.Type())
	settings.TelemetrySettings.Logger = zap.New(core)
	var err error
	var data []byte
	var process func([]byte) ([]byte, error)
	switch given.Signal {
	case "traces":
		process, err = traces(factory, settings, config)
	case "metrics":
		process, err = metrics(factory, settings, config)
	default:
		process, err = records(factory, settings, config)
	}
	if err == nil {
		data, err = process(given.Data)
	}
	if err == nil && given.Repeat > 0 {
		before := cpu()
		for range given.Repeat {
			if _, err = process(given.Data); err != nil {
				break
			}
		}
		result.CPUSeconds = (cpu() - before) / float64(given.Repeat)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	result.Data = data
	for _, entry := range logs.All() {
		text := entry.Message
		for _, field := range entry.Context {
			if field.Key == "error" {
				if failure, ok := field.Interface.(error); ok {
					text = failure.Error()
				}
			}
		}
		result.Failures = append(result.Failures, text)
	}
	return result
}

func traces(factory processor.Factory, settings processor.Settings, config component.Config) (func([]byte) ([]byte, error), error) {
	sink := new(consumertest.TracesSink)
	made, err := factory.CreateTraces(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	return func(wire []byte) ([]byte, error) {
		sink.Reset()
		message := ptraceotlp.NewExportRequest()
		if err := message.UnmarshalProto(wire); err != nil {
			return nil, err
		}
		if err := made.ConsumeTraces(context.Background(), message.Traces()); err != nil {
			return nil, err
		}
		return ptraceotlp.NewExportRequestFromTraces(sink.AllTraces()[0]).MarshalProto()
	}, nil
}

func metrics(factory processor.Factory, settings processor.Settings, config component.Config) (func([]byte) ([]byte, error), error) {
	sink := new(consumertest.MetricsSink)
	made, err := factory.CreateMetrics(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	return func(wire []byte) ([]byte, error) {
		sink.Reset()
		message := pmetricotlp.NewExportRequest()
		if err := message.UnmarshalProto(wire); err != nil {
			return nil, err
		}
		if err := made.ConsumeMetrics(context.Background(), message.Metrics()); err != nil {
			return nil, err
		}
		return pmetricotlp.NewExportRequestFromMetrics(sink.AllMetrics()[0]).MarshalProto()
	}, nil
}

func records(factory processor.Factory, settings processor.Settings, config component.Config) (func([]byte) ([]byte, error), error) {
	sink := new(consumertest.LogsSink)
	made, err := factory.CreateLogs(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	return func(wire []byte) ([]byte, error) {
		sink.Reset()
		message := plogotlp.NewExportRequest()
		if err := message.UnmarshalProto(wire); err != nil {
			return nil, err
		}
		if err := made.ConsumeLogs(context.Background(), message.Logs()); err != nil {
			return nil, err
		}
		return plogotlp.NewExportRequestFromLogs(sink.AllLogs()[0]).MarshalProto()
	}, nil
}

// cpu is the CPU time that this process has used, in seconds.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
