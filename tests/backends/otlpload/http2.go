package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	method          = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	codeOK          = "0"
	codeExhausted   = "8"
	codeUnavailable = "14"
	readBuffer      = 4096
	writeBuffer     = 64 << 10
	maxFrame        = 16 << 10
)

// http2Conn is the client's end: export may be called from many goroutines, each with a stream of its own.
type http2Conn struct {
	raw       net.Conn
	message   []byte // with gRPC's prefix
	headers   []hpack.HeaderField
	mutex     sync.Mutex
	changed   *sync.Cond // a window grew, or the connection broke
	writer    *bufio.Writer
	framer    *http2.Framer
	block     bytes.Buffer
	encoder   *hpack.Encoder
	nextID    uint32
	window    int64 // what the peer lets us send on the connection
	initial   int64 // ... on a new stream
	frameSize int
	streams   map[uint32]*stream
	broken    error
}

type stream struct {
	window int64
	done   chan error
}

func newHTTP2(raw net.Conn, address string, secure bool, body []byte) (*http2Conn, error) {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	c := &http2Conn{
		raw: raw, message: framed(body), writer: bufio.NewWriterSize(raw, writeBuffer),
		nextID: 1, window: 65535, initial: 65535, frameSize: maxFrame, streams: map[uint32]*stream{},
		headers: []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":path", Value: method},
			{Name: ":authority", Value: address}, {Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "otlpload"},
			{Name: "te", Value: "trailers"}, {Name: "grpc-accept-encoding", Value: "gzip"}, {Name: "grpc-timeout", Value: "10S"},
		},
	}
	c.changed = sync.NewCond(&c.mutex)
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer = http2.NewFramer(c.writer, bufio.NewReaderSize(raw, readBuffer))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := c.writer.WriteString(http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return nil, err
	}
	if err := c.writer.Flush(); err != nil {
		return nil, err
	}
	go c.read()
	return c, nil
}

func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

func (c *http2Conn) export() error {
	mine := &stream{done: make(chan error, 1)}
	if err := c.write(mine); err != nil {
		return err
	}
	return <-mine.done
}

func (c *http2Conn) write(mine *stream) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.broken != nil {
		return c.broken
	}
	id := c.nextID
	c.nextID += 2
	mine.window = c.initial
	c.streams[id] = mine
	c.block.Reset()
	for _, field := range c.headers {
		if err := c.encoder.WriteField(field); err != nil {
			return err
		}
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}); err != nil {
		return err
	}
	for left := c.message; len(left) > 0; {
		size := min(int64(len(left)), int64(c.frameSize), c.window, mine.window)
		if size <= 0 {
			if err := c.writer.Flush(); err != nil {
				return err
			}
			c.changed.Wait()
			if c.broken != nil {
				return c.broken
			}
			if _, open := c.streams[id]; !open {
				return nil // answered before it was whole; the answer is in mine.done
			}
			continue
		}
		if err := c.framer.WriteData(id, int(size) == len(left), left[:size]); err != nil {
			return err
		}
		left = left[size:]
		c.window -= size
		mine.window -= size
	}
	return c.writer.Flush()
}

// read takes frames until the connection ends, and then fails what still waits.
func (c *http2Conn) read() {
	var err error
	for err == nil {
		var frame http2.Frame
		if frame, err = c.framer.ReadFrame(); err == nil {
			c.mutex.Lock()
			err = c.take(frame)
			c.mutex.Unlock()
		}
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.broken = fmt.Errorf("the connection ended: %w", err)
	for id := range c.streams {
		c.finish(id, c.broken)
	}
	c.changed.Broadcast()
}

func (c *http2Conn) take(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if frame.IsAck() {
			return nil
		}
		return c.settle(frame)
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			c.window += int64(frame.Increment)
		} else if its := c.streams[frame.StreamID]; its != nil {
			its.window += int64(frame.Increment)
		}
		c.changed.Broadcast()
	case *http2.PingFrame:
		if !frame.IsAck() {
			return errors.Join(c.framer.WritePing(true, frame.Data), c.writer.Flush())
		}
	case *http2.DataFrame:
		if size := uint32(len(frame.Data())); size > 0 { // an empty answer is five bytes: the stream's own window lasts
			return c.framer.WriteWindowUpdate(0, size)
		}
	case *http2.MetaHeadersFrame:
		if frame.StreamEnded() {
			c.finish(frame.StreamID, verdict(frame))
		}
	case *http2.RSTStreamFrame:
		verdict := fmt.Errorf("stream reset: %v", frame.ErrCode)
		if frame.ErrCode == http2.ErrCodeRefusedStream {
			verdict = errRefused
		}
		c.finish(frame.StreamID, verdict)
	case *http2.GoAwayFrame:
		return fmt.Errorf("GOAWAY %v %q", frame.ErrCode, frame.DebugData())
	}
	return nil
}

