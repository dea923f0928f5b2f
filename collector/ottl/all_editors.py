"""All editors by their names."""

from collections.abc import Mapping
from typing import Final

from collector.ottl.editors import EDITORS as GENERAL_EDITORS
from collector.ottl.editors import Editor
from collector.ottl.metric_editors import METRIC_EDITORS
from collector.ottl.span_names import SPAN_EDITORS

__all__ = ["EDITORS"]

EDITORS: Final[Mapping[str, Editor]] = {**GENERAL_EDITORS, **METRIC_EDITORS, **SPAN_EDITORS}
