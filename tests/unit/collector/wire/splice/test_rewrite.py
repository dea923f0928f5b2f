"""The rewrite kernels against an obvious reference: a tree of messages whose bytes are joined again."""

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.wire.layout import ATTRIBUTE, RESOURCE, SCOPE, SPAN
from collector.wire.splice.relocate import join_rows, take_rows
from collector.wire.splice.rewrite import prune, rewrite
from protobuf_wire import varint

NOTHING = np.empty(0, np.int64)
FRAME = np.dtype([("parent", "<i4"), ("start", "<i4"), ("body", "<i4"), ("end", "<i4")])


class Node:
    """A message: a tag, and runs of bytes or messages as its content."""

    def __init__(self, tag, parts):
        self.tag, self.parts = tag, parts

    def __bytes__(self):
        content = b"".join(map(bytes, self.parts))
        return self.tag + varint(len(content)) + content


def tree(source, depth=0):
    parts = []
    for _ in range(source.randrange(4)):
        if depth < 4 and source.random() < 0.6:
            parts.append(tree(source, depth + 1))
        else:
            parts.append(bytes((7,)) * source.choice((1, 5, 120, 130)))
    return Node(source.choice((b"\x0a", b"\x82\x01")), parts)


def patched(node, source, at, frames, patches):
    """Adds the frame and, for some runs, a patch; returns the expected node and where its bytes end."""
    content = b"".join(map(bytes, node.parts))
    start, at = at, at + len(node.tag) + len(varint(len(content)))
    frames.append((0, start, at, at + len(content)))
    parts = []
    if source.random() < 0.3:
        parts.append(b"first")
        patches.append((at, 0, b"first"))
    for part in node.parts:
        if isinstance(part, Node):
            part, at = patched(part, source, at, frames, patches)
            parts.append(part)
            continue
        new = source.choice((part, part, b"", b"x", b"y" * 200))
        if new is not part:
            patches.append((at, len(part), new))
        parts.append(new)
        at += len(part)
        if source.random() < 0.2:
            parts.append(b"behind")
            patches.append((at, 0, b"behind"))
    return Node(node.tag, parts), at


def arrays(patches):
    offsets, deleted, payloads = (list(column) for column in zip(*patches, strict=True)) if patches else ([], [], [])
    lengths = np.array([len(payload) for payload in payloads], np.int64)
    return (
        np.array(offsets, np.int64),
        np.array(deleted, np.int64),
        np.cumsum(lengths) - lengths,
        lengths,
        b"".join(payloads),
    )


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rewrite_is_the_tree_with_other_runs(seed):
    """Lengths change at every depth, in whatever order patches are given; frames are where the offset map says."""
    source = random.Random(seed)
    roots = [tree(source) for _ in range(source.randrange(1, 4))]
    wire = b"".join(map(bytes, roots))
    frames, patches, expected, at = [], [], [], 0
    for root in roots:
        new, at = patched(root, source, at, frames, patches)
        expected.append(new)
    order = list(range(len(patches)))
    source.shuffle(order)
    # Those at one offset keep their order: only the others are mixed.
    order.sort(key=lambda i: source.random() if [p[0] for p in patches].count(patches[i][0]) == 1 else 2 + i)
    rows = np.array(frames, FRAME)
    result, shift, placed = rewrite(wire, *arrays([patches[i] for i in order]), [(rows, np.arange(len(rows)), "start")])
    assert result == b"".join(map(bytes, expected))
    for i, position in zip(order, placed.tolist(), strict=True):
        assert result[position : position + len(patches[i][2])] == patches[i][2]
    again = []
    at = 0
    for new in expected:
        _, at = patched(new, random.Random(0), at, again, [])
    moved = shift.relocate(rows)
    assert [tuple(row)[1:] for row in moved.tolist()] == [frame[1:] for frame in again]


@settings(max_examples=200, deadline=None)
@given(
    wire=st.binary(max_size=60),
    patches=st.lists(st.tuples(st.integers(-1, 70), st.integers(-1, 20), st.binary(max_size=5)), max_size=6),
    frames=st.lists(st.tuples(st.just(0), st.integers(-1, 70), st.integers(-1, 70), st.integers(-1, 70)), max_size=5),
)
def test_rewrite_refuses_what_makes_no_sense(wire, patches, frames):
    """Any patches over any frames: a ``ValueError``, or a result of the length that patches and lengths add up to."""
    rows = np.array(frames, FRAME)
    try:
        result, _, placed = rewrite(wire, *arrays(patches), [(rows, np.arange(len(rows)), "start")])
    except ValueError:
        return
    assert abs(len(result) - len(wire) - sum(len(payload) - deleted for _, deleted, payload in patches)) <= 2 * len(
        frames
    )
    assert all(
        result[at : at + len(payload)] == payload for at, (_, _, payload) in zip(placed.tolist(), patches, strict=True)
    )


