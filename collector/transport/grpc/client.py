"""A gRPC client from a configgrpc block: bytes in, bytes out, errors that a queue understands.

There are two transports: our own HTTP/2 (``client_http2``, the default) and grpcio (``client_grpcio``). Settings that
the chosen one does not support are refused by name. Retries are up to the queue.

Source: open-telemetry/opentelemetry-collector config/configgrpc; OTLP specification "Failures" and "OTLP/gRPC
    Throttling".
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import grpc

from collector.api import Clock, ConsumeError, Host, PermanentError, RetryableError, TooLargeError
from collector.transport.auth import ClientAuthenticator, find_client_authenticator
from collector.transport.grpc.client_grpcio import GrpcioChannel
from collector.transport.grpc.client_http2 import HTTP2Channel
from collector.transport.grpc.status import RETRYABLE_CODES, CallError, retry_delay_s
from collector.transport.grpc.target import parse_target, split_scheme
from collector.transport.http2.client import find_proxy
from collector.transport.http2.sessions import require_http2
from collector.transport.redaction import Redactor
from collector.transport.tls import FileWatch, client_context, grpc_channel_credentials
from config.blocks import GRPCClientConfig, InvalidSettings

__all__ = ["GRPCClient", "check_grpc_client_config"]

_CLOSE_GRACE_S: Final = 10.0
# How servers describe a message over their limit: gRPC for Go and C++, for Java, and tonic (Rust; with OUT_OF_RANGE).
_TOO_LARGE: Final = re.compile(
    r"(?i)message (after decompression )?larger than max|exceeds maximum size|message length too large"
)
_SIZE_CODES: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE})


class _Channel(Protocol):
    """What a transport provides."""

    async def call(
        self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None
    ) -> bytes: ...

    def try_call(
        self,
        method: str,
        body: bytes,
        on_done: Callable[[bytes | CallError], None],
        *,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool: ...

    async def close(self, grace_s: float = 0.0) -> None: ...


def check_grpc_client_config(config: GRPCClientConfig) -> None:
    """Refuse settings that the configured transport does not support.

    Raises:
        InvalidSettings: the messages name the fix.
    """
    found: list[tuple[tuple[str, ...], str]] = []
    if config.transport == "grpcio":
        if config.compression in {"zstd", "snappy"}:
            message = f"transport grpcio does not support {config.compression}; use gzip or none, or transport http2"
            found.append((("compression",), message))
    else:
        if config.tls.max_version in {"1.0", "1.1"}:
            message = f"HTTP/2 requires TLS 1.2 or newer, got {config.tls.max_version}; write 1.2 or 1.3"
            found.append((("tls", "max_version"), message))
        if config.endpoint:
            try:
                parse_target(split_scheme(config.endpoint)[0])
            except ValueError as error:
                found.append((("endpoint",), str(error)))
    if found:
        raise InvalidSettings(*found)


def _check_proxy(host: str) -> None:
    """Raise ValueError if the environment names a proxy for ``host`` that cannot be used."""
    if host:
        find_proxy(host)


class GRPCClient:
    """One channel for all requests of a component. ``key``: path of its configuration block, for messages."""

    def __init__(self, config: GRPCClientConfig, *, key: str, clock: Clock, user_agent: str) -> None:
        check_grpc_client_config(config)
        self._config = config
        self._key = key
        self._clock = clock
        self._user_agent = config.user_agent or user_agent
        self._target, self._forced_tls = split_scheme(config.endpoint)
        if config.transport == "http2" and self._target:
            target = parse_target(self._target)
            _check_proxy(target.host or target.addresses[0].host)
        self._metadata = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
        self._redactor = Redactor(self._metadata.values(), (config.endpoint,))
        self._authenticator: ClientAuthenticator | None = None
        self._watch: FileWatch | None = None
        self._channel: _Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, host: Host) -> None:
        """Read certificates and create the channel, which connects with the first call.

        Raises:
            ValueError: certificates or the authenticator cannot be used; the message names the key.
        """
        tls = self._config.tls
        self._authenticator = find_client_authenticator(host, self._config.auth, self._key)
        if tls.reload_interval:
            self._watch = FileWatch(
                (tls.ca_file, tls.cert_file, tls.key_file), tls.reload_interval, self._clock.monotonic_s
            )
        self._channel = self._make_channel()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def call(
        self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the response to a unary call (``/package.Service/Method``). ``timeout_s`` includes connecting.

        If the status is OK but there is no valid response, the call has succeeded: an :class:`UnusableResponse`.

        Raises:
            PermanentError: the server refused it (reason ``grpc_<code>``); for its size, a TooLargeError.
            RetryableError: try again later (reason ``grpc_<code>``), after ``retry_after_s`` if the server sent one.
        """
        channel = self._current_channel()
        if channel is None:
            raise RetryableError("the client is not open", reason="shutdown")
        if self._authenticator is not None:
            metadata = {**(metadata or {}), **self._authenticator.client_headers()}
        try:
            return await channel.call(method, body, timeout_s=timeout_s, metadata=metadata)
        except CallError as exc:
            raise self.error(exc) from exc
        except ValueError as exc:
            raise PermanentError(f"{self._target}: {exc}", reason="bad_metadata") from exc

    def try_call(
        self, method: str, body: bytes, on_done: Callable[[bytes | CallError], None], *, timeout_s: float | None
    ) -> bool:
        """Send a call without a task, if that is possible at once; otherwise do nothing and return False.

        ``on_done`` is called once, always after this method has returned, with the response or with a status that
        :meth:`error` converts.
        """
        channel = self._current_channel()
        if channel is None:
            return False
        try:
            metadata = None if self._authenticator is None else self._authenticator.client_headers()
            return channel.try_call(method, body, on_done, timeout_s=timeout_s, metadata=metadata)
        except (ConsumeError, ValueError):
            return False  # the headers are missing or cannot be sent; `call` raises the reason

    def error(self, exc: CallError) -> ConsumeError:
        """Return what a status means to the queue."""
        code = exc.code
        message = f"{self._target}: {code.name}: {self._redactor.excerpt(exc.text)}"
        reason = f"grpc_{code.name.lower()}"
        if code in _SIZE_CODES and _TOO_LARGE.search(exc.text):
            return TooLargeError(message, reason=reason)
        retry_after_s = retry_delay_s(exc.details)
        if code in RETRYABLE_CODES or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None):
            # A delay of 0 leaves the delay to us. Source: OTLP specification "OTLP/gRPC Throttling".
            return RetryableError(message, reason=reason, retry_after_s=retry_after_s or None)
        return PermanentError(message, reason=reason)

    def _make_channel(self) -> _Channel:
        config = self._config
        tls = config.tls.model_copy(update={"insecure": False}) if self._forced_tls else config.tls
        try:
            if config.transport == "grpcio":
                credentials = grpc_channel_credentials(tls)
                return GrpcioChannel(
                    config, self._target, credentials=credentials, user_agent=self._user_agent, metadata=self._metadata
                )
            context = None
            # with a CA it is TLS, as in the Collector
            if not tls.insecure or tls.ca_file or tls.ca_pem.get_secret_value():
                context = client_context(tls)
                context.set_alpn_protocols(["h2"])
        except ValueError as exc:
            raise ValueError(f"{self._key}::{exc}") from exc
        require_http2(self._key)
        user_agent = f"{self._user_agent} grpc-python-nghttp2"
        return HTTP2Channel(
            config, parse_target(self._target), tls=context, user_agent=user_agent, metadata=self._metadata
        )

    def _current_channel(self) -> _Channel | None:
        """Return the channel, a new one if certificate files have changed. Calls in progress finish on the old one."""
        watch = self._watch
        if watch is None or self._channel is None or not watch.changed():
            return self._channel
        try:
            new_channel = self._make_channel()
        except ValueError:
            watch.forget()
            return self._channel
        old_channel, self._channel = self._channel, new_channel
        task = asyncio.ensure_future(old_channel.close(_CLOSE_GRACE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return new_channel
