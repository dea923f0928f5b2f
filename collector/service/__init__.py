"""The running service: graph, admission, ledger, own telemetry, life cycle.

It imports no component; those come through entry points.

``service``    Service: start, run, reload, drain
``graph``      the configured components as objects, joined by ``edges``, which count
``lifecycle``  starting and ending components
``exchange``   one reload; ``keeping`` knows which components stay, ``hand_over`` passes their successors the state
``sockets``    the listening sockets, which a reload passes on
``admission``  the memory budget
``ledger``     what happened to every item; ``telemetry`` shows it with the Collector's metric names
``admin``      /metrics, /health, /ledger, /-/reload
"""

from collector.service.graph import BuildError, StartError
from collector.service.ledger import Ledger, LedgerRow
from collector.service.service import Service

__all__ = ["BuildError", "Ledger", "LedgerRow", "Service", "StartError"]
