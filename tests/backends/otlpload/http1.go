package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
)

type http1 struct {
	raw     net.Conn
	reader  *bufio.Reader
	request []byte
}

func newHTTP1(raw net.Conn, address string, body []byte) *http1 {
	head := fmt.Sprintf("POST /v1/traces HTTP/1.1\r\nHost: %s\r\nUser-Agent: otlpload\r\nContent-Type: application/x-protobuf\r\n"+
		"Accept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", address, len(body))
	return &http1{raw, bufio.NewReaderSize(raw, 4096), append([]byte(head), body...)}
}

func (c *http1) export() error {
	if _, err := c.raw.Write(c.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	if err != nil {
		return err
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return errRefused
	}
	return fmt.Errorf("answered %s", answer.Status)
}

func (c *http1) close() { _ = c.raw.Close() }
