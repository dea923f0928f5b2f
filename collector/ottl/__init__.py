"""Conditions of the OpenTelemetry Transformation Language over columns. Not its statements: nothing here changes data.

``compile_conditions`` parses and checks once; ``Conditions.mask`` asks all rows of a batch at once. What OTTL can say
and this cannot stands in the README of the ``filter`` processor.
"""

from collector.ottl.conditions import Conditions, ErrorMode, compile_conditions, infer_context
from collector.ottl.paths import Context
from collector.ottl.syntax import OttlError

__all__ = ["Conditions", "Context", "ErrorMode", "OttlError", "compile_conditions", "infer_context"]
