"""Replaces the variable segments of a URL path by ``*``, as the Collector's ``url_sanitizer`` does.

A segment is variable if it has digits or other characters that words do not have, or if it does not read like English:
if the average probability of its letters, each following the one before it, is low.

Source: github.com/grafana/clusterurl v0.2.1, which the Collector uses (rules, threshold).
"""

import math
import re
from itertools import pairwise
from typing import Final

from processors.redaction.letter_pairs import COUNTS, LETTERS

__all__ = ["sanitize_url"]

_SEGMENTS_MAX: Final = 10  # what follows the tenth separator is left out
_QUERY: Final = re.compile(r"[?&#]")
# One other character is allowed, as the second one of a segment: "v1", "k8s", "j4elk".
_WORD: Final = re.compile(r"(?:[A-Za-z_. -](?:[\x00-\x7f][A-Za-z_. -]*)?)?")
_PLACES: Final = {letter: place for place, letter in enumerate(LETTERS)}
_PRIOR: Final = 10  # each pair counts as often more, so that no text is impossible
_THRESHOLD: Final = 0.015099318064947853
_WORD_MAX_CHARS: Final = 1024
_LOG_PROBABILITIES: Final = [
    [math.log((count + _PRIOR) / (sum(row) + _PRIOR * len(row))) for count in row] for row in COUNTS
]


def sanitize_url(url: str) -> str:
    """The URL without query and fragment and with ``*`` in place of variable segments.

    >>> sanitize_url("/users/fdklsd/j4elk/23993/job/2?token=s3cret")
    '/users/*/j4elk/*/job/*'
    """
    query = _QUERY.search(url)
    path = url if query is None else url[: query.start()]
    segments = path.split("/", _SEGMENTS_MAX)
    is_cut = len(segments) > _SEGMENTS_MAX
    # The segment in front of a query is not checked for its letters.
    spared = len(segments) - 1 if query is not None and not is_cut else -1
    return "/".join(
        segment if _is_word(segment, spell=place != spared) else "*"
        for place, segment in enumerate(segments[:_SEGMENTS_MAX])
    )


def _is_word(segment: str, *, spell: bool) -> bool:
    if not segment:
        return True
    if len(segment) > _WORD_MAX_CHARS or _WORD.fullmatch(segment) is None:
        return False
    return not (spell and _is_gibberish(segment))


def _is_gibberish(word: str) -> bool:
    places = [_PLACES[letter] for letter in word.lower() if letter in _PLACES]
    if len(places) < 2:
        return False
    total = sum(_LOG_PROBABILITIES[first][second] for first, second in pairwise(places))
    return math.exp(total / (len(places) - 1)) <= _THRESHOLD
