"""The running service: graph, admission, ledger, own telemetry, life cycle.

It imports no component; those come through entry points.

``service``    Service: start, run, reload, drain
``graph``      the configured components as objects, joined by ``edges``, which count
``admission``  the memory budget
``ledger``     what happened to every item; ``telemetry`` shows it with the Collector's metric names
``admin``      /metrics, /health, /ledger
"""

from collector.service.graph import StartError
from collector.service.ledger import Ledger, LedgerRow
from collector.service.service import SHUTDOWN_TIMEOUT_S, Service

__all__ = ["SHUTDOWN_TIMEOUT_S", "Ledger", "LedgerRow", "Service", "StartError"]
