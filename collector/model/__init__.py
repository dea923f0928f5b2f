"""Traces, Metrics and Logs: immutable tables over the bytes of a request."""

from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.signal import Signal
from collector.wire.errors import MalformedBatch

__all__ = ["EMPTY_CONTEXT", "Context", "MalformedBatch", "Signal"]
