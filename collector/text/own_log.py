"""What a component may say about an event of the service's own log, besides its values."""

from typing import Final

__all__ = ["SAMPLED_KEY", "UNSAMPLED", "Lines"]

SAMPLED_KEY: Final = "_sampled"

UNSAMPLED: Final = {SAMPLED_KEY: False}
"""Values of an event that ``service::telemetry::logs::sampling`` never leaves out.

For lines with one sentence, each of which says something else, and of which there are few: the findings about a
configuration, the rows of the final ledger.

Example::

    log.warning("the configuration has a warning", warning=str(finding), **UNSAMPLED)
"""


class Lines(str):
    """The sentence of an event that takes several lines. What came from outside in it must be escaped already.

    All line breaks in other texts are escaped, since they may come from outside.
    """

    __slots__ = ()
