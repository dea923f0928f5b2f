"""Entries over TCP.

A connection's bytes wait until the next call of :meth:`TCPInput._take`, which cuts them into entries. If too many wait,
no connection is read.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from collector.api import Host, Settings
from collector.log_operators.input_config import TCPInputConfig
from collector.log_operators.intake import Intake, Portion
from collector.log_operators.peers import HostNames, end_attributes
from collector.log_operators.pipeline import Pipeline
from collector.log_operators.setup import LimitedLog
from collector.log_operators.slices import frame_ends
from collector.log_operators.splitting import Split, Splitter
from collector.transport.endpoint import Endpoint
from collector.transport.listener import Listener
from collector.transport.tls import server_context

__all__ = ["TCPInput"]

_WAITING_MAX_BYTES: Final = 1024 * 1024  # of new bytes of all connections, above which none is read
_PARTIAL_MAX_BYTES: Final = 64 * 1024 * 1024  # of entries that are not complete, of all connections
_NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}


class TCPInput:
    """Listens, and passes entries through a pipeline.

    ``max_octets``: messages have their length in front (RFC 6587), which is at most this.
    """

    def __init__(
        self,
        settings: Settings,
        config: TCPInputConfig,
        pipeline: Pipeline,
        *,
        key: str,
        log: LimitedLog,
        max_octets: int | None = None,
    ) -> None:
        self._config, self._log, self._max_octets = config, log, max_octets
        self._listener = Listener(Endpoint.parse(config.listen_address), key=key, setting="listen_address")
        self.splitter = Splitter(
            config.multiline,
            encoding="nop" if config.one_log_per_packet and config.encoding == "nop" else config.encoding,
            trim=config,
            max_log_size=config.max_log_size or 1024 * 1024,
            keeps_empty=True,
        )
        self._intake = Intake(settings, pipeline, self._take, waits=True, log=log)
        self.names = HostNames() if config.add_attributes else None
        self._connections: set[_Connection] = set()
        self._dirty: dict[_Connection, None] = {}
        self._waiting_bytes = 0
        self._partial_bytes = 0
        self._is_paused = False
        self._closed = settings.telemetry.counter(
            "tailrace_receiver_connections_closed", "Connections closed by the receiver, by reason", ("reason",)
        )

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return self._listener.address

    async def start(self, host: Host) -> None:
        """Listen.

        Raises:
            OSError: It cannot listen at the address; the message names the key.
            ValueError: A certificate cannot be used.
        """
        tls = server_context(self._config.tls) if self._config.tls is not None else None
        self._intake.start()
        await self._listener.start(lambda: _Connection(self), tls, host)

    async def shutdown(self) -> None:
        """Stop listening, close the connections, and pass on what they have sent, complete or not."""
        if self._listener.is_continued:
            await self._listener.finish()
        self._listener.close()
        for connection in list(self._connections):
            connection.close()
        await self._intake.finish()
        if self.names is not None:
            await self.names.close()

    def joined(self, connection: "_Connection") -> None:
        """A client has connected."""
        self._connections.add(connection)
        if self._is_paused:
            connection.pause()

    def received(self, connection: "_Connection", size_bytes: int) -> None:
        """A connection has bytes, or has ended if there are none."""
        self._dirty[connection] = None
        self._waiting_bytes += size_bytes
        if self._waiting_bytes > _WAITING_MAX_BYTES and not self._is_paused:
            self._is_paused = True
            for other in self._connections:
                other.pause()
        self._intake.wake(self._waiting_bytes)

    def _take(self) -> Sequence[Portion]:
        dirty, self._dirty = self._dirty, {}
        self._waiting_bytes = 0
        portions: list[Portion] = []
        for connection in dirty:
            if connection.attributes is None and not connection.has_ended:
                self._dirty[connection] = None  # its name is being looked up
                continue
            self._partial_bytes -= len(connection.rest)
            split = self._split(connection)
            self._partial_bytes += len(connection.rest)
            if self._partial_bytes > _PARTIAL_MAX_BYTES and connection.rest:
                self._end(connection, "memory")
                split_rest = self.splitter.whole([connection.rest])
                self._partial_bytes -= len(connection.rest)
                connection.rest = b""
                portions.append((split_rest, connection.attributes or _NO_ATTRIBUTES))
            if len(split.starts):
                portions.append((split, connection.attributes or _NO_ATTRIBUTES))
            if connection.has_ended:
                self._connections.discard(connection)
        if self._is_paused:
            self._is_paused = False
            for connection in self._connections:
                connection.resume()
        return portions

    def _split(self, connection: "_Connection") -> Split:
        data = b"".join((connection.rest, *connection.chunks))
        connection.chunks.clear()
        if self._max_octets is not None:
            split = self._frames(connection, data)
        elif self._config.one_log_per_packet:
            size_max = self.splitter.max_log_size
            if not connection.has_ended:
                connection.rest = data[:size_max]
                return self.splitter.whole([])
            split = self.splitter.whole([data[:size_max]] if data else [])
        else:
            split = self.splitter.split(data, is_end=connection.has_ended)
        connection.rest = b"" if connection.has_ended else data[split.consumed :]
        return split

    def _frames(self, connection: "_Connection", data: bytes) -> Split:
        """Messages with their length in front. What begins without a length is an entry up to the next line feed."""
        assert self._max_octets is not None
        texts: list[bytes] = []
        at = 0
        while at < len(data):
            ends, error = frame_ends(data[at:], self._max_octets)
            start = 0
            for end in ends:
                texts.append(data[at + start : at + end])
                start = end
            at += start
            if error == 0:
                break
            if error == 2:
                self._end(connection, "too_large")
                texts.append(data[at : at + self._max_octets])
                at = len(data)
                break
            line_end = data.find(b"\n", at)
            if line_end < 0 and not connection.has_ended and len(data) - at < self._max_octets:
                break
            line_end = len(data) - 1 if line_end < 0 else line_end
            texts.append(data[at : line_end + 1])
            at = line_end + 1
        if connection.has_ended and at < len(data):
            texts.append(data[at:])
            at = len(data)
        split = self.splitter.whole([text for text in texts if text.strip()])
        return Split(split.text, split.starts, split.ends, split.offsets, at)

    def _end(self, connection: "_Connection", reason: str) -> None:
        self._closed.add(reason=reason)
        self._log.first_errors("a connection was closed", reason=reason, key="listen_address")
        connection.close()


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, owner: TCPInput) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._naming: asyncio.Task[None] | None = None
        self.chunks: list[bytes] = []
        self.rest = b""
        self.has_ended = False
        self.attributes: Mapping[str, Any] | None = _NO_ATTRIBUTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is not a subclass
        if self._owner.names is not None:
            self.attributes = None
            peer, host = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            self._naming = asyncio.ensure_future(self._name(self._owner.names, peer, host))
        self._owner.joined(self)

    async def _name(self, names: HostNames, peer: Any, host: Any) -> None:
        peer, host = peer or ("", 0), host or ("", 0)
        peer_name, host_name = await asyncio.gather(names.find(peer[0]), names.find(host[0]))
        self.attributes = {
            "net.transport": "IP.TCP",
            **end_attributes("peer", peer, peer_name),
            **end_attributes("host", host, host_name),
        }
        self._owner.received(self, 0)

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self._owner.received(self, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.has_ended = True
        self._owner.received(self, 0)

    def pause(self) -> None:
        """Read nothing more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection; what it has sent is still taken."""
        self.has_ended = True
        self._owner.received(self, 0)
        if self._transport is not None:
            self._transport.abort()
