// Both ends of a benchmark of an OTLP gateway, cheap enough not to be what is measured.
//
//	otlpload sink    takes every OTLP/gRPC and OTLP/HTTP request and counts; {"grpc": PORT, "http": PORT} on stdout;
//	                 GET / on the HTTP port tells the counts; ends with its stdin
//	otlpload load    an order a line on stdin (see order), what came of it a line on stdout
//
// HTTP/2 is spoken through golang.org/x/net's Framer, without a gRPC library: a request costs a few microseconds.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("otlpload: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: otlpload sink|load")
	}
	var err error
	switch os.Args[1] {
	case "sink":
		err = serveSink()
	case "load":
		err = serveLoad()
	default:
		err = fmt.Errorf("no role %q: sink or load", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// say writes one line of JSON to the parent.
func say(what any) error {
	return json.NewEncoder(os.Stdout).Encode(what)
}

func serveLoad() error {
	lines := bufio.NewScanner(os.Stdin)
	var idle []connection
	for lines.Scan() {
		var what order
		if err := json.Unmarshal(lines.Bytes(), &what); err != nil {
			return err
		}
		for _, each := range idle {
			each.close()
		}
		idle = nil
		var answer any
		var err error
		if what.Idle > 0 {
			idle, err = openIdle(what)
			answer = map[string]int{"connections": len(idle)}
		} else {
			answer, err = send(what)
		}
		if err != nil {
			return err
		}
		if err := say(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
