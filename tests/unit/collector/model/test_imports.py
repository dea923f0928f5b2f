"""The imports of ``collector.model`` and ``collector.wire`` form no circle, including those for type checking only."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import collector

ROOT = Path(collector.__path__[0])
CIMPORT = re.compile(r"^from (collector\.[\w.]+) c?import", re.MULTILINE)
CYTHON = {".pyx", ".pxd"}


def imported(path):
    """The names that a source file imports, as dotted paths."""
    source = path.read_text()
    if path.suffix in CYTHON:
        return set(CIMPORT.findall(source))
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("package", ["model", "wire"])
def test_imports_form_no_circle(package):
    """Each module is a node: its ``.py`` or ``.pyx`` with its ``.pxd`` and ``.pyi``."""
    graph = {}
    for path in sorted((ROOT / package).rglob("*")):
        if path.suffix in {".py", ".pyi", *CYTHON}:
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            graph.setdefault(".".join(parts).removesuffix(".__init__"), set()).update(imported(path))
    modules = {}
    for name, names in graph.items():
        others = (names & graph.keys()) - {name}
        # ``from package import module`` names the package as well; what counts is the module.
        modules[name] = {other for other in others if not any(deeper.startswith(f"{other}.") for deeper in others)}
    assert len(modules) > 15
    graphlib.TopologicalSorter(modules).prepare()  # raises CycleError


def test_only_the_batch_classes_import_the_batch():
    """What changes a batch needs ``tables`` only."""
    importers = {path.stem for path in (ROOT / "model").glob("*.py") if "collector.model.batch" in imported(path)}
    assert importers == {"__init__", "json", "logs", "metrics", "regroup", "traces"}
