"""Regression tests for crashes that fuzzing found: each file in crashers/TARGET is run through its target."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("fuzz_*.py")))
def test_target_holds_on_everything_it_once_did_not(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in sorted((HERE / "crashers" / name).glob("*")):
        module.test_one_input(path.read_bytes())
