"""The OpenTelemetry Transformation Language (OTTL) over columns: conditions and statements.

``compile_conditions`` parses and checks conditions once; ``Conditions.mask`` evaluates them for all rows of a batch at
once. ``statements.compile_group`` does the same for statements, which change a ``draft.Draft`` of a batch. The README
of the processor ``transform`` lists the functions.

``syntax``, ``parser``   from the text of a condition or statement to its tree
``contexts``, ``paths``, ``message_paths``, ``resolve``  the symbols and paths of each context, and what they read
``compiler``, ``expressions``, ``getters``  from the tree to a function over the columns of a batch
``direct``, ``row_conditions``  conditions that a kernel evaluates row by row, in one pass
``values``, ``operations``, ``functions``  what that function computes with; ``converters``, ``text``, ``text_forms``,
                         ``times``, ``hashing``, ``containers``, ``printf``, ``grok``, ``xml_forms`` are the converters
``draft``, ``view``, ``targets``, ``attribute_target``, ``stored``  what statements change, and how it is written
``editors``, ``text_editors``, ``map_edits``, ``span_names``, ``glob``  the editors
``metric_editors``, ``metric_edits``, ``metric_aggregation``, ``histogram_edits``  the editors of metrics
``conditions``, ``statements``  several of them together: contexts, error modes, order
``match``, ``attribute_actions``  the blocks ``include``/``exclude`` and ``actions`` that processors share
"""

from collector.ottl.conditions import Conditions, ErrorMode, compile_conditions, infer_context
from collector.ottl.contexts import Context
from collector.ottl.syntax import OttlError

__all__ = ["Conditions", "Context", "ErrorMode", "OttlError", "compile_conditions", "infer_context"]
