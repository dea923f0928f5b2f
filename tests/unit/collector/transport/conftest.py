"""A gRPC server without sockets: a loop with a manual clock, and transports that record what is written."""

import asyncio
import heapq
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest

import http2_peer
from collector.testing import FakeClock, FakeHost
from collector.testing.doubles import RecordingLog
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.server import GRPCServer
from config.blocks import GRPCServerConfig


class ManualLoop:
    """The parts of an event loop that protocols use, with a manual clock."""

    def __init__(self):
        self.now_s = 1000.0
        self._timers = []
        self._order = itertools.count()
        self.errors = []

    def call_exception_handler(self, context):
        self.errors.append(context)

    def time(self):
        return self.now_s

    def call_at(self, when_s, callback, *args):
        handle = SimpleNamespace(callback=callback, args=args, is_cancelled=False)
        handle.cancel = lambda: setattr(handle, "is_cancelled", True)
        heapq.heappush(self._timers, (when_s, next(self._order), handle))
        return handle

    def call_later(self, delay_s, callback, *args):
        return self.call_at(self.now_s + delay_s, callback, *args)

    def call_soon(self, callback, *args):
        return self.call_at(self.now_s, callback, *args)

    def run(self, seconds=0.0):
        """Run everything that is due within ``seconds``, in order."""
        until_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= until_s:
            when_s, _, handle = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, when_s)
            if not handle.is_cancelled:
                handle.callback(*handle.args)
        self.now_s = until_s


class FakeTransport(asyncio.Transport):
    """Records what is written; the connection is lost in the turn after it was closed."""

    def __init__(self, loop, protocol):
        super().__init__({"peername": ("127.0.0.1", 4711)})
        self._loop, self._protocol = loop, protocol
        self.written = bytearray()
        self.is_closed = self.is_reading_paused = self.is_ended = False
        self.peer_closes = True  # in the turn after it has read our end

    def write(self, data):
        assert not self.is_closed
        assert not self.is_ended
        self.written += data

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = (high, low)

    def pause_reading(self):
        self.is_reading_paused = True

    def resume_reading(self):
        self.is_reading_paused = False

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.is_ended = True
        if self.peer_closes:
            self._loop.call_soon(self.close)

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close


class Client:
    """The client's end of one connection, over another binding of libnghttp2."""

    def __init__(self, loop, http2):
        self.loop = loop
        self.protocol = http2.connection()
        self.transport = FakeTransport(loop, self.protocol)
        self.connection = http2_peer.client()
        self.events = []
        self.protocol.connection_made(self.transport)

    def feed(self, data):
        """Pass raw bytes to the server."""
        self.protocol.receive(data)
        self.loop.run()

    def exchange(self):
        """Pass bytes in both directions until neither side has output."""
        while True:
            self.loop.run()
            sent = self.connection.data_to_send() if self.connection.want_write else b""
            if sent and not self.transport.is_closed:
                self.feed(sent)
            received, self.transport.written[:] = bytes(self.transport.written), b""
            if received:
                self.connection.receive_data(received)
                self.events += self.connection.events()
                if not self.connection.want_read:  # after a GOAWAY without a stream, as clients do
                    self.feed(self.connection.data_to_send())
                    self.transport.close()
                    self.loop.run()
                    return
            if not sent and not received:
                return

    def request(self, path, body=b"", *, end_stream=True, **headers):
        """Send a request and return the id of its stream."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        pairs = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in fields.items()
            if value is not None
        ]
        stream_id = self.connection.send_request(pairs, end_stream=end_stream and not body)
        if body:
            self.connection.send_data(stream_id, body, end_stream=end_stream)
        self.exchange()
        return stream_id

    def answer(self, stream_id):
        """Return (headers and trailers, body, error code of a reset or None); None if there is nothing yet."""
        fields, body, error = {}, b"", None
        for event in self.events:
            if getattr(event, "stream_id", None) != stream_id:
                continue
            if isinstance(event, http2_peer.ResponseReceived | http2_peer.TrailersReceived):
                fields.update(event.headers)
            elif isinstance(event, http2_peer.DataReceived):
                body += event.data
            elif isinstance(event, http2_peer.StreamReset):
                error = event.error_code
        return (fields, body, error) if fields or body or error is not None else None

    def goaways(self):
        """Return (error code, debug data) of each GOAWAY."""
        return [
            (event.error_code, event.debug_data)
            for event in self.events
            if isinstance(event, http2_peer.GoAwayReceived)
        ]

    @property
    def is_cut_off(self):
        return self.transport.is_closed


@pytest.fixture
def loop(monkeypatch):
    """The loop of every protocol created in the test."""
    manual = ManualLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: manual)
    return manual


@pytest.fixture
def grpc_server(loop):
    """``serve(method, host=None, **config)`` returns a server with ``/a.B/C``, and how to connect to it."""

    def serve(method=lambda message, _, reply: reply(message), host=None, files=None, **config):
        refused, closed, log = Counter(), Counter(), RecordingLog()
        host = host or FakeHost()
        server = GRPCServer(
            GRPCServerConfig.model_validate(config),
            {"/a.B/C": method},
            key="k",
            addresses=LocalAddresses(),
            clock=FakeClock(),
            log=log,
            on_refused=lambda reason: refused.update([reason]),
            on_closed=lambda reason: closed.update([reason]),
            files=files or {},
        )
        http2 = server.prepare(host)

        def connect():
            client = Client(loop, http2)
            client.exchange()
            return client

        return SimpleNamespace(
            server=server, http2=http2, connect=connect, refused=refused, closed=closed, log=log, host=host, loop=loop
        )

    return serve
