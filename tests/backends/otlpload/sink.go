package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

type counts struct{ requests, items, bytes atomic.Int64 }

func (seen *counts) add(message []byte, compressed bool) error {
	if compressed {
		reader, err := gzip.NewReader(bytes.NewReader(message))
		if err != nil {
			return err
		}
		if message, err = io.ReadAll(reader); err != nil {
			return err
		}
	}
	// The field numbers of the three signals' requests are the same: resource 1, scope 2, item 2.
	items, err := itemsIn(message, 1, 2, 2)
	if err != nil {
		return err
	}
	seen.items.Add(items)
	seen.bytes.Add(int64(len(message)))
	seen.requests.Add(1)
	return nil
}

func itemsIn(message []byte, path ...protowire.Number) (int64, error) {
	var found int64
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		message = message[size:]
		if number != path[0] || kind != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(number, kind, message); size < 0 {
				return 0, protowire.ParseError(size)
			}
			message = message[size:]
			continue
		}
		inner, size := protowire.ConsumeBytes(message)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		message = message[size:]
		if len(path) == 1 {
			found++
			continue
		}
		below, err := itemsIn(inner, path[1:]...)
		if err != nil {
			return 0, err
		}
		found += below
	}
	return found, nil
}

func serveSink() error {
	seen := &counts{}
	overGRPC, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	overHTTP, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			raw, err := overGRPC.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				if err := serveHTTP2(raw, seen); err != nil && !errors.Is(err, net.ErrClosed) {
					fmt.Fprintln(os.Stderr, "otlpload sink:", err)
				}
			}()
		}
	}()
	go func() { log.Fatal(http.Serve(overHTTP, http.HandlerFunc(seen.serve))) }()
	if err := say(map[string]int{"grpc": port(overGRPC), "http": port(overHTTP)}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func port(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

func (seen *counts) serve(answer http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		answer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(answer).Encode(map[string]int64{
			"requests": seen.requests.Load(), "items": seen.items.Load(), "bytes": seen.bytes.Load(),
		})
		return
	}
	body := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(body)
	body.Reset()
	if _, err := body.ReadFrom(request.Body); err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	if err := seen.add(body.Bytes(), request.Header.Get("Content-Encoding") == "gzip"); err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	answer.Header().Set("Content-Type", "application/x-protobuf")
}
