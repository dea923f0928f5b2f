"""The guide for component authors is true: excerpts equal the example plug-in, all other Python blocks run."""

import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

from config.yaml import parse

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "writing-a-component.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:^<!-- from (?P<source>\S+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(TEXT)]
EXCERPTS = [block for block in BLOCKS if block["source"]]


def test_every_block_is_found():
    """No fence is missed because of how it is written."""
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {block["language"] for block in BLOCKS} == {"python", "toml", "yaml"}
    assert TEXT.count("<!-- from") == len(EXCERPTS) > 5


@pytest.mark.parametrize("block", EXCERPTS, ids=lambda block: f"{Path(block['source']).name}-{len(block['code'])}")
def test_excerpts_are_verbatim(block):
    """What the guide quotes is what the example has, but for indentation and the blank lines that ruff puts around it."""
    source, code = (
        re.sub(r"\n{3,}", "\n\n", text)
        for text in ((ROOT / block["source"]).read_text(encoding="utf-8"), block["code"])
    )
    assert any(textwrap.indent(code, " " * depth) in source for depth in (0, 4, 8))


async def test_the_other_python_blocks_run():
    """They run one after the other, as a reader would enter them; the tests in them pass."""
    namespace = {"__name__": "guide"}
    for block in BLOCKS:
        if block["language"] == "python" and not block["source"]:
            code = "\n" * TEXT[: TEXT.index(block["code"])].count("\n") + block["code"]
            exec(compile(code, str(GUIDE), "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) >= 2
    for test in tests:
        await test()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block["language"] == "yaml"])
def test_yaml_blocks_can_be_read(block):
    """The YAML of the guide is YAML."""
    assert parse(block["code"], str(GUIDE))


def test_links_lead_somewhere():
    """Files exist, and anchors are headings of the guide."""
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (GUIDE.parent / path).exists()
        assert not anchor or anchor in anchors, anchor


def test_names_in_the_text_exist():
    """Every dotted name of ours that the guide mentions can be imported."""
    names = set(re.findall(r"`(collector(?:\.\w+)+)", TEXT))
    assert len(names) > 5
    for name in names:
        assert pkgutil.resolve_name(name)
