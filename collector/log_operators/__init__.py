"""The language of the Collector's log operators, compiled to work on whole blocks of entries.

A receiver makes :class:`Block` objects of what it reads, and a :class:`Pipeline` makes Logs of them. Entries are rows
of an arena; each operator is a step over all rows of a block at a time.

The language is that of opentelemetry-collector-contrib pkg/stanza; ``docs/log-operators.md`` says where it differs.
"""

from collector.log_operators.block import Block
from collector.log_operators.config import AnyOperatorConfig
from collector.log_operators.pipeline import Pipeline
from collector.log_operators.setup import OperatorReport, OperatorsConfig, operator_configs
from collector.log_operators.splitting import MultilineConfig, Split, Splitter, TrimConfig, check_encoding

__all__ = [
    "AnyOperatorConfig",
    "Block",
    "MultilineConfig",
    "OperatorReport",
    "OperatorsConfig",
    "Pipeline",
    "Split",
    "Splitter",
    "TrimConfig",
    "check_encoding",
    "operator_configs",
]
