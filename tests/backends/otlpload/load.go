package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An order is one round of requests. With Rate 0 every slot sends its next request when the last was answered; otherwise
// requests are due at random moments of that mean rate, whatever becomes of the earlier ones (an open loop).
// With Idle, that many connections are opened, each sends one request, and all stay open until the next order.
type order struct {
	Protocol    string  `json:"protocol"` // grpc or http
	Port        int     `json:"port"`
	Body        string  `json:"body"` // a file with the encoded request
	CA          string  `json:"ca"`   // a file; set: TLS
	Connections int     `json:"connections"`
	InFlight    int     `json:"in_flight"`
	Seconds     float64 `json:"seconds"`
	Rate        float64 `json:"rate"`
	Idle        int     `json:"idle"`
}

// What came of it. Latencies count from the moment a request was due, so that those behind a slow one are slow, too.
type outcome struct {
	Requests int     `json:"requests"` // acknowledged
	Refused  int     `json:"refused"`  // to be sent again later; nothing else is tolerated
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50_us"`
	P90      float64 `json:"p90_us"`
	P99      float64 `json:"p99_us"`
	Max      float64 `json:"max_us"`
}

// errRefused is an answer that asks for the same request later.
var errRefused = errors.New("refused")

const (
	refusedPause = 50 * time.Millisecond
	dialTimeout  = 20 * time.Second
)

type connection interface {
	// export sends the request and waits for its answer: nil, errRefused or what is wrong.
	export() error
	close()
}

func dial(what order, body []byte) (connection, error) {
	address := fmt.Sprintf("127.0.0.1:%d", what.Port)
	raw, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return nil, err
	}
	if what.CA != "" {
		pem, err := os.ReadFile(what.CA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		next := map[string]string{"grpc": "h2", "http": "http/1.1"}[what.Protocol]
		secure := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{next}})
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		raw = secure
	}
	if what.Protocol == "http" {
		return newHTTP1(raw, address, body), nil
	}
	return newHTTP2(raw, address, what.CA != "", body)
}

func dialAll(what order, count int) ([]connection, error) {
	body, err := os.ReadFile(what.Body)
	if err != nil {
		return nil, err
	}
	all := make([]connection, 0, count)
	for range count {
		each, err := dial(what, body)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", len(all), err)
		}
		all = append(all, each)
	}
	return all, nil
}

func openIdle(what order) ([]connection, error) {
	all, err := dialAll(what, what.Idle)
	if err != nil {
		return nil, err
	}
	for _, each := range all {
		for err = each.export(); errors.Is(err, errRefused); err = each.export() {
			time.Sleep(refusedPause)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// send plays one round. HTTP/1.1 has one request in flight on a connection, so it gets a connection for each.
func send(what order) (outcome, error) {
	count := what.Connections
	if what.Protocol == "http" {
		count = what.InFlight
	}
	all, err := dialAll(what, count)
	if err != nil {
		return outcome{}, err
	}
	defer func() {
		for _, each := range all {
			each.close()
		}
	}()
	var due chan time.Time
	if what.Rate > 0 {
		due = make(chan time.Time, 1<<20)
	}
	duration := time.Duration(what.Seconds * float64(time.Second))
	started := time.Now()
	end := started.Add(duration)
	var refused atomic.Int64
	failed := make(chan error, what.InFlight)
	latencies := make([][]float64, what.InFlight)
	var slots sync.WaitGroup
	for slot := range what.InFlight {
		slots.Go(func() {
			for {
				from := time.Now()
				if due != nil {
					at, more := <-due
					if !more {
						return
					}
					from = at
				} else if from.After(end) {
					return
				}
				switch err := all[slot%count].export(); {
				case err == nil:
					latencies[slot] = append(latencies[slot], float64(time.Since(from).Nanoseconds())/1e3)
				case errors.Is(err, errRefused):
					refused.Add(1)
					if due == nil {
						time.Sleep(refusedPause)
					}
				default:
					failed <- err
					return
				}
			}
		})
	}
	if due != nil {
		pace(due, what.Rate, end)
	}
	slots.Wait()
	seconds := time.Since(started).Seconds()
	select {
	case err := <-failed:
		return outcome{}, err
	default:
	}
	every := slices.Concat(latencies...)
	slices.Sort(every)
	at := func(share float64) float64 {
		if len(every) == 0 {
			return 0
		}
		return every[min(int(share*float64(len(every))), len(every)-1)]
	}
	return outcome{len(every), int(refused.Load()), seconds, at(0.50), at(0.90), at(0.99), at(1)}, nil
}

// pace says when requests are due, with exponential gaps. nanosleep is finer than Go's timers, which round up to a millisecond.
func pace(due chan<- time.Time, rate float64, end time.Time) {
	random := rand.New(rand.NewPCG(1, 2))
	next := time.Now()
	for next.Before(end) {
		if wait := time.Until(next); wait > 0 {
			pause := syscall.NsecToTimespec(wait.Nanoseconds())
			_ = syscall.Nanosleep(&pause, nil)
		}
		due <- time.Now()
		next = next.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
	}
	close(due)
}