func (c *http2Conn) settle(frame *http2.SettingsFrame) error {
	if size, set := frame.Value(http2.SettingInitialWindowSize); set {
		for _, its := range c.streams {
			its.window += int64(size) - c.initial
		}
		c.initial = int64(size)
	}
	if size, set := frame.Value(http2.SettingMaxFrameSize); set {
		c.frameSize = int(min(size, maxFrame)) // larger ones gain nothing: the gateway sees a stream of bytes
	}
	if size, set := frame.Value(http2.SettingHeaderTableSize); set {
		c.encoder.SetMaxDynamicTableSizeLimit(size)
	}
	c.changed.Broadcast()
	return errors.Join(c.framer.WriteSettingsAck(), c.writer.Flush())
}

func verdict(trailers *http2.MetaHeadersFrame) error {
	status, message := "", ""
	for _, field := range trailers.Fields {
		switch field.Name {
		case "grpc-status":
			status = field.Value
		case "grpc-message":
			message = field.Value
		}
	}
	switch status {
	case codeOK:
		return nil
	case codeExhausted, codeUnavailable:
		return errRefused
	}
	return fmt.Errorf("grpc-status %q: %s", status, message)
}

func (c *http2Conn) finish(id uint32, verdict error) {
	if its := c.streams[id]; its != nil {
		delete(c.streams, id)
		its.done <- verdict
		c.changed.Broadcast()
	}
}

func (c *http2Conn) close() { _ = c.raw.Close() }

// serveHTTP2 is the sink's end of one connection: every request is counted and answered with success.
func serveHTTP2(raw net.Conn, seen *counts) error {
	defer raw.Close()
	reader, writer := bufio.NewReaderSize(raw, 64<<10), bufio.NewWriterSize(raw, writeBuffer)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(reader, preface); err != nil || string(preface) != http2.ClientPreface {
		return fmt.Errorf("no HTTP/2: %q %w", preface, err)
	}
	framer := http2.NewFramer(writer, reader)
	framer.SetReuseFrames()
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = 1 << 20
	const window = 1 << 20 // as a Go server grants after its first estimates
	err := errors.Join(
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		framer.WriteWindowUpdate(0, 8*window),
	)
	head, trailers, empty := encoded(":status", "200", "content-type", "application/grpc"), encoded("grpc-status", "0"), make([]byte, 5)
	type incoming struct {
		encoding string
		body     []byte
		taken    uint32
	}
	open := map[uint32]*incoming{}
	var spare [][]byte // buffers of requests that were counted
	taken := uint32(0) // bytes not yet granted again
	for err == nil {
		if reader.Buffered() == 0 {
			if err = writer.Flush(); err != nil {
				break
			}
		}
		var frame http2.Frame
		if frame, err = framer.ReadFrame(); err != nil {
			break
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			its := &incoming{}
			if last := len(spare) - 1; last >= 0 {
				its.body, spare = spare[last], spare[:last]
			}
			for _, field := range frame.Fields {
				if field.Name == "grpc-encoding" {
					its.encoding = field.Value
				}
			}
			open[frame.StreamID] = its
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			its := open[frame.StreamID]
			if its == nil {
				return fmt.Errorf("DATA on stream %d, which is not open", frame.StreamID)
			}
			its.body = append(its.body, frame.Data()...)
			ended = frame.StreamEnded()
			if taken += frame.Length; taken > window {
				err = framer.WriteWindowUpdate(0, taken)
				taken = 0
			}
			if its.taken += frame.Length; its.taken > window/2 && !ended {
				err = errors.Join(err, framer.WriteWindowUpdate(frame.StreamID, its.taken))
				its.taken = 0
			}
		case *http2.RSTStreamFrame:
			delete(open, frame.StreamID)
		}
		if ended && err == nil {
			id := frame.Header().StreamID
			its := open[id]
			delete(open, id)
			if len(its.body) < 5 {
				return fmt.Errorf("a gRPC message of %d bytes", len(its.body))
			}
			compressed := its.body[0] == 1 && its.encoding == "gzip"
			err = seen.add(its.body[5:], compressed)
			spare = append(spare, its.body[:0])
			if err == nil {
				err = errors.Join(
					framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true}),
					framer.WriteData(id, false, empty),
					framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: trailers, EndHeaders: true, EndStream: true}),
				)
			}
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// encoded is a header block of literals that touch no dynamic table, good for every connection.
func encoded(pairs ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for at := 0; at < len(pairs); at += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: pairs[at], Value: pairs[at+1], Sensitive: at > 0})
	}
	return block.Bytes()
}
