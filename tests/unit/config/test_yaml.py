import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.yaml import ListNode, MapNode, Node, Position, YAMLSyntaxError, parse, plain

DATA = Path(__file__).parents[2] / "data"
SNIPPETS = plain(parse((DATA / "go_yaml.yaml").read_text(encoding="utf-8"), "go_yaml.yaml"))
ANSWERS = json.loads((DATA / "go_yaml.json").read_text(encoding="utf-8"))


def typed(node: Node) -> list:
    """The node in the form of go_yaml.json."""
    if isinstance(node, MapNode):
        return ["map", {key: typed(entry.node) for key, entry in node.entries.items()}]
    if isinstance(node, ListNode):
        return ["list", [typed(item) for item in node.items]]
    value = node.value
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, int):
        return ["int", str(value)]
    if isinstance(value, float):
        return ["float", "nan" if math.isnan(value) else value]
    return ["str", value]


def normal(answer: list, text: str = "") -> list:
    """Go's answer, its number texts as numbers; a time becomes the text it was written as."""
    match answer:
        case ["map", entries]:
            return ["map", {key: normal(value, text) for key, value in entries.items()}]
        case ["list", items]:
            return ["list", [normal(value, text) for value in items]]
        case ["float", number]:
            return ["float", number if number == "nan" else float(number)]
        case ["time"]:
            return ["str", text.removeprefix("v: ").strip()]
    return answer


ALLOWED_HERE = {"%YAML 1.2\n---\nv: 010\n", 'v: "\\/"\n'}
"""YAML 1.2 that go-yaml's 1.1 scanner refuses, but which is unambiguous."""


@pytest.mark.parametrize(("snippet", "answer"), list(zip(SNIPPETS, ANSWERS, strict=True)))
def test_reads_as_go_yaml(snippet, answer):
    """A snippet is read as go-yaml v3 reads it, or refused by both."""
    if snippet in ALLOWED_HERE:
        assert answer["error"]
        parse(snippet, "f")
    elif answer.get("error"):
        with pytest.raises(YAMLSyntaxError):
            parse(snippet, "f")
    else:
        assert typed(parse(snippet, "f")) == normal(answer["value"], snippet)


def test_every_node_knows_its_place():
    """Keys, values and list items carry file, line and column, counted from 1."""
    root = parse("a:\n  - x\n  - b: 1\n", "f.yaml")
    item = root.entries["a"].node.items[1]
    assert item.position == Position("f.yaml", 3, 5)
    assert item.entries["b"].node.position == Position("f.yaml", 3, 8)
    assert str(root.entries["a"].key_position) == "f.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "already defined at line 1"),
        ("a: [1, 2\n", 2, 1, "invalid YAML"),
        ("a: *nope\n", 1, 4, "unknown anchor 'nope'"),
        ("a: &x [1, *x]\n", 1, 11, "contains itself"),
        ("a: 1\n---\nb: 2\n", 3, 1, "second YAML document"),
        ("a: 1\nb: \x07\n", 2, 4, "U+0007"),
    ],
)
def test_syntax_errors_have_positions(text, line, column, message):
    """Errors carry the place where they occur."""
    with pytest.raises(YAMLSyntaxError) as caught:
        parse(text, "f")
    assert message in str(caught.value)
    assert (caught.value.position.line, caught.value.position.column) == (line, column)


def test_alias_bombs_are_refused():
    """Nested aliases that stand for billions of nodes are refused at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(YAMLSyntaxError, match="counting aliases"):
        parse("\n".join(lines), "f")


def test_depth_and_size_are_bounded():
    """Deep nesting and huge files end in an error, not in exhausted memory or stack."""
    with pytest.raises(YAMLSyntaxError, match="deeper than"):
        parse("[" * 500, "f")
    with pytest.raises(YAMLSyntaxError, match="larger than"):
        parse("a" * (2 * 1024 * 1024 + 1), "f")


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
    | st.text(alphabet="ab:- \n[]{},&*!'\"|>#<?%0x_.", max_size=60)
)
def test_arbitrary_text_parses_or_is_refused(text):
    """No text raises anything but YAMLSyntaxError."""
    with contextlib.suppress(YAMLSyntaxError):
        parse(text, "f")
