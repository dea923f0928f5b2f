"""Changes names, attributes and status of spans. Source: the Collector's spanprocessor, span.go."""

from typing import Final

import numpy as np

from collector.api import Settings, Transform
from collector.model import (
    KIND_ABSENT,
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    KIND_STRING,
    AttributeColumn,
    Batch,
    Edit,
    StringColumn,
    groups,
)
from collector.model.arrays import Mask
from collector.ottl.match import Matcher
from processors.span.config import SpanConfig
from processors.span.rules import ExtractionRule

__all__ = ["SpanProcessor"]

_STATUS_CODES: Final = {"Unset": 0, "Ok": 1, "Error": 2}
_UNKNOWN: Final = "<unknown-attribute-type>"
_AS_THEY_ARE: Final = (KIND_STRING, KIND_INT, KIND_BOOL)


class SpanProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: SpanConfig) -> None:
        (signal,) = settings.signals
        self._matcher = Matcher(config.include, config.exclude, signal)
        self._from_attributes, self._separator = config.name.from_attributes, config.name.separator
        rules = config.name.to_attributes
        self._rules = [ExtractionRule(pattern) for pattern in rules.rules] if rules else []
        self._breaks = rules is not None and rules.break_after_match
        self._keeps_name = rules is not None and rules.keep_original_name
        self._status = config.status

    def transform(self, batch: Batch) -> Batch:
        """The batch with the spans changed that match."""
        if not batch.item_count:
            return batch
        where = self._matcher.rows(batch)
        rows = np.ones(batch.item_count, np.bool_) if where is None else where
        edit = batch.edit()
        names: StringColumn = batch.field("name")
        if self._from_attributes:
            names = self._rename(batch, edit, names, rows)
        self._extract(edit, names, rows)
        if self._status is not None:
            edit.set_field("status_code", _STATUS_CODES[self._status.code], rows)
            edit.set_field("status_message", self._status.description, rows)
        return edit.apply()

    def _rename(self, batch: Batch, edit: Edit[Batch], names: StringColumn, rows: Mask) -> StringColumn:
        """Set names from attributes; returns the names of all spans."""
        columns = [_texts(batch.attribute(key)) for key in self._from_attributes]
        is_renamed = rows.copy()
        for column in columns:
            is_renamed &= column.present
        if not is_renamed.any():
            return names
        renamed = np.flatnonzero(is_renamed)
        found = groups(*(column.codes[renamed] for column in columns))
        values = [column.take(renamed[found.first]).to_list() for column in columns]
        distinct = [self._separator.join(parts) for parts in zip(*values, strict=True)]
        codes = np.full(len(names), -1, np.int32)
        codes[renamed] = found.codes
        new = StringColumn.from_codes(codes, distinct)
        edit.set_field("name", new, is_renamed)
        return _overlaid(new, names)

    def _extract(self, edit: Edit[Batch], names: StringColumn, rows: Mask) -> None:
        """Set attributes from names, and the names that remain."""
        open_rows = rows & ~names.equals("") & names.present
        for rule in self._rules:
            extractions = [rule.extract(text) for text in names.distinct]
            if not any(extractions):
                continue
            has_match = np.array([extraction is not None for extraction in extractions])
            matched = open_rows & (names.codes >= 0) & has_match[names.codes]
            if not matched.any():
                continue
            for place, key in enumerate(rule.keys):
                texts = [extraction and extraction.values[place] for extraction in extractions]
                edit.set(key, _mapped(names, texts), matched)
            if not self._keeps_name:
                new = _mapped(names, [extraction and extraction.name for extraction in extractions]).only(matched)
                edit.set_field("name", new, matched)
                names = _overlaid(new, names)
            if self._breaks:
                open_rows = open_rows & ~matched


def _mapped(names: StringColumn, texts: list[str | None]) -> StringColumn:
    """The column with each distinct text replaced; None makes a row absent."""
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    place = {text: number for number, text in enumerate(distinct)}
    codes = np.array([-1 if text is None else place[text] for text in texts] or [-1], np.int32)
    return StringColumn.from_codes(np.where(names.codes < 0, np.int32(-1), codes[names.codes]), distinct)


def _overlaid(first: StringColumn, second: StringColumn) -> StringColumn:
    """The rows of the first column, and those of the second where the first has none."""
    count = first.distinct_count
    codes = np.where(first.codes >= 0, first.codes, np.where(second.codes >= 0, second.codes + count, -1))
    return StringColumn.from_codes(codes.astype(np.int32), [*first.distinct_bytes, *second.distinct_bytes])


def _texts(column: AttributeColumn) -> StringColumn:
    """The values as the Collector writes them into names."""
    kinds = column.kind
    texts = column.as_text()
    is_double = kinds == KIND_DOUBLE
    is_other = ~np.isin(kinds, (*_AS_THEY_ARE, KIND_DOUBLE, KIND_ABSENT))
    if not is_double.any() and not is_other.any():
        return texts
    values, codes = np.unique(column.double[is_double], return_inverse=True)
    distinct = [_UNKNOWN, *map(_decimal, values.tolist())]
    new_codes = np.full(len(texts), -1, np.int32)
    new_codes[is_other] = 0
    new_codes[is_double] = codes + 1
    return _overlaid(StringColumn.from_codes(new_codes, distinct), texts)


def _decimal(value: float) -> str:
    """As Go's strconv.FormatFloat(value, 'f', -1, 64): without an exponent."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, trim="-")
