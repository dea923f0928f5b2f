"""Entries over UDP.

Datagrams wait until the next call of :meth:`UDPInput._take`. If too many wait, the socket is not read, and the kernel
drops what does not fit into its buffer, which is counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from collector.api import Host, Settings
from collector.log_operators.input_config import UDPInputConfig
from collector.log_operators.intake import Intake, Portion
from collector.log_operators.peers import HostNames, end_attributes
from collector.log_operators.pipeline import Pipeline
from collector.log_operators.setup import LimitedLog
from collector.log_operators.splitting import Splitter, TrimConfig
from collector.transport.datagrams import DatagramServer
from collector.transport.endpoint import Endpoint

__all__ = ["UDPInput"]

_DATAGRAM_MAX_BYTES: Final = 64 * 1024
_WAITING_MAX: Final = 10_000
_WAITING_MAX_BYTES: Final = 16 * 1024 * 1024
_BUFFER_BYTES: Final = 4 * 1024 * 1024  # asked of the kernel, which may give less
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
        self._waiting: list[tuple[bytes, Any]] = []
        self._waiting_bytes = 0
        lost = settings.telemetry.counter(
            "tailrace_receiver_lost_packets",
            "UDP packets that were not processed, by transport and reason",
            ("transport", "reason"),
        )
        self._server = DatagramServer(
            self._endpoint,
            self._on_packet,
            lambda count, reason: lost.add(count, transport="udp", reason=reason),
            key=key,
            setting="listen_address",
            buffer_bytes=_BUFFER_BYTES,
        )

    @property
    def port(self) -> int:
        """The port it listens on; 0 before :meth:`start`."""
        return self._server.port

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return self._server.address

    async def start(self, host: Host) -> None:
        """Listen.

        Raises:
            OSError: It cannot listen at the address; the message names the key.
        """
        self._server.start(host)
        self._intake.start()

    async def shutdown(self) -> None:
        """Read what the kernel has, stop listening, and pass everything on."""
        self._server.close()
        await self._intake.finish()
        if self._names is not None:
            await self._names.close()

    def _on_packet(self, packet: bytes, peer: Any) -> None:
        self._waiting.append((packet.rstrip(_CONTROL), peer))
        self._waiting_bytes += len(packet)
        is_full = len(self._waiting) >= self._waiting_max or self._waiting_bytes >= _WAITING_MAX_BYTES
        if is_full:
            self._server.pause()
        self._intake.wake(1 << 30 if is_full else self._waiting_bytes)

    def _take(self) -> Sequence[Portion]:
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        self._server.resume()
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
