// Reads export requests as the Go collector's pdata reads them, and writes them back as pdata writes them.
//
// On stdin, until its end: a byte for the signal (0 traces, 1 metrics, 2 logs), the length (four bytes, big-endian), the request.
// On stdout, for each: 0 and the request written again, or 1 and the error's text; the length stands between the two in the same form.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

type request interface {
	UnmarshalProto(data []byte) error
	MarshalProto() ([]byte, error)
}

func again(signal byte, wire []byte) (written []byte, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	var message request
	switch signal {
	case 0:
		message = ptraceotlp.NewExportRequest()
	case 1:
		message = pmetricotlp.NewExportRequest()
	case 2:
		message = plogotlp.NewExportRequest()
	default:
		return nil, fmt.Errorf("no signal has the number %d", signal)
	}
	if err := message.UnmarshalProto(wire); err != nil {
		return nil, err
	}
	return message.MarshalProto()
}

func serve(in io.Reader, out *bufio.Writer) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		wire := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(in, wire); err != nil {
			return err
		}
		answer, err := again(head[0], wire)
		head[0] = 0
		if err != nil {
			head[0], answer = 1, []byte(err.Error())
		}
		binary.BigEndian.PutUint32(head[1:], uint32(len(answer)))
		out.Write(head[:])
		out.Write(answer)
		// Each answer is sent at once: the other side waits for it.
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	if err := serve(bufio.NewReader(os.Stdin), out); err != nil {
		fmt.Fprintln(os.Stderr, "pdata:", err)
		os.Exit(1)
	}
}
