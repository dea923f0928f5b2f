"""The receiver ``tcp_log``."""

from collector.api import Host, Receiver, Settings
from collector.delivery.log import RateLimitedLog
from collector.log_operators import OperatorReport, Pipeline
from collector.log_operators.tcp_input import TCPInput
from receivers.tcp_log.config import TCPLogConfig

__all__ = ["TCPLogReceiver"]


class TCPLogReceiver(Receiver):
    """Listens, and passes each line, or what ``multiline`` says, through the operators."""

    def __init__(self, settings: Settings, config: TCPLogConfig) -> None:
        self._log = settings.telemetry.log
        log = RateLimitedLog(settings.telemetry.log, settings.clock)
        pipeline = Pipeline(
            config.operators,
            report=OperatorReport(settings, log),
            attributes=config.attributes,
            resource=config.resource,
        )
        self._input = TCPInput(settings, config, pipeline, key=f"receivers::{settings.id}", log=log)

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return self._input.address

    async def start(self, host: Host) -> None:
        """Listen. See :meth:`TCPInput.start`."""
        await self._input.start(host)
        self._log.info("receiving log entries over TCP", endpoint=self.address)

    async def shutdown(self) -> None:
        """Stop listening, and pass on what has arrived."""
        await self._input.shutdown()
