// OTLP as Go programs speak it.
//
//	sdk_go emit PROTOCOL URL COMPRESSION [CA]   the OpenTelemetry SDK's exporters send a fixed set of telemetry (emit.go)
//	sdk_go calls ADDRESS [CA]                   a grpc-go client makes odd calls; a line of JSON for each (calls.go)
//	sdk_go refused ADDRESS                      ... one call, to a gateway that takes nothing now
//
// PROTOCOL: grpc or http/protobuf. COMPRESSION: none or gzip. CA: a PEM file; given: TLS.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sdk_go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	switch {
	case len(arguments) >= 4 && arguments[0] == "emit":
		secure, err := trust(arguments[4:])
		if err != nil {
			return err
		}
		return emit(ctx, arguments[1], arguments[2], arguments[3], secure)
	case len(arguments) >= 2 && (arguments[0] == "calls" || arguments[0] == "refused"):
		secure, err := trust(arguments[2:])
		if err != nil {
			return err
		}
		if arguments[0] == "refused" {
			return refused(ctx, arguments[1], secure)
		}
		return calls(ctx, arguments[1], secure)
	}
	return errors.New("usage: sdk_go emit PROTOCOL URL COMPRESSION [CA] | calls ADDRESS [CA] | refused ADDRESS [CA]")
}

// trust is the TLS configuration that trusts the given file alone; nil without one.
func trust(file []string) (*tls.Config, error) {
	if len(file) == 0 {
		return nil, nil
	}
	pem, err := os.ReadFile(file[0])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", file[0])
	}
	return &tls.Config{RootCAs: roots}, nil
}

func say(what any) error { return json.NewEncoder(os.Stdout).Encode(what) }
