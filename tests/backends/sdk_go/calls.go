package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // so that details can be printed
)

const (
	export  = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	kibi    = 1 << 10
	mebi    = 1 << 20
	patient = 30 * time.Second
)

// A seen call: what the client was told.
type seen struct {
	Case    string      `json:"case"`
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Details []string    `json:"details,omitempty"` // google.rpc messages as JSON
	Header  metadata.MD `json:"header,omitempty"`
	Trailer metadata.MD `json:"trailer,omitempty"`
	Found   any         `json:"found,omitempty"`
}

func calls(ctx context.Context, address string, secure *tls.Config) error {
	encoding.RegisterCompressor(zstdCompressor{})
	encoding.RegisterCompressor(unheardOf{})
	channel, err := dial(address, secure)
	if err != nil {
		return err
	}
	defer channel.Close()
	for _, make := range []func(context.Context, *grpc.ClientConn) []seen{
		plain, odd, timeouts, encodings, unknown, oversize, cancelled, many, health, reflection, afterwards,
	} {
		for _, each := range make(ctx, channel) {
			if err := say(each); err != nil {
				return err
			}
		}
	}
	return nil
}

func refused(ctx context.Context, address string, secure *tls.Config) error {
	channel, err := dial(address, secure)
	if err != nil {
		return err
	}
	defer channel.Close()
	return say(call(ctx, channel, "refused", request("refused", 1)))
}

func dial(address string, secure *tls.Config) (*grpc.ClientConn, error) {
	trusted := insecure.NewCredentials()
	if secure != nil {
		trusted = credentials.NewTLS(secure)
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(trusted), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
}

// request has that many spans of the given name.
func request(name string, spans int) []byte {
	scope := &tracepb.ScopeSpans{}
	for i := range spans {
		scope.Spans = append(scope.Spans, &tracepb.Span{
			TraceId: bytes.Repeat([]byte{byte(i) | 1}, 16), SpanId: bytes.Repeat([]byte{byte(i) | 1}, 8), Name: name,
		})
	}
	wire, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{scope}}},
	})
	if err != nil {
		panic(err)
	}
	return wire
}

// call exports the bytes and tells what came of it.
func call(ctx context.Context, channel *grpc.ClientConn, name string, wire []byte, options ...grpc.CallOption) seen {
	return invoke(ctx, channel, name, export, wire, options...)
}

func invoke(ctx context.Context, channel *grpc.ClientConn, name, method string, wire []byte, options ...grpc.CallOption) seen {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patient)
		defer cancel()
	}
	var header, trailer metadata.MD
	var answer []byte
	options = append(options, grpc.ForceCodec(raw{}), grpc.Header(&header), grpc.Trailer(&trailer))
	result := told(name, channel.Invoke(ctx, method, &wire, &answer, options...))
	result.Header, result.Trailer = header, trailer
	return result
}

func told(name string, err error) seen {
	what := status.Convert(err)
	result := seen{Case: name, Code: what.Code().String(), Message: what.Message()}
	for _, detail := range what.Proto().GetDetails() {
		result.Details = append(result.Details, shown(detail))
	}
	return result
}

func shown(detail *anypb.Any) string {
	text, err := protojson.Marshal(detail)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func plain(ctx context.Context, channel *grpc.ClientConn) []seen {
	return []seen{
		call(ctx, channel, "plain", request("plain", 10)),
		call(ctx, channel, "empty", nil),
		call(ctx, channel, "malformed", []byte{0x0a, 0x7f, 0x01}),
	}
}

func odd(ctx context.Context, channel *grpc.ClientConn) []seen {
	with := func(pairs ...string) context.Context { return metadata.AppendToOutgoingContext(ctx, pairs...) }
	many := []string{}
	for i := range 100 {
		many = append(many, "x-many", fmt.Sprint(i))
	}
	return []seen{
		call(with("x-text", "one", "x-text", "two, three", "x-raw-bin", "a,b", "x-raw-bin", "c"), channel, "metadata", request("metadata", 1)),
		call(with("x-raw-bin", "\x00\xff\xfe"), channel, "binary", request("binary", 1)),
		call(with(many...), channel, "many values", request("many values", 1)),
		call(with("x-text", strings.Repeat("t", 12*kibi)), channel, "large metadata", request("large metadata", 1)),
		call(with("x-text", strings.Repeat("t", 2*mebi)), channel, "huge metadata", request("huge metadata", 1)),
	}
}

// timeouts uses each unit of grpc-timeout: grpc-go takes the finest that fits eight digits.
func timeouts(ctx context.Context, channel *grpc.ClientConn) []seen {
	var results []seen
	for _, unit := range []struct {
		name    string
		timeout time.Duration
	}{
		{"n", 99 * time.Millisecond}, {"u", 30 * time.Second}, {"m", 20 * time.Hour}, {"S", 1000 * time.Hour},
		{"M", 1e6 * time.Hour}, {"H", 2.5e6 * time.Hour},
	} {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), unit.timeout)
		results = append(results, call(bounded, channel, "timeout "+unit.name, request("timeout", 1)))
		cancel()
	}
	return results
}

