"""Configuration of entries that come over the network: what ``tcp_log``, ``udp_log`` and ``syslog`` share.

Source: opentelemetry-collector-contrib pkg/stanza/operator/input/{tcp,udp} (v0.156).
"""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from collector.log_operators.splitting import MultilineConfig, TrimConfig, check_encoding
from collector.transport.endpoint import Endpoint
from config import ByteSize, ComponentConfig, TLSServerConfig

__all__ = ["AsyncConfig", "TCPInputConfig", "UDPInputConfig"]

_MIN_MAX_LOG_SIZE = 64 * 1024


def _address(text: str) -> str:
    Endpoint.parse(text)
    return text


class _InputConfig(TrimConfig):
    listen_address: Annotated[str, AfterValidator(_address)]
    """Address to listen on, as host:port."""
    add_attributes: bool = False
    """Whether entries get the attributes ``net.transport``, ``net.peer.ip``, ``.port`` and ``.name``, and
    ``net.host.ip``, ``.port`` and ``.name``.
    """
    encoding: Annotated[str, AfterValidator(check_encoding)] = "utf-8"
    """The encoding of the bytes: ``utf-8``, ``utf-16le``, ``ascii``, ``big5``, …; ``nop`` leaves them unsplit."""


class TCPInputConfig(_InputConfig):
    """Entries over TCP."""

    max_log_size: ByteSize = 1024 * 1024
    """The size at which an entry is cut; at least 64 KiB. 0 means 1 MiB."""
    one_log_per_packet: bool = False
    """Whether everything that a connection sends is one entry."""
    multiline: MultilineConfig = MultilineConfig()
    """Where entries begin or end; by default each line is one."""
    tls: TLSServerConfig | None = None
    """TLS settings. Absent: no TLS."""

    @model_validator(mode="after")
    def _size_is_large_enough(self) -> Self:
        if 0 < self.max_log_size < _MIN_MAX_LOG_SIZE:
            raise ValueError(f"max_log_size: {self.max_log_size} bytes is too small; it must be at least 64KiB")
        return self


class AsyncConfig(ComponentConfig):
    """How datagrams wait for the operators."""

    readers: int = Field(default=1, ge=0)
    """The Collector's number of readers. One reader takes all datagrams here."""
    processors: int = Field(default=1, ge=0)
    """The Collector's number of processors. One processor works on many datagrams at a time here."""
    max_queue_length: int = Field(default=100, ge=0)
    """The most datagrams that wait; meanwhile others stay in the kernel's buffer. 0 means 100."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :meth:`ComponentConfig.warnings`."""
        for key in ("readers", "processors"):
            if getattr(self, key) > 1:
                yield key, "this setting has no effect: datagrams are read and processed many at a time"


class UDPInputConfig(_InputConfig):
    """Entries over UDP."""

    one_log_per_packet: bool = False
    """Whether a datagram is one entry, with its white space and without ``multiline``."""
    multiline: MultilineConfig | None = None
    """Where the entries of a datagram begin or end; by default a datagram is one entry."""
    async_: AsyncConfig | None = Field(default=None, alias="async")
    """How many datagrams may wait; by default 10,000."""
