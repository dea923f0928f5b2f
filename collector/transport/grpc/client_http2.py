"""Calls over our own HTTP/2: addresses looked up, connections kept, each call given to a connection that is ready.

As gRPC does it: a call waits while the first connection is being made, fails at once with UNAVAILABLE where none can be
had (unless ``wait_for_ready``), and is sent again by itself where a server never looked at it. Names are looked up
again every 30 s, lost connections made again with gRPC's back-off. Nothing else is retried: that is the queue's.

Source: gRPC's doc/load-balancing.md, doc/connection-backoff.md, doc/wait-for-ready.md, doc/keepalive.md; gRFC A6.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import grpc

from collector.transport.compression import compress
from collector.transport.grpc.client_call import ENCODINGS, MAX_ANSWER_BYTES, Call, CallConnection
from collector.transport.grpc.framing import HEADER_BYTES, encode_binary, encode_timeout
from collector.transport.grpc.status import CallError
from collector.transport.grpc.target import Target, resolve
from collector.transport.http2 import engine
from collector.transport.http2.client import Address, Proxy, connect, find_proxy
from collector.transport.http2.fields import Fields
from config.blocks import GRPCClientConfig

__all__ = ["MAX_BACKOFF_S", "HTTP2Channel", "encode_metadata"]

_CONNECT_TIMEOUT_S: Final = 20.0
_BACKOFF_S: Final = 1.0
_BACKOFF_FACTOR: Final = 1.6
_BACKOFF_JITTER: Final = 0.2
# gRPC's own bound is two minutes: a server that comes back should be found about when the queue tries again.
MAX_BACKOFF_S: Final = 5.0
_LOOKUP_EVERY_S: Final = 30.0
_MIN_KEEPALIVE_S: Final = 10.0  # as gRPC-Go: servers cut off who pings more often
_OFF_LOOP_BYTES: Final = 256 * 1024
_NEVER_S: Final = float("inf")
_MAX_KNOWN: Final = 64
# What gRPC writes itself and never takes from metadata.
_RESERVED: Final = frozenset({"content-type", "te", "user-agent"})

Headers = tuple[tuple[bytes, bytes], ...]


class HTTP2Channel:
    """All connections of one client. Nothing is connected before the first call. All methods run on the loop's thread."""

    def __init__(
        self,
        config: GRPCClientConfig,
        target: Target,
        *,
        tls: ssl.SSLContext | None,
        user_agent: str,
        metadata: Mapping[str, str],
        connect_timeout_s: float = _CONNECT_TIMEOUT_S,
    ) -> None:
        self.config = config
        self.target = target
        self.tls = tls
        self.connect_timeout_s = connect_timeout_s
        name = config.tls.server_name_override if tls is not None else ""
        authority = config.authority or name or target.authority
        self.server_name = name or _host_of(authority)
        keepalive = config.keepalive
        self.keepalive_s = max(keepalive.time, _MIN_KEEPALIVE_S) if keepalive is not None else 0.0
        self.proxy: Proxy | None = None
        self._loop = asyncio.get_running_loop()
        self._encoding = config.compression if config.compression in ENCODINGS else ""
        self._first: Headers = (
            (b":method", b"POST"),
            (b":scheme", b"https" if tls is not None else b"http"),
        )
        self._rest: Headers = (
            (b":authority", authority.encode("ascii")),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode("utf-8", "replace")),
            *(((b"grpc-encoding", self._encoding.encode()),) if self._encoding else ()),
            (b"grpc-accept-encoding", b"identity,gzip,zstd,snappy"),
            *encode_metadata(metadata),
        )
        self._known: dict[tuple[str, float | None], Fields] = {}
        self._balanced = config.balancer_name == "round_robin"
        self._subchannels: dict[Address | None, _Subchannel] = {}
        self._ready: list[CallConnection] = []
        self._next = 0
        self._waiting: deque[Call] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = _NEVER_S
        self._lookup_error = ""
        self._lookup: asyncio.Task[None] | None = None
        self._connections: set[CallConnection] = set()
        self._is_closed = False

    async def call(
        self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """The answer's bytes.

        Raises:
            CallError: every status but OK.
            ValueError: ``metadata`` cannot be sent.
        """
        if self._is_closed:
            raise CallError(grpc.StatusCode.CANCELLED, "the client is closed")
        loop = self._loop
        started_s = loop.time()
        message = await loop.run_in_executor(None, self._framed, body) if self._takes_long(body) else self._framed(body)
        future: asyncio.Future[bytes] = loop.create_future()
        call = self._make_call(partial(_settle, future), method, message, started_s, timeout_s, metadata)
        try:
            self._dispatch(call)
            return await future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise

    def begin(
        self,
        method: str,
        body: bytes,
        done: Callable[[bytes | CallError], None],
        *,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """:meth:`call` where it can be sent at once: ``done`` hears the answer or the error, later. False: it cannot, nothing was done.

        Raises:
            ValueError: ``metadata`` cannot be sent.
        """
        connection = None if self._waiting or self._takes_long(body) else self._connection_with_room()
        if connection is None:
            return False
        connection.start(self._make_call(done, method, self._framed(body), self._loop.time(), timeout_s, metadata))
        return True

    def _takes_long(self, body: bytes) -> bool:
        """Whether compressing it would hold up the loop."""
        return len(body) >= _OFF_LOOP_BYTES and bool(self._encoding)

    def _framed(self, body: bytes) -> tuple[bytes, bytes]:
        """The header of a message and the message, compressed where that makes it smaller. On any thread."""
        flag = b"\x00"
        if self._encoding and body:
            packed = compress(ENCODINGS[self._encoding], body)
            if len(packed) < len(body):
                flag, body = b"\x01", packed
        return flag + len(body).to_bytes(HEADER_BYTES - 1, "big"), body

    def _make_call(
        self,
        done: Callable[[bytes | CallError], None],
        method: str,
        message: tuple[bytes, bytes],
        started_s: float,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None,
    ) -> Call:
        key = (method, timeout_s)
        fields = self._known.get(key)
        if fields is None:
            fields = Fields(self._headers(method, timeout_s))
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = fields
        if metadata:
            fields = Fields(fields.pairs + encode_metadata(metadata))
        call = Call(done, fields, *message)
        if timeout_s is not None:
            call.timeout_s = timeout_s
            call.deadline_s = deadline_s = started_s + timeout_s
            if deadline_s < self._timer_at_s:
                self._set_timer(deadline_s)
        return call

    async def close(self, grace_s: float = 0.0) -> None:
        """End all connections; calls under way get ``grace_s`` to finish. Safe twice."""
        self._is_closed = True
        tasks = [
            task
            for task in (self._lookup, *(subchannel.task for subchannel in self._subchannels.values()))
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._subchannels.clear()
        self._ready.clear()
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.fail(grpc.StatusCode.CANCELLED, "the client is closed")
        for connection in tuple(self._connections):
            connection.drain() if grace_s else connection.stop()
        if grace_s and self._connections:
            await asyncio.wait([connection.closed for connection in self._connections], timeout=grace_s)
        for connection in tuple(self._connections):
            connection.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Sending. See client_call.Owner for the two public ones.

    def stream_freed(self, connection: CallConnection) -> None:
        """See :class:`Owner`."""
        waiting = self._waiting
        while waiting and connection.has_room():
            call = waiting.popleft()
            if not call.is_settled:
                self._start(call, connection)

    def not_processed(self, call: Call, reason: str, *, was_sent: bool) -> None:
        """See :class:`Owner`. What never left here may be sent again for ever, what a server had, once. Source: gRFC A6."""
        if call.is_settled:
            return
        if (was_sent and call.retried) or self._is_closed:
            call.fail(grpc.StatusCode.UNAVAILABLE, reason)
            return
        call.retried = call.retried or was_sent
        call.connection = None
        call.reset_answer()
        # Not at once: the connection is in the middle of its events.
        self._loop.call_soon(self._dispatch_again, call)

    def _dispatch_again(self, call: Call) -> None:
        if call.is_settled:
            return
        # in between no look at the deadlines saw it
        if call.deadline_s is not None and call.deadline_s < self._timer_at_s:
            self._set_timer(call.deadline_s)
        self._dispatch(call)

    def _dispatch(self, call: Call) -> None:
        connection = self._connection_with_room()
        if connection is not None:
            if call.retried:
                self._start(call, connection)
            else:
                connection.start(call)
            return
        if self._lookup is None:
            self._lookup = self._loop.create_task(self._keep_looking())
        if not self._ready and not self.config.wait_for_ready:
            error = self._failure()
            if error:
                call.fail(grpc.StatusCode.UNAVAILABLE, error)
                return
        self._waiting.append(call)

    def _connection_with_room(self) -> CallConnection | None:
        """The next in turn."""
        ready = self._ready
        for _ in range(len(ready)):
            self._next = (self._next + 1) % len(ready)
            connection = ready[self._next]
            if connection.has_room():
                return connection
        return None

    def _start(self, call: Call, connection: CallConnection) -> None:
        """Send a call that waited: less of its time is left."""
        if call.deadline_s is not None:
            left_s = max(call.deadline_s - self._loop.time(), 1e-3)
            call.fields = Fields(
                tuple(
                    (name, encode_timeout(left_s) if name == b"grpc-timeout" else value)
                    for name, value in call.fields.pairs
                )
            )
        connection.start(call)

    def _withdraw(self, call: Call) -> None:
        """Nobody wants the answer any more."""
        call.is_settled = True
        if call.connection is not None:
            call.connection.cancel(call)
        else:
            with suppress(ValueError):
                self._waiting.remove(call)

    def _headers(self, method: str, timeout_s: float | None) -> Headers:
        timeout = () if timeout_s is None else ((b"grpc-timeout", encode_timeout(timeout_s)),)
        return (*self._first, (b":path", method.encode()), *self._rest, *timeout)

    # Deadlines: one timer for all calls, at the earliest; calls are many and nearly all end long before.

    def _set_timer(self, when_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when_s, self._check_deadlines)
        self._timer_at_s = when_s

    def _check_deadlines(self) -> None:
        self._timer, self._timer_at_s = None, _NEVER_S
        now_s = self._loop.time()
        earliest_s = _NEVER_S
        under_way = (call for connection in self._connections for call in connection.calls())
        for call in [*self._waiting, *under_way]:
            if call.deadline_s is None or call.is_settled:
                continue
            if call.deadline_s > now_s:
                earliest_s = min(earliest_s, call.deadline_s)
                continue
            waited = call.connection is None
            text = f"no answer within {call.timeout_s:g} s"
            if waited and not self._ready:
                text = f"not connected within {call.timeout_s:g} s: {self._failure() or 'still connecting'}"
            call.fail(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            self._withdraw(call)
        if earliest_s < self._timer_at_s:
            self._set_timer(earliest_s)

    # Addresses and connections.

    def _failure(self) -> str:
        """Why no connection can be had; empty while one may yet be made for the first time."""
        if not self._subchannels:
            return self._lookup_error
        errors = [subchannel.error for subchannel in self._subchannels.values()]
        return errors[-1] if all(errors) else ""

    async def _keep_looking(self) -> None:
        """Keep the addresses up to date, for ever."""
        backoff = _Backoff()
        while True:
            wait_s = _LOOKUP_EVERY_S
            try:
                self._use(await self._resolve())
            except (OSError, ValueError) as exc:
                # What is connected stays in use: the addresses were right once.
                self._lookup_error = f"cannot look up {self.target.text}: {_brief(exc)}"
                self.changed()
                wait_s = backoff.next_s()
            else:
                self._lookup_error = ""
                backoff = _Backoff()
                if self.target.addresses or self.proxy is not None:
                    return
            await asyncio.sleep(wait_s)

    async def _resolve(self) -> tuple[Address, ...]:
        target = self.target
        host = target.host or target.addresses[0].host
        self.proxy = find_proxy(host) if host else None
        if self.proxy is not None and target.host:
            return (Address(target.host, target.port),)
        return await resolve(target)

    def _use(self, addresses: tuple[Address, ...]) -> None:
        groups: dict[Address | None, tuple[Address, ...]] = (
            {address: (address,) for address in addresses} if self._balanced else {None: addresses}
        )
        for key, group in groups.items():
            subchannel = self._subchannels.get(key)
            if subchannel is None:
                self._subchannels[key] = _Subchannel(self, group)
            else:
                subchannel.use(group)
        for key in self._subchannels.keys() - groups.keys():
            self._subchannels.pop(key).stop()

    def added(self, connection: CallConnection) -> None:
        """A connection took up work."""
        self._ready.append(connection)
        self.stream_freed(connection)

    def removed(self, connection: CallConnection) -> None:
        """A connection takes no more calls."""
        if connection in self._ready:
            self._ready.remove(connection)

    def changed(self) -> None:
        """Nothing can be had: who need not wait for it hears so."""
        if self._ready or self.config.wait_for_ready:
            return
        error = self._failure()
        if error:
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                call.fail(grpc.StatusCode.UNAVAILABLE, error)

    async def connected(self, address: Address) -> CallConnection:
        """A new connection that the server's SETTINGS came on.

        Raises:
            OSError: with what went wrong.
        """
        made: CallConnection | None = None

        def make() -> CallConnection:
            nonlocal made
            made = CallConnection(
                engine.client(max_message_bytes=MAX_ANSWER_BYTES),
                self,
                write_buffer_bytes=self.config.write_buffer_size,
            )
            return made

        try:
            async with asyncio.timeout(self.connect_timeout_s):
                connection = await connect(address, make, tls=self.tls, server_name=self.server_name, proxy=self.proxy)
                await asyncio.shield(connection.ready)
        except TimeoutError as exc:
            if made is not None:
                made.abort()
            raise ConnectionError(f"no HTTP/2 connection within {self.connect_timeout_s:g} s") from exc
        except BaseException:
            if made is not None:
                made.abort()
            raise
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))
        keepalive = self.config.keepalive
        if keepalive is not None:
            connection.keep_alive(self.keepalive_s, keepalive.timeout, without_streams=keepalive.permit_without_stream)
        return connection


class _Subchannel:
    """One connection at a time to the first of some addresses that works, made again when it is lost."""

    def __init__(self, channel: HTTP2Channel, addresses: tuple[Address, ...]) -> None:
        self.error = ""
        """The last one; kept until a connection is made."""
        self._channel = channel
        self._addresses = addresses
        self._connection: CallConnection | None = None
        self._address: Address | None = None
        self.task = asyncio.get_running_loop().create_task(self._keep_connected())

    def use(self, addresses: tuple[Address, ...]) -> None:
        """Other addresses; what is connected to one of them stays."""
        self._addresses = addresses
        if self._connection is not None and self._address not in addresses:
            self._connection.drain()

    def stop(self) -> None:
        """The addresses are gone: calls under way finish."""
        self.task.cancel()
        if self._connection is not None:
            self._channel.removed(self._connection)
            self._connection.drain()

    async def _keep_connected(self) -> None:
        channel = self._channel
        loop = asyncio.get_running_loop()
        backoff = _Backoff()
        while True:
            started_s = loop.time()
            connection = self._connection = await self._first_that_works()
            if connection is not None:
                self.error = ""
                backoff = _Backoff()
                channel.added(connection)
                await asyncio.shield(connection.unusable)
                channel.removed(connection)
                self._connection = None
                if connection.is_told_too_many_pings:
                    channel.keepalive_s *= 2
            # Also after a connection that worked: a server that hangs up at once is not called in a tight loop.
            wait_s = started_s + backoff.next_s() - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    async def _first_that_works(self) -> CallConnection | None:
        errors = []
        for address in self._addresses:
            try:
                connection = await self._channel.connected(address)
            except Exception as exc:  # noqa: BLE001 - whatever it was, a task that ends would never connect again
                errors.append(f"connect to {address}: {_brief(exc)}")
            else:
                self._address = address
                return connection
        self.error = "; ".join(errors[-3:]) or "no addresses"
        self._channel.changed()
        return None


class _Backoff:
    """GRPC's: 1 s, then 1.6 times as long each, by a fifth more or less. Source: doc/connection-backoff.md."""

    def __init__(self) -> None:
        self._wait_s = _BACKOFF_S

    def next_s(self) -> float:
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * _BACKOFF_FACTOR, MAX_BACKOFF_S)
        return wait_s * random.uniform(1 - _BACKOFF_JITTER, 1 + _BACKOFF_JITTER)  # noqa: S311 - no secret


def encode_metadata(metadata: Mapping[str, str]) -> Headers:
    """Metadata as header fields.

    Raises:
        ValueError: a value cannot stand in a header; it is not shown.
    """
    fields = []
    for given, value in metadata.items():
        name = given.lower()
        if name in _RESERVED:
            continue
        if name.endswith("-bin"):
            fields.append((name.encode("ascii"), encode_binary(value.encode())))
            continue
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"headers: the value of {name} is no printable ASCII; only names that end in -bin take other bytes"
            )
        fields.append((name.encode("ascii"), value.strip().encode("ascii")))
    return tuple(fields)


def _settle(future: asyncio.Future[bytes], outcome: bytes | CallError) -> None:
    if future.done():  # cancelled
        return
    if isinstance(outcome, CallError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _host_of(authority: str) -> str:
    """The name a certificate is checked against."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority if authority.count(":") > 1 else authority.partition(":")[0]


def _brief(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {exc.verify_message}"
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, ssl.SSLError):
        return exc.strerror
    return str(exc) or type(exc).__name__
