"""Every component that this distribution offers keeps the contract."""

import importlib.util
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from collector.api import ComponentKind, Factory
from collector.testing import check_component, readme_examples

NEED_THEIR_SURROUNDINGS = {"file_storage"}
"""Their defaults need what a test cannot provide (a directory below /var/lib): their README's first example is used."""
ROOT = Path(__file__).parents[2]


def offered() -> list[tuple[ComponentKind, str, str]]:
    """(kind, type, module) of the entry points of pyproject.toml: what is written there has to be there."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    return [
        (kind, name, target.partition(":")[0])
        for kind in ComponentKind
        for name, target in groups[f"tailrace.{kind.value}"].items()
    ]


def load(module: str) -> Factory:
    return import_module(module).factory


@pytest.mark.parametrize(
    ("kind", "name", "module"), offered(), ids=lambda value: value if isinstance(value, str) else value.value
)
async def test_keeps_the_contract(kind, name, module, monkeypatch, tmp_path):
    """See collector.testing.contract. Relative paths of examples lead to a directory of the test's own."""
    assert importlib.util.find_spec(module) is not None, f"pyproject.toml offers {module}, which is not there"
    monkeypatch.chdir(tmp_path)
    factory = load(module)
    assert factory.kind is kind
    assert name in {factory.component_type, *factory.aliases}
    config = readme_examples(factory)[0][1] if name in NEED_THEIR_SURROUNDINGS else None
    await check_component(factory, config=config)
