"""Every table of the process is listed with its bound: those whose keys senders choose in docs/memory.md, others here.

Read from the source, so a new table fails this test until somebody has thought about its bound.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("collector", "receivers", "processors", "exporters", "connectors", "extensions")
NOT_IN_THE_SERVICE = ("collector/cli/demo/", "collector/testing/")
MAKERS = frozenset(
    [
        "Counter",
        "KeyTable",
        "OrderedDict",
        "WeakKeyDictionary",
        "WeakSet",
        "WeakValueDictionary",
        "defaultdict",
        "dict",
        "set",
    ]
)
CACHES = frozenset({"lru_cache", "cache"})
FIXED = ROOT / "tests/data/fixed_tables.txt"
DOCUMENTED = ROOT / "docs/memory.md"


def sources():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(NOT_IN_THE_SERVICE):
                yield name, path.read_text(encoding="utf-8")


def name_of(function):
    if isinstance(function, ast.Subscript):
        function = function.value
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def is_table(value):
    """Whether the expression makes a mapping or a set, which keys can be added to."""
    if isinstance(value, ast.Dict | ast.Set | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.IfExp):
        return is_table(value.body) or is_table(value.orelse)
    if not isinstance(value, ast.Call):
        return False
    made = name_of(value.func)
    if made == "field":
        factories = [keyword.value for keyword in value.keywords if keyword.arg == "default_factory"]
        return any(name_of(factory) in MAKERS for factory in factories)
    return made in MAKERS


def assignments(node):
    for found in ast.walk(node):
        if isinstance(found, ast.Assign):
            yield from ((target, found.value) for target in found.targets)
        elif isinstance(found, ast.AnnAssign) and found.value is not None:
            yield found.target, found.value


def tables_in(source):
    """``Class.attribute`` of each table that an object keeps, and of those that a class or dataclass declares."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        own = {id(child) for child in node.body}
        for child in node.body:
            for target, value in assignments(child):
                is_attribute = isinstance(target, ast.Attribute) and name_of(target.value) == "self"
                is_field = isinstance(target, ast.Name) and id(child) in own and not isinstance(child, ast.FunctionDef)
                if (is_attribute or (is_field and not isinstance(child, ast.AsyncFunctionDef))) and is_table(value):
                    yield f"{node.name}.{target.attr if is_attribute else target.id}"


def listed_in(text):
    """``{file: {Class.attribute}}`` of lines that begin with a file, or of a table whose first cell does."""
    found = {}
    for line in text.splitlines():
        cell = line.split("|")[1] if line.startswith("|") else line
        names = re.findall(r"[\w/]+\.py|\b[A-Za-z_]\w*\.\w+", cell)
        if names and names[0].endswith(".py"):
            found.setdefault(names[0], set()).update(name for name in names[1:] if not name.endswith(".py"))
    return found


def test_every_table_is_listed_with_its_bound():
    """A name that is listed and does not exist any more is an error as well."""
    existing = {name: set(tables_in(source)) for name, source in sources()}
    documented, fixed = (listed_in(path.read_text(encoding="utf-8")) for path in (DOCUMENTED, FIXED))
    unlisted = sorted(
        f"{name} {table}"
        for name, tables in existing.items()
        for table in tables - documented.get(name, set()) - fixed.get(name, set())
    )
    assert not unlisted, (
        "state the bound in docs/memory.md, or why there is none to state in tests/data/fixed_tables.txt"
    )
    gone = sorted(
        f"{name} {table}"
        for listed in (documented, fixed)
        for name, tables in listed.items()
        for table in tables - existing.get(name, set()) - {"functools.lru_cache"}
    )
    assert not gone, "these no longer exist"


def test_functions_are_cached_by_caches_that_are_bounded_in_bytes():
    """``lru_cache`` counts entries, whatever their size: only keys that are no texts from outside are left to it."""
    allowed = listed_in(FIXED.read_text(encoding="utf-8"))
    found = sorted(
        name
        for name, source in sources()
        for node in ast.walk(ast.parse(source))
        if (
            (isinstance(node, ast.ImportFrom) and node.module == "functools" and CACHES & {a.name for a in node.names})
            or (isinstance(node, ast.Attribute) and name_of(node.value) == "functools" and node.attr in CACHES)
        )
        and "functools.lru_cache" not in allowed.get(name, set())
    )
    assert not found, "use collector.text.cache"


@pytest.mark.parametrize(
    "source", ["class A:\n    x: dict[str, int] = {}", "class A:\n    def f(self):\n        self.x = set()"]
)
def test_the_walk_finds_tables(source):
    """Declared in the class, and made in a method."""
    assert list(tables_in(source)) == ["A.x"]
