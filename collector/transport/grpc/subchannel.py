"""Keeps one connection of a gRPC client alive: tries addresses in order, reconnects with gRPC's back-off.

Source: gRPC's doc/connection-backoff.md.
"""

import asyncio
import random
import ssl
from typing import Final, Protocol

from collector.transport.grpc.client_connection import ClientConnection
from collector.transport.http2.client import Address

__all__ = ["MAX_BACKOFF_S", "ConnectionBackoff", "Subchannel", "SubchannelOwner", "brief_error"]

MAX_BACKOFF_S: Final = 5.0
"""gRPC's own limit is two minutes; a server that returns should be found about when the queue retries."""
_BACKOFF_S: Final = 1.0
_BACKOFF_FACTOR: Final = 1.6
_BACKOFF_JITTER: Final = 0.2


class SubchannelOwner(Protocol):
    """The channel that a subchannel makes connections for."""

    keepalive_s: float

    async def connect(self, address: Address) -> ClientConnection:
        """Return a new connection that is ready for calls.

        Raises:
            OSError: the connection failed.
        """
        ...

    def add_connection(self, connection: ClientConnection) -> None:
        """Use the connection for calls."""
        ...

    def remove_connection(self, connection: ClientConnection) -> None:
        """Start no more calls on the connection."""
        ...

    def fail_waiting(self) -> None:
        """No address could be reached: fail the calls that do not wait for a connection."""
        ...


class Subchannel:
    """Keeps one connection to the first of some addresses that works, and reconnects when it is lost."""

    def __init__(self, channel: SubchannelOwner, addresses: tuple[Address, ...]) -> None:
        self.error = ""
        """Why the last attempt failed; empty once a connection was made."""
        self._channel = channel
        self._addresses = addresses
        self._connection: ClientConnection | None = None
        self._address: Address | None = None
        self.task = asyncio.get_running_loop().create_task(self._keep_connected())

    def set_addresses(self, addresses: tuple[Address, ...]) -> None:
        """Use other addresses from now on. A connection to one of them is kept."""
        self._addresses = addresses
        if self._connection is not None and self._address not in addresses:
            self._connection.drain()

    def stop(self) -> None:
        """Stop reconnecting and drain the connection: calls in progress finish."""
        self.task.cancel()
        if self._connection is not None:
            self._channel.remove_connection(self._connection)
            self._connection.drain()

    async def _keep_connected(self) -> None:
        channel = self._channel
        loop = asyncio.get_running_loop()
        backoff = ConnectionBackoff()
        while True:
            started_s = loop.time()
            connection = self._connection = await self._connect_to_first()
            if connection is not None:
                self.error = ""
                backoff = ConnectionBackoff()
                channel.add_connection(connection)
                await asyncio.shield(connection.unusable)
                channel.remove_connection(connection)
                self._connection = None
                if connection.got_too_many_pings:
                    channel.keepalive_s *= 2
            # Also after a connection that worked, so that a server that hangs up at once is not called in a tight loop.
            wait_s = started_s + backoff.next_s() - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)

    async def _connect_to_first(self) -> ClientConnection | None:
        errors = []
        for address in self._addresses:
            try:
                connection = await self._channel.connect(address)
            except Exception as exc:  # noqa: BLE001 - a task that ends would never connect again
                errors.append(f"connect to {address}: {brief_error(exc)}")
            else:
                self._address = address
                return connection
        self.error = "; ".join(errors[-3:]) or "the name did not resolve to any address"
        self._channel.fail_waiting()
        return None


class ConnectionBackoff:
    """gRPC's back-off: 1 s, growing by a factor of 1.6, with a jitter of a fifth. Source: doc/connection-backoff.md."""

    def __init__(self) -> None:
        self._wait_s = _BACKOFF_S

    def next_s(self) -> float:
        """Return how long to wait now."""
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * _BACKOFF_FACTOR, MAX_BACKOFF_S)
        return wait_s * random.uniform(1 - _BACKOFF_JITTER, 1 + _BACKOFF_JITTER)  # noqa: S311 - no secret


def brief_error(exc: BaseException) -> str:
    """Return the cause of a failed connection in a few words."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate was rejected: {exc.verify_message}"
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, ssl.SSLError):
        return exc.strerror
    return str(exc) or type(exc).__name__
