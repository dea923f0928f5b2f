"""The receiver ``syslog``."""

from collector.api import Host, Receiver, Settings
from collector.delivery.log import RateLimitedLog
from collector.log_operators import OperatorReport, Pipeline
from collector.log_operators.config import ParserConfig
from collector.log_operators.operators import Parser, Transformer, syslog_step
from collector.log_operators.tcp_input import TCPInput
from collector.log_operators.udp_input import UDPInput
from receivers.syslog.config import SyslogConfig

__all__ = ["SyslogReceiver"]

_MAX_OCTETS = 8192  # of go-syslog


class SyslogReceiver(Receiver):
    """Listens, parses each message, and passes it through the operators."""

    def __init__(self, settings: Settings, config: SyslogConfig) -> None:
        self._log = settings.telemetry.log
        log = RateLimitedLog(settings.telemetry.log, settings.clock)
        report = OperatorReport(settings, log)
        parser = ParserConfig(on_error=config.on_error)
        pipeline = Pipeline(
            config.operators,
            report=report,
            attributes=config.attributes,
            resource=config.resource,
            first=[Transformer("syslog", parser, report, Parser(parser, syslog_step(parser, config)))],
        )
        key = f"receivers::{settings.id}"
        self._input: TCPInput | UDPInput
        if config.tcp is not None:
            octets = (config.max_octets or _MAX_OCTETS) if config.enable_octet_counting else None
            self._input = TCPInput(settings, config.tcp, pipeline, key=f"{key}::tcp", log=log, max_octets=octets)
        else:
            assert config.udp is not None
            self._input = UDPInput(settings, config.udp, pipeline, key=f"{key}::udp", log=log)
        self._transport = "TCP" if config.tcp is not None else "UDP"

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return self._input.address

    async def start(self, host: Host) -> None:
        """Listen. See :meth:`TCPInput.start`."""
        await self._input.start(host)
        self._log.info("receiving syslog messages", endpoint=self.address, transport=self._transport)

    async def shutdown(self) -> None:
        """Stop listening, and pass on what has arrived."""
        await self._input.shutdown()
