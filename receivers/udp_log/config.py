"""Configuration of the receiver ``udp_log``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib receiver/udplogreceiver (v0.156).
"""

from collector.log_operators import OperatorsConfig
from collector.log_operators.input_config import UDPInputConfig

__all__ = ["UDPLogConfig"]


class UDPLogConfig(UDPInputConfig, OperatorsConfig):
    """Configuration of ``udp_log``: receives log entries over UDP."""
