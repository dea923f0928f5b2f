"""Conditions of the OpenTelemetry Transformation Language (OTTL) over columns. Its statements are not supported.

``compile_conditions`` parses and checks conditions once; ``Conditions.mask`` evaluates them for all rows of a batch at
once. The README of the processor ``filter`` lists the parts of OTTL that are missing.

``syntax``, ``parser``   from the text of a condition to its tree
``contexts``, ``paths``  the symbols and paths of each context, and the columns they read
``compiler``             from the tree to a function over the columns of a batch
``values``, ``operations``, ``functions``, ``converters``, ``text``  what that function computes with
``match``, ``attribute_actions``  the blocks ``include``/``exclude`` and ``actions`` that processors share
"""

from collector.ottl.conditions import Conditions, ErrorMode, compile_conditions, infer_context
from collector.ottl.contexts import Context
from collector.ottl.syntax import OttlError

__all__ = ["Conditions", "Context", "ErrorMode", "OttlError", "compile_conditions", "infer_context"]
