// Runs statements of the transform processor and conditions of OTTL over OTLP requests, for comparison with ours.
//
// Reads one JSON object a line: {"signal": "traces", "config": {...}, "data": BASE64}. The config is that of the processor
// transform. Answers one JSON object a line: {"invalid": TEXT} if the config is refused, {"error": TEXT} if the processor
// returns an error, else {"data": BASE64, "failures": [TEXT...]} with the request after the processor.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"

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
	Signal string         `json:"signal"`
	Config map[string]any `json:"config"`
	Data   []byte         `json:"data"`
}

type answer struct {
	Invalid  string   `json:"invalid,omitempty"`
	Error    string   `json:"error,omitempty"`
	Failures []string `json:"failures,omitempty"`
	Data     []byte   `json:"data,omitempty"`
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
	factory := transformprocessor.NewFactory()
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
	switch given.Signal {
	case "traces":
		data, err = traces(factory, settings, config, given.Data)
	case "metrics":
		data, err = metrics(factory, settings, config, given.Data)
	default:
		data, err = records(factory, settings, config, given.Data)
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

func traces(factory processor.Factory, settings processor.Settings, config component.Config, wire []byte) ([]byte, error) {
	message := ptraceotlp.NewExportRequest()
	if err := message.UnmarshalProto(wire); err != nil {
		return nil, err
	}
	sink := new(consumertest.TracesSink)
	made, err := factory.CreateTraces(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	if err := made.ConsumeTraces(context.Background(), message.Traces()); err != nil {
		return nil, err
	}
	return ptraceotlp.NewExportRequestFromTraces(sink.AllTraces()[0]).MarshalProto()
}

func metrics(factory processor.Factory, settings processor.Settings, config component.Config, wire []byte) ([]byte, error) {
	message := pmetricotlp.NewExportRequest()
	if err := message.UnmarshalProto(wire); err != nil {
		return nil, err
	}
	sink := new(consumertest.MetricsSink)
	made, err := factory.CreateMetrics(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	if err := made.ConsumeMetrics(context.Background(), message.Metrics()); err != nil {
		return nil, err
	}
	return pmetricotlp.NewExportRequestFromMetrics(sink.AllMetrics()[0]).MarshalProto()
}

func records(factory processor.Factory, settings processor.Settings, config component.Config, wire []byte) ([]byte, error) {
	message := plogotlp.NewExportRequest()
	if err := message.UnmarshalProto(wire); err != nil {
		return nil, err
	}
	sink := new(consumertest.LogsSink)
	made, err := factory.CreateLogs(context.Background(), settings, config, sink)
	if err != nil {
		return nil, err
	}
	if err := made.ConsumeLogs(context.Background(), message.Logs()); err != nil {
		return nil, err
	}
	return plogotlp.NewExportRequestFromLogs(sink.AllLogs()[0]).MarshalProto()
}
