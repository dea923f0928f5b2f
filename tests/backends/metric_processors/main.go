// Runs the Collector's metric processors over OTLP requests, for comparison with ours.
//
// Reads one JSON object a line: {"processor": "metricstransform", "config": {...}, "data": [BASE64...]}; the processors
// cumulativetodelta and deltatocumulative are there too. The requests pass one processor in this order. Answers one JSON
// object a line: {"invalid": TEXT} if the config is refused, {"error": TEXT} if the processor returns an error, else
// {"data": [BASE64...]} with the requests after the processor; one that is dropped is empty. With "repeat": N all of them
// are processed N more times, each time by a new processor, and "cpu_s" is what one request costs, from bytes to bytes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/cumulativetodeltaprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor"
	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/metricstransformprocessor"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/xconfmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processortest"
)

var factories = map[string]processor.Factory{
	"cumulativetodelta": cumulativetodeltaprocessor.NewFactory(),
	"deltatocumulative": deltatocumulativeprocessor.NewFactory(),
	"metricstransform":  metricstransformprocessor.NewFactory(),
}

type request struct {
	Processor string         `json:"processor"`
	Config    map[string]any `json:"config"`
	Data      [][]byte       `json:"data"`
	Repeat    int            `json:"repeat"`
}

type answer struct {
	Invalid    string   `json:"invalid,omitempty"`
	Error      string   `json:"error,omitempty"`
	Data       [][]byte `json:"data,omitempty"`
	CPUSeconds float64  `json:"cpu_s,omitempty"`
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 256<<20)
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
	factory := factories[given.Processor]
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(given.Config).Unmarshal(config); err != nil {
		return answer{Invalid: err.Error()}
	}
	if err := xconfmap.Validate(config); err != nil {
		return answer{Invalid: err.Error()}
	}
	sink := new(consumertest.MetricsSink)
	create := func() (processor.Metrics, error) {
		return factory.CreateMetrics(context.Background(), processortest.NewNopSettings(factory.Type()), config, sink)
	}
	made, err := create()
	if err != nil {
		return answer{Invalid: err.Error()}
	}
	process := func(wire []byte) ([]byte, error) {
		sink.Reset()
		message := pmetricotlp.NewExportRequest()
		if err := message.UnmarshalProto(wire); err != nil {
			return nil, err
		}
		if err := made.ConsumeMetrics(context.Background(), message.Metrics()); err != nil {
			return nil, err
		}
		if len(sink.AllMetrics()) == 0 {
			return []byte{}, nil
		}
		return pmetricotlp.NewExportRequestFromMetrics(sink.AllMetrics()[0]).MarshalProto()
	}
	for _, wire := range given.Data {
		data, err := process(wire)
		if err != nil {
			return answer{Error: err.Error()}
		}
		result.Data = append(result.Data, data)
	}
	if given.Repeat > 0 {
		before := cpu()
		for range given.Repeat {
			if made, err = create(); err != nil {
				return answer{Error: err.Error()}
			}
			for _, wire := range given.Data {
				if _, err := process(wire); err != nil {
					return answer{Error: err.Error()}
				}
			}
		}
		result.CPUSeconds = (cpu() - before) / float64(given.Repeat*len(given.Data))
	}
	return result
}

// cpu is the CPU time that this process has used, in seconds.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
