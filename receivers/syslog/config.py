"""Configuration of the receiver ``syslog``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib receiver/syslogreceiver and pkg/stanza/operator/input/syslog (v0.156).
"""

from typing import Literal, Self

from pydantic import model_validator

from collector.log_operators import OperatorsConfig
from collector.log_operators.config import SyslogFormat
from collector.log_operators.input_config import TCPInputConfig, UDPInputConfig

__all__ = ["SyslogConfig"]


class SyslogConfig(SyslogFormat, OperatorsConfig):
    """Configuration of ``syslog``: receives syslog messages."""

    tcp: TCPInputConfig | None = None
    """Receives over TCP; either this or ``udp`` is required."""
    udp: UDPInputConfig | None = None
    """Receives over UDP."""
    on_error: Literal["send", "send_quiet", "drop", "drop_quiet"] = "send"
    """What becomes of a message that is not of the protocol: it is sent unparsed, or dropped. The quiet values do not
    log it.
    """

    @model_validator(mode="after")
    def _has_one_transport(self) -> Self:
        if (self.tcp is None) == (self.udp is None):
            raise ValueError("either tcp or udp is required")
        if self.udp is not None:
            if self.enable_octet_counting:
                raise ValueError("enable_octet_counting: cannot be used with udp; a datagram is one message")
            if self.non_transparent_framing_trailer is not None:
                raise ValueError("non_transparent_framing_trailer: cannot be used with udp; a datagram is one message")
        return self
