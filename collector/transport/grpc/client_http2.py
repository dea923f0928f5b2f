"""Calls over our own HTTP/2: resolves addresses, keeps connections, and gives each call to a connection that is ready.

As in gRPC, a call waits while the first connection is being made, fails at once with UNAVAILABLE if none can be made
(unless ``wait_for_ready``), and is sent again if a server never processed it. Names are resolved again every 30 s, lost
connections are made again with gRPC's back-off. Nothing else is retried: that is up to the queue.

Source: gRPC's doc/load-balancing.md, doc/connection-backoff.md, doc/wait-for-ready.md, doc/keepalive.md; gRFC A6.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import grpc

from collector.transport.compression import compress
from collector.transport.grpc.client_call import ENCODINGS, MAX_RESPONSE_BYTES, ClientCall
from collector.transport.grpc.client_connection import ClientConnection
from collector.transport.grpc.framing import HEADER_BYTES, encode_timeout
from collector.transport.grpc.metadata import Headers, encode_metadata
from collector.transport.grpc.status import CallError
from collector.transport.grpc.subchannel import ConnectionBackoff, Subchannel, brief_error
from collector.transport.grpc.target import Target, resolve
from collector.transport.http2 import sessions
from collector.transport.http2.client import Address, Proxy, find_proxy, open_connection
from collector.transport.http2.header_fields import HeaderFields
from config.blocks import GRPCClientConfig

__all__ = ["HTTP2Channel"]

_CONNECT_TIMEOUT_S: Final = 20.0
_LOOKUP_EVERY_S: Final = 30.0
_MIN_KEEPALIVE_S: Final = 10.0  # gRPC-Go's: servers cut off clients that ping more often
_OFF_LOOP_BYTES: Final = 256 * 1024
_NEVER_S: Final = float("inf")
_MAX_CACHED_FIELDS: Final = 64


class HTTP2Channel:
    """All connections of one client. It connects with the first call. All methods run on the loop's thread."""

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
        self._leading_headers: Headers = (
            (b":method", b"POST"),
            (b":scheme", b"https" if tls is not None else b"http"),
        )
        self._fixed_headers: Headers = (
            (b":authority", authority.encode("ascii")),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode("utf-8", "replace")),
            *(((b"grpc-encoding", self._encoding.encode()),) if self._encoding else ()),
            (b"grpc-accept-encoding", b"identity,gzip,zstd,snappy"),
            *encode_metadata(metadata),
        )
        self._field_cache: dict[tuple[str, float | None], HeaderFields] = {}
        self._is_balanced = config.balancer_name == "round_robin"
        self._subchannels: dict[Address | None, Subchannel] = {}
        self._ready: list[ClientConnection] = []
        self._next_index = 0
        self._waiting: deque[ClientCall] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = _NEVER_S
        self._lookup_error = ""
        self._lookup_task: asyncio.Task[None] | None = None
        self._connections: set[ClientConnection] = set()
        self._is_closed = False

    async def call(
        self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the response's bytes.

        Raises:
            CallError: the call ended with a status other than OK.
            ValueError: ``metadata`` cannot be sent.
        """
        if self._is_closed:
            raise CallError(grpc.StatusCode.CANCELLED, "the client is closed")
        loop = self._loop
        started_s = loop.time()
        message = (
            await loop.run_in_executor(None, self._framed, body) if self._compresses_long(body) else self._framed(body)
        )
        future: asyncio.Future[bytes] = loop.create_future()
        call = self._make_call(partial(_settle_future, future), method, message, started_s, timeout_s, metadata)
        try:
            self._dispatch(call)
            return await future
        except asyncio.CancelledError:
            self._cancel(call)
            raise

    def try_call(
        self,
        method: str,
        body: bytes,
        on_done: Callable[[bytes | CallError], None],
        *,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Send the call if that is possible at once; ``on_done`` is then called later, with the response or the error.

        Returns False, without having done anything, if the call would have to wait: use :meth:`call` then.

        Raises:
            ValueError: ``metadata`` cannot be sent.
        """
        connection = None if self._waiting or self._compresses_long(body) else self._connection_with_room()
        if connection is None:
            return False
        connection.start(self._make_call(on_done, method, self._framed(body), self._loop.time(), timeout_s, metadata))
        return True

    def _compresses_long(self, body: bytes) -> bool:
        """Whether compressing ``body`` would block the loop for long."""
        return len(body) >= _OFF_LOOP_BYTES and bool(self._encoding)

    def _framed(self, body: bytes) -> tuple[bytes, bytes]:
        """Return a message's header and the message, compressed if that makes it smaller. Runs on any thread."""
        flag = b"\x00"
        if self._encoding and body:
            compressed = compress(ENCODINGS[self._encoding], body)
            if len(compressed) < len(body):
                flag, body = b"\x01", compressed
        return flag + len(body).to_bytes(HEADER_BYTES - 1, "big"), body

    def _make_call(
        self,
        on_done: Callable[[bytes | CallError], None],
        method: str,
        message: tuple[bytes, bytes],
        started_s: float,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None,
    ) -> ClientCall:
        key = (method, timeout_s)
        fields = self._field_cache.get(key)
        if fields is None:
            fields = HeaderFields(self._headers(method, timeout_s))
            if len(self._field_cache) < _MAX_CACHED_FIELDS:
                self._field_cache[key] = fields
        if metadata:
            fields = HeaderFields(fields.pairs + encode_metadata(metadata))
        call = ClientCall(on_done, fields, *message)
        if timeout_s is not None:
            call.timeout_s = timeout_s
            call.deadline_s = deadline_s = started_s + timeout_s
            if deadline_s < self._timer_at_s:
                self._set_timer(deadline_s)
        return call

    async def close(self, grace_s: float = 0.0) -> None:
        """Close all connections; calls in progress have ``grace_s`` to finish. May be called twice."""
        self._is_closed = True
        tasks = [
            task
            for task in (self._lookup_task, *(subchannel.task for subchannel in self._subchannels.values()))
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

    # Sending. For the two public methods see ConnectionOwner.

    def stream_freed(self, connection: ClientConnection) -> None:
        """See :class:`ConnectionOwner`."""
        waiting = self._waiting
        while waiting and connection.has_room():
            call = waiting.popleft()
            if not call.is_settled:
                self._start(call, connection)

    def not_processed(self, call: ClientCall, reason: str, *, was_sent: bool) -> None:
        """See :class:`ConnectionOwner`. A call that was never sent is always retried; others once (gRFC A6)."""
        if call.is_settled:
            return
        if (was_sent and call.is_retried) or self._is_closed:
            call.fail(grpc.StatusCode.UNAVAILABLE, reason)
            return
        call.is_retried = call.is_retried or was_sent
        call.connection = None
        call.reset_response()
        # Later: the connection is in the middle of its events.
        self._loop.call_soon(self._dispatch_again, call)

    def _dispatch_again(self, call: ClientCall) -> None:
        if call.is_settled:
            return
        # the deadline timer does not see a call that is neither waiting nor on a connection
        if call.deadline_s is not None and call.deadline_s < self._timer_at_s:
            self._set_timer(call.deadline_s)
        self._dispatch(call)

    def _dispatch(self, call: ClientCall) -> None:
        connection = self._connection_with_room()
        if connection is not None:
            if call.is_retried:
                self._start(call, connection)
            else:
                connection.start(call)
            return
        if self._lookup_task is None:
            self._lookup_task = self._loop.create_task(self._keep_resolving())
        if not self._ready and not self.config.wait_for_ready:
            error = self._connect_error()
            if error:
                call.fail(grpc.StatusCode.UNAVAILABLE, error)
                return
        self._waiting.append(call)

    def _connection_with_room(self) -> ClientConnection | None:
        """Return the next connection in turn that has room."""
        ready = self._ready
        for _ in range(len(ready)):
            self._next_index = (self._next_index + 1) % len(ready)
            connection = ready[self._next_index]
            if connection.has_room():
                return connection
        return None

    def _start(self, call: ClientCall, connection: ClientConnection) -> None:
        """Send a call that has waited, with the time that remains."""
        if call.deadline_s is not None:
            remaining_s = max(call.deadline_s - self._loop.time(), 1e-3)
            call.fields = HeaderFields(
                tuple(
                    (name, encode_timeout(remaining_s) if name == b"grpc-timeout" else value)
                    for name, value in call.fields.pairs
                )
            )
        connection.start(call)

    def _cancel(self, call: ClientCall) -> None:
        """Drop a call whose response is not wanted any more."""
        call.is_settled = True
        if call.connection is not None:
            call.connection.cancel(call)
        else:
            with suppress(ValueError):
                self._waiting.remove(call)

    def _headers(self, method: str, timeout_s: float | None) -> Headers:
        timeout = () if timeout_s is None else ((b"grpc-timeout", encode_timeout(timeout_s)),)
        return (*self._leading_headers, (b":path", method.encode()), *self._fixed_headers, *timeout)

    # Deadlines: one timer for all calls, at the earliest. Calls are many; nearly all end long before their deadline.

    def _set_timer(self, when_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when_s, self._check_deadlines)
        self._timer_at_s = when_s

    def _check_deadlines(self) -> None:
        self._timer, self._timer_at_s = None, _NEVER_S
        now_s = self._loop.time()
        earliest_s = _NEVER_S
        in_progress = (call for connection in self._connections for call in connection.calls())
        for call in [*self._waiting, *in_progress]:
            if call.deadline_s is None or call.is_settled:
                continue
            if call.deadline_s > now_s:
                earliest_s = min(earliest_s, call.deadline_s)
                continue
            is_waiting = call.connection is None
            text = f"no response within {call.timeout_s:g} s"
            if is_waiting and not self._ready:
                text = f"not connected within {call.timeout_s:g} s: {self._connect_error() or 'still connecting'}"
            call.fail(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            self._cancel(call)
        if earliest_s < self._timer_at_s:
            self._set_timer(earliest_s)

    # Addresses and connections.

    def _connect_error(self) -> str:
        """Return why no connection could be made; empty while the first attempt is still in progress."""
        if not self._subchannels:
            return self._lookup_error
        errors = [subchannel.error for subchannel in self._subchannels.values()]
        return errors[-1] if all(errors) else ""

    async def _keep_resolving(self) -> None:
        """Keep the addresses up to date, until cancelled."""
        backoff = ConnectionBackoff()
        while True:
            wait_s = _LOOKUP_EVERY_S
            try:
                self._use_addresses(await self._resolve())
            except (OSError, ValueError) as exc:
                # Existing connections stay in use: their addresses were right once.
                self._lookup_error = f"cannot look up {self.target.text}: {brief_error(exc)}"
                self.fail_waiting()
                wait_s = backoff.next_s()
            else:
                self._lookup_error = ""
                backoff = ConnectionBackoff()
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

    def _use_addresses(self, addresses: tuple[Address, ...]) -> None:
        groups: dict[Address | None, tuple[Address, ...]] = (
            {address: (address,) for address in addresses} if self._is_balanced else {None: addresses}
        )
        for key, group in groups.items():
            subchannel = self._subchannels.get(key)
            if subchannel is None:
                self._subchannels[key] = Subchannel(self, group)
            else:
                subchannel.set_addresses(group)
        for key in self._subchannels.keys() - groups.keys():
            self._subchannels.pop(key).stop()

    def add_connection(self, connection: ClientConnection) -> None:
        """See :class:`SubchannelOwner`."""
        self._ready.append(connection)
        self.stream_freed(connection)

    def remove_connection(self, connection: ClientConnection) -> None:
        """See :class:`SubchannelOwner`."""
        if connection in self._ready:
            self._ready.remove(connection)

    def fail_waiting(self) -> None:
        """See :class:`SubchannelOwner`."""
        if self._ready or self.config.wait_for_ready:
            return
        error = self._connect_error()
        if error:
            waiting, self._waiting = self._waiting, deque()
            for call in waiting:
                call.fail(grpc.StatusCode.UNAVAILABLE, error)

    async def connect(self, address: Address) -> ClientConnection:
        """See :class:`SubchannelOwner`."""
        made: ClientConnection | None = None

        def make() -> ClientConnection:
            nonlocal made
            made = ClientConnection(
                sessions.client_session(max_message_bytes=MAX_RESPONSE_BYTES),
                self,
                write_buffer_bytes=self.config.write_buffer_size,
            )
            return made

        try:
            async with asyncio.timeout(self.connect_timeout_s):
                connection = await open_connection(
                    address, make, tls=self.tls, server_name=self.server_name, proxy=self.proxy
                )
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


def _settle_future(future: asyncio.Future[bytes], outcome: bytes | CallError) -> None:
    if future.done():  # cancelled
        return
    if isinstance(outcome, CallError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _host_of(authority: str) -> str:
    """Return the host name in an authority, against which the certificate is checked."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority if authority.count(":") > 1 else authority.partition(":")[0]
