"""Entries over UDP.

Datagrams wait until the next call of :meth:`UDPInput._take`. If too many wait, the socket is not read, and the kernel
drops what does not fit into its buffer; it says how many, and they are counted.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from collector.api import Host, ListeningSocket, Settings
from collector.log_operators.input_config import UDPInputConfig
from collector.log_operators.intake import Intake, Portion
from collector.log_operators.peers import HostNames, end_attributes
from collector.log_operators.pipeline import Pipeline
from collector.log_operators.setup import LimitedLog
from collector.log_operators.splitting import Splitter, TrimConfig
from collector.transport.endpoint import Endpoint
from collector.transport.ports import listen_error

__all__ = ["UDPInput"]

_DATAGRAM_MAX_BYTES: Final = 64 * 1024
_WAITING_MAX: Final = 10_000
_WAITING_MAX_BYTES: Final = 16 * 1024 * 1024
_TURN_MAX: Final = 256  # datagrams that are read before the event loop goes on
_BUFFER_BYTES: Final = 4 * 1024 * 1024  # asked of the kernel, which may give less
_SO_RXQ_OVFL: Final = 40  # Linux: each datagram comes with the number of those that the kernel has dropped
_CONTROL: Final = bytes(range(32))
_NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}
_PEERS_MAX: Final = 1024  # whose attributes are kept


class UDPInput:
    """Listens, and passes entries through a pipeline."""

    def __init__(
        self, settings: Settings, config: UDPInputConfig, pipeline: Pipeline, *, key: str, log: LimitedLog
    ) -> None:
        self._config, self._key = config, key
        self._endpoint = Endpoint.parse(config.listen_address)
        trim = TrimConfig(preserve_leading_whitespaces=True, preserve_trailing_whitespaces=True)
        self._splitter = Splitter(
            config.multiline,
            encoding=config.encoding,
            trim=trim if config.one_log_per_packet else config,
            max_log_size=_DATAGRAM_MAX_BYTES,
            keeps_empty=False,
        )
        self._is_whole = config.one_log_per_packet or config.multiline is None
        limit = config.async_.max_queue_length or 100 if config.async_ is not None else _WAITING_MAX
        self._waiting_max = limit
        self._intake = Intake(settings, pipeline, self._take, waits=False, log=log)
        self._names = HostNames() if config.add_attributes else None
        self._peers: dict[Any, Mapping[str, Any]] = {}
        self._listening: ListeningSocket | None = None
        self._waiting: list[tuple[bytes, Any]] = []
        self._waiting_bytes = 0
        self._is_reading = False
        self._kernel_drops = 0
        self._dropped = settings.telemetry.counter(
            "tailrace_receiver_udp_dropped", "Datagrams that the kernel dropped because its buffer was full"
        )
        self.port = 0
        """The port it listens on; 0 before :meth:`start`."""

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return str(Endpoint(self._endpoint.host, self.port))

    async def start(self, host: Host) -> None:
        """Listen.

        Raises:
            OSError: It cannot listen at the address; the message names the key.
        """
        try:
            self._listening = host.listen(f"udp://{self._endpoint}", self._bind)
        except OSError as exc:
            raise listen_error(self._endpoint, f"{self._key}::listen_address", exc) from exc
        self.port = int(self._listening.socket.getsockname()[1])
        self._intake.start()
        self._read(is_wanted=True)

    async def shutdown(self) -> None:
        """Read what the kernel has, stop listening, and pass everything on."""
        if self._listening is not None:
            if self._is_reading:
                self._on_readable()
            self._read(is_wanted=False)
            listening, self._listening = self._listening, None
            listening.socket.close()
        await self._intake.finish()
        if self._names is not None:
            await self._names.close()

    def _bind(self, share_port: bool) -> socket.socket:
        address = self._endpoint.resolve() if self._endpoint.host else self._endpoint
        family = socket.AF_INET6 if ":" in address.host or not address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if not address.host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if share_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            sock.bind((address.host, address.port))
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def _read(self, *, is_wanted: bool) -> None:
        if self._listening is None or is_wanted == self._is_reading:
            return
        self._is_reading = is_wanted
        loop = asyncio.get_running_loop()
        if is_wanted:
            loop.add_reader(self._listening.socket.fileno(), self._on_readable)
        else:
            loop.remove_reader(self._listening.socket.fileno())

    def _on_readable(self) -> None:
        assert self._listening is not None
        receive = self._listening.socket.recvmsg
        for _ in range(_TURN_MAX):
            try:
                data, ancillary, _, peer = receive(_DATAGRAM_MAX_BYTES, 64)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # such as an ICMP error of an earlier answer; there is nothing to read
                break
            if ancillary:
                self._count_drops(ancillary)
            self._waiting.append((data.rstrip(_CONTROL), peer))
            self._waiting_bytes += len(data)
            if len(self._waiting) >= self._waiting_max or self._waiting_bytes >= _WAITING_MAX_BYTES:
                self._read(is_wanted=False)
                break
        if self._waiting:
            self._intake.wake(self._waiting_bytes if self._is_reading else 1 << 30)

    def _count_drops(self, ancillary: list[Any]) -> None:
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL and len(content) == 4:
                (total,) = struct.unpack("=I", content)
                if total != self._kernel_drops:
                    self._dropped.add((total - self._kernel_drops) & 0xFFFFFFFF)
                    self._kernel_drops = total

    def _take(self) -> Sequence[Portion]:
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        self._read(is_wanted=True)
        by_peer: dict[Any, list[bytes]] = {}
        for data, peer in waiting:
            if data:
                by_peer.setdefault(peer if self._names is not None else None, []).append(data)
        portions: list[Portion] = []
        for peer, texts in by_peer.items():
            attributes = self._attributes(peer)
            if self._is_whole:
                portions.append((self._splitter.whole(texts), attributes))
            else:
                portions += [(self._splitter.split(text, is_end=True), attributes) for text in texts]
        return [portion for portion in portions if len(portion[0].starts)]

    def _attributes(self, peer: Any) -> Mapping[str, Any]:
        if self._names is None:
            return _NO_ATTRIBUTES
        found = self._peers.get(peer)
        name = self._names.known(peer[0])
        if found is None or found["net.peer.name"] != name:
            host = self._endpoint.host or "::"
            found = {
                "net.transport": "IP.UDP",
                **end_attributes("peer", peer, name),
                **end_attributes("host", (host, self.port), self._names.known(host)),
            }
            if len(self._peers) >= _PEERS_MAX:
                self._peers.clear()
            self._peers[peer] = found
        return found