func encodings(ctx context.Context, channel *grpc.ClientConn) []seen {
	var results []seen
	for _, name := range []string{gzip.Name, zstdCompressor{}.Name(), unheardOf{}.Name()} {
		results = append(results, call(ctx, channel, name, request(name, 100), grpc.UseCompressor(name)))
	}
	return results
}

func unknown(ctx context.Context, channel *grpc.ClientConn) []seen {
	return []seen{
		invoke(ctx, channel, "unknown method", "/opentelemetry.proto.collector.trace.v1.TraceService/Import", nil),
		invoke(ctx, channel, "unknown service", "/no.such.Service/Export", nil),
	}
}

// oversize needs a server that takes at most a mebibyte.
func oversize(ctx context.Context, channel *grpc.ClientConn) []seen {
	largest := request(strings.Repeat("n", mebi-64), 1)
	return []seen{
		call(ctx, channel, "largest", largest),
		call(ctx, channel, "oversize", make([]byte, mebi+1)),
		call(ctx, channel, "bomb", make([]byte, 64*mebi), grpc.UseCompressor(gzip.Name)),
	}
}

// cancelled ends calls at moments from before the first byte until after the answer, and calls whose deadline has all but passed.
func cancelled(ctx context.Context, channel *grpc.ClientConn) []seen {
	codes := map[string]int{}
	var mutex sync.Mutex
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			ending, cancel := context.WithCancel(ctx)
			if i%2 == 1 {
				ending, cancel = context.WithTimeout(ctx, time.Duration(i*50)*time.Microsecond)
			}
			defer cancel()
			timer := time.AfterFunc(time.Duration(i*50)*time.Microsecond, cancel)
			defer timer.Stop()
			result := call(ending, channel, "", request("cancelled", 1000))
			mutex.Lock()
			codes[result.Code]++
			mutex.Unlock()
		})
	}
	all.Wait()
	return []seen{{Case: "cancelled", Found: codes}}
}

func many(ctx context.Context, channel *grpc.ClientConn) []seen {
	codes := map[string]int{}
	var mutex sync.Mutex
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			result := call(ctx, channel, "", request("many", 10))
			mutex.Lock()
			codes[result.Code]++
			mutex.Unlock()
		})
	}
	all.Wait()
	return []seen{{Case: "many", Found: codes}}
}

func health(ctx context.Context, channel *grpc.ClientConn) []seen {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	client := healthpb.NewHealthClient(channel)
	check := func(name, service string) seen {
		answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		result := told(name, err)
		result.Found = answer.GetStatus().String()
		return result
	}
	results := []seen{
		check("health", ""),
		check("health of a service", "opentelemetry.proto.collector.trace.v1.TraceService"),
		check("health of nobody", "no.such.Service"),
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := client.Watch(watching, &healthpb.HealthCheckRequest{})
	if err != nil {
		return append(results, told("watch", err))
	}
	first, err := stream.Recv()
	result := told("watch", err)
	result.Found = first.GetStatus().String()
	stop()
	_, err = stream.Recv()
	return append(results, result, told("watch ended", err))
}

func reflection(ctx context.Context, channel *grpc.ClientConn) []seen {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(channel).ServerReflectionInfo(ctx)
	if err != nil {
		return []seen{told("reflection", err)}
	}
	ask := func(what *reflectionpb.ServerReflectionRequest) (*reflectionpb.ServerReflectionResponse, error) {
		if err := stream.Send(what); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return stream.Recv()
	}
	answer, err := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	result := told("reflection", err)
	if err != nil {
		return []seen{result}
	}
	names := []string{}
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	slices.Sort(names)
	result.Found = names
	symbol := logspb.LogsService_ServiceDesc.ServiceName
	answer, err = ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
	})
	described := told("descriptor", err)
	var methods []string
	for _, wire := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(wire, &file); err != nil {
			return []seen{result, told("descriptor", err)}
		}
		for _, service := range file.GetService() {
			for _, method := range service.GetMethod() {
				methods = append(methods, file.GetPackage()+"."+service.GetName()+"/"+method.GetName())
			}
		}
	}
	described.Found = methods
	answer, err = ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "no.such.Symbol"},
	})
	missing := told("no such symbol", err)
	missing.Found = answer.GetErrorResponse().GetErrorCode()
	if err := stream.CloseSend(); err != nil {
		return []seen{result, described, missing, told("reflection ended", err)}
	}
	_, err = stream.Recv()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return []seen{result, described, missing, told("reflection ended", err)}
}

// afterwards shows that the connection has survived it all.
func afterwards(ctx context.Context, channel *grpc.ClientConn) []seen {
	return []seen{call(ctx, channel, "afterwards", request("afterwards", 10))}
}

// raw leaves messages as they are.
type raw struct{}

func (raw) Name() string                       { return "proto" }
func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }

type zstdCompressor struct{}

func (zstdCompressor) Name() string                                 { return "zstd" }
func (zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }
func (zstdCompressor) Decompress(r io.Reader) (io.Reader, error)    { return zstd.NewReader(r) }

// unheardOf is an encoding that no server knows: it changes nothing.
type unheardOf struct{}

func (unheardOf) Name() string                                 { return "unheard-of" }
func (unheardOf) Compress(w io.Writer) (io.WriteCloser, error) { return unclosed{w}, nil }
func (unheardOf) Decompress(r io.Reader) (io.Reader, error)    { return r, nil }

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
