"""What comments, docstrings and documents refer to exists: files, sections, numbered rules, decisions."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".pyx", ".pxd", ".pyi", ".md", ".yaml", ".toml", ".sh", ""}
SOURCES = ("collector", "config", "receivers", "processors", "exporters", "connectors", "extensions")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
DOCUMENT = re.compile(r"\bdocs/[\w./-]+\.(?:md|png)")
SOURCE = re.compile(
    r"`((?:collector|config|receivers|processors|exporters|connectors|extensions|tests|scripts|benchmarks)/[\w./-]+)`"
)
MODULE = re.compile(r"`(\w+\.pyx?)`")
RULE = re.compile(r"\b[Rr]ules? (\d+)(?:(?: and|, | to |-)(\d+))*")
CITED = re.compile(r"docs/reference/(\w+)\.md")


def tracked(*suffixes):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    paths = [Path(name) for name in listed if (ROOT / name).is_file()]
    return [path for path in paths if path.suffix in suffixes and "crashers" not in path.parts]


def numbers_of(reference):
    """The numbered rules of a reference document: headings or list items that begin with a number."""
    text = (ROOT / "docs/reference" / f"{reference}.md").read_text()
    return {int(number) for number in re.findall(r"^(?:#+ |\*\*)?(?:Rule )?(\d+)[.:)]", text, re.MULTILINE)}


if not tracked(".md"):
    pytest.skip("not a git checkout", allow_module_level=True)


@pytest.mark.parametrize("path", tracked(".md"), ids=str)
def test_links_between_documents_resolve(path):
    """Relative links lead to a file, and their anchors to a heading."""
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(), flags=re.DOTALL)
    missing = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ROOT / path.parent / name if name else ROOT / path
        if not file.exists():
            missing.append(target)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in slugs:
                missing.append(target)
    assert missing == []


@pytest.mark.parametrize("path", tracked(*TEXT), ids=str)
def test_documents_and_sources_that_are_named_exist(path):
    """``docs/….md`` anywhere, source paths in back quotes in documents, and ADRs by number."""
    text = (ROOT / path).read_text(errors="replace")
    named = {name for line in text.splitlines() if "opentelemetry-proto" not in line for name in DOCUMENT.findall(line)}
    # What has been is named only by the changelog and by decisions.
    if path.suffix == ".md" and path.name != "CHANGELOG.md" and "adr" not in path.parts:
        named |= set(SOURCE.findall(text))
    missing = sorted(name for name in named if not (ROOT / name.rstrip("/.")).exists())
    missing += [
        f"ADR {n}" for n in re.findall(r"\bADR (\d+)", text) if not list(ROOT.glob(f"docs/adr/{int(n):03}-*.md"))
    ]
    assert missing == []


def test_modules_that_the_architecture_names_exist():
    """``name.py`` and ``name.pyx`` without a folder, in back quotes, are files somewhere in the tree."""
    names = set(MODULE.findall((ROOT / "docs/architecture.md").read_text()))
    assert len(names) > 3
    assert names - {path.name for path in tracked(".py", ".pyx") if path.parts[0] in SOURCES} == set()


@pytest.mark.parametrize(
    "path", [path for path in tracked(".py", ".pyx") if path.parts[0] in {*SOURCES, "tests"}], ids=str
)
def test_numbered_rules_resolve(path):
    """A file that cites "rule N" names the reference document, itself or in its package, and that has the number."""
    text = (ROOT / path).read_text()
    cited = {int(number) for match in RULE.finditer(text) for number in re.findall(r"\d+", match[0])}
    if not cited or path.name == Path(__file__).name:
        return
    package = [
        ROOT / path,
        *sorted((ROOT / path.parent).glob("__init__.py")),
        *sorted((ROOT / path.parent).glob("conftest.py")),
    ]
    references = {name for file in package for name in CITED.findall(file.read_text())}
    assert references, f"{path} cites rules {sorted(cited)} of no document"
    known = set().union(*(numbers_of(name) for name in references))
    assert cited <= known, f"{path}: rules {sorted(cited - known)} are not in docs/reference/{references}"


@pytest.mark.parametrize("path", [path for path in tracked(".py", ".pyx", ".pxd") if path.parts[0] in SOURCES], ids=str)
def test_nothing_refers_to_a_text_outside_the_repository(path):
    """No "(design: …)", "§ 3" or file of a design that readers do not have."""
    text = (ROOT / path).read_text()
    found = re.findall(r"\(design\b[^)]*\)|own-processors|\bdesign\.md\b|requirements\.md|shared/", text)
    assert found == []