@pytest.mark.parametrize(
    ("offsets", "deleted", "sources", "lengths"),
    [
        ([2**62], [2**62], [0], [0]),
        ([0], [0], [2**62], [2**62]),
        ([5], [0], [0], [0]),
        ([0], [1], [0], [-1]),
        ([0, 1], [2, 1], [0, 0], [0, 0]),
    ],
)
def test_offsets_beyond_the_bytes_are_refused(offsets, deleted, sources, lengths):
    """Patches are refused even if their sums would overflow, or if they overlap."""
    with pytest.raises(ValueError, match=r"patch"):
        rewrite(b"abc", *(np.array(column, np.int64) for column in (offsets, deleted, sources, lengths)), b"x", [])


def test_a_frame_row_that_does_not_exist_is_refused():
    """Indexes are checked before anything is read."""
    with pytest.raises(ValueError, match="row 1 of 1 rows does not exist"):
        rewrite(b"abc", NOTHING, NOTHING, NOTHING, NOTHING, b"", [(np.zeros(1, FRAME), np.array([1]), "start")])


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), wire=st.binary(max_size=80))
def test_prune_survives_rows_of_other_bytes(seed, wire):
    """Arbitrary rows over arbitrary bytes give a ``ValueError`` or some bytes, never an access outside."""
    source = random.Random(seed)
    tables = []
    above = 1
    for dtype in (RESOURCE, SCOPE, SPAN):
        rows = np.zeros(source.randrange(4), dtype)
        for column in ("start", "body", "end"):
            rows[column] = [source.randrange(-2, 90) for _ in rows]
        rows["parent"] = [source.randrange(-1, above + 1) for _ in rows] if dtype is not RESOURCE else -1
        above = len(rows)
        tables.append(rows)
    depth = source.randrange(3)
    keep = np.array([source.randrange(2) for _ in tables[depth]], np.uint8)
    try:
        pruned = prune(wire, tables, depth, keep)
    except ValueError:
        return
    if pruned is not None:
        result, shift, maps = pruned
        assert len(result) <= len(wire)
        for rows, new in zip(tables, maps, strict=True):
            take_rows(rows, new, None, shift)


def test_rows_keep_their_parents_when_others_go():
    """Kept children get new parents, and the new index of each row is returned."""
    rows = np.zeros(4, ATTRIBUTE)
    rows["owner"] = [0, 1, 1, 2]
    rows["int_value"] = [10, 11, 12, 13]
    taken, new = take_rows(rows, None, np.array([-1, 0, 1], np.int32), None)
    assert taken["owner"].tolist() == [0, 0, 1]
    assert taken["int_value"].tolist() == [11, 12, 13]
    assert new.tolist() == [-1, 0, 1, 2]
    with pytest.raises(ValueError, match="parent"):
        take_rows(rows, None, np.array([0, 1], np.int32), None)


def test_joined_rows_point_into_the_joined_bytes():
    """Offsets, parents and key codes are moved; absent offsets stay absent."""
    rows = np.zeros(1, ATTRIBUTE)
    rows["start"], rows["value"], rows["key_code"] = 3, -1, 0
    joined = join_rows([rows, rows], np.array([0, 100]), np.array([0, 7]), [None, np.array([5], np.int32)])
    assert joined["start"].tolist() == [3, 103]
    assert joined["value"].tolist() == [-1, -1]
    assert joined["owner"].tolist() == [0, 7]
    assert joined["key_code"].tolist() == [0, 5]
    with pytest.raises(ValueError, match="key"):
        join_rows([rows], np.array([0]), np.array([0]), [np.empty(0, np.int32)])
    with pytest.raises(TypeError):
        join_rows([rows, np.zeros(1, SPAN)], np.array([0, 1]), np.array([0, 1]))


def test_a_length_that_grows_beyond_a_byte_moves_everything_behind_it():
    """When the content grows from 127 to 128 bytes, the length takes two bytes."""
    wire = b"\x0a\x7f" + b"a" * 127 + b"\x0a\x00"
    rows = np.array([(0, 0, 2, 129), (0, 129, 131, 131)], FRAME)
    result, shift, _ = rewrite(wire, *arrays([(2, 0, b"b")]), [(rows, np.array([0]), "start")])
    assert result == b"\x0a\x80\x01b" + b"a" * 127 + b"\x0a\x00"
    assert [tuple(row) for row in shift.relocate(rows).tolist()] == [(0, 0, 3, 131), (0, 131, 133, 133)]
    assert struct.unpack_from("<B", result, 131) == (0x0A,)
