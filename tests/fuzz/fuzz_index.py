"""Fuzz target: the index over unchecked bytes and rows. It returns rows within the bytes or raises MalformedBatch.

First byte: the table; second: how far the rows are shifted against the bytes. The rest is a message for each row's
frame.
"""

import sys
from typing import Final

import numpy as np

from collector.wire import layout
from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index

ATTRIBUTES: Final = {
    "resources": layout.RESOURCE,
    "scopes": layout.SCOPE,
    "spans": layout.SPAN,
    "events": layout.EVENT,
    "links": layout.LINK,
    "records": layout.RECORD,
    "points": layout.POINT,
    "exemplars": layout.EXEMPLAR,
}
CHILDREN: Final = {"events": layout.SPAN, "links": layout.SPAN, "exemplars": layout.POINT, "quantiles": layout.POINT}


def rows_over(dtype: np.dtype[np.void], wire: bytes, shift: int) -> np.ndarray:
    """Four rows that claim to frame all bytes, half of them, none, and something outside."""
    rows = np.zeros(4, dtype)
    names = dtype.names or ()
    for column in names:
        if column.endswith("_count"):
            rows[column] = 3
    half = len(wire) // 2
    for body, end in (("body", "end"), ("inner_body", "inner_end")):
        if body in names:
            rows[body] = (0, half, half, shift)
            rows[end] = (len(wire), len(wire), half, shift + half)
    return rows[:3] if shift < 128 else rows


def within(wire: bytes, rows: np.ndarray) -> None:
    """No row frames anything outside the bytes."""
    assert np.all(rows["start"] >= 0)
    assert np.all(rows["end"] <= len(wire))
    assert np.all(rows["start"] < rows["end"])
    for column in rows.dtype.names or ():
        if column + "_len" in (rows.dtype.names or ()):
            present = rows[column] >= 0
            assert np.all(rows[column][present] + rows[column + "_len"][present] <= len(wire))
            assert np.all(rows[column + "_len"] >= 0)


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if len(data) < 2:
        return
    wire, choice, shift = data[2:], data[0], data[1]
    tables = (
        [("attributes", table) for table in ATTRIBUTES]
        + [("children", table) for table in CHILDREN]
        + [("scan", ""), ("find", "")]
    )
    what, table = tables[choice % len(tables)]
    try:
        if what == "attributes":
            rows = rows_over(ATTRIBUTES[table], wire, shift)
            found, keys = scan_index.index_attributes(
                table, wire, rows, np.arange(len(rows), dtype=np.int32) + 1 if table == "points" else None
            )
            within(wire, found)
            assert np.all(found["key_code"] < len(keys))
            assert len(set(keys)) == len(keys)
        elif what == "children":
            within(wire, scan_index.index_children(table, wire, rows_over(CHILDREN[table], wire, shift)))
        elif what == "scan":
            for found in scan.scan(("traces", "metrics", "logs")[shift % 3], wire):
                within(wire, found)
            for found in scan.frames(("traces", "logs")[shift % 2], wire):
                within(wire, found)
        else:
            starts, ends = scan_index.find_field(
                wire, np.array([0, shift], "i4"), np.array([len(wire)] * 2, "i4"), shift % 20 + 1
            )
            assert np.all((starts < ends) | (starts == -1))
    except MalformedBatch:
        return


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
