"""Configuration of the receiver ``tcp_log``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib receiver/tcplogreceiver (v0.156).
"""

from collector.log_operators import OperatorsConfig
from collector.log_operators.input_config import TCPInputConfig

__all__ = ["TCPLogConfig"]


class TCPLogConfig(TCPInputConfig, OperatorsConfig):
    """Configuration of ``tcp_log``: receives log entries over TCP."""
