"""Every public class and function of the packages for component authors has an example in its docstring."""

import inspect
import types

import pytest

import collector.api
import collector.delivery
import collector.model

PACKAGES = (collector.api, collector.model, collector.delivery)
PUBLIC = [
    pytest.param(value, id=f"{package.__name__}.{name}")
    for package in PACKAGES
    for name in package.__all__
    if isinstance(value := getattr(package, name), type | types.FunctionType)
]
CONSTANTS = {"OnReceipt", "OnStored", "WhenFull", "EMPTY_CONTEXT", "ITEM", "AttributeValue"}
"""Constants and type aliases, which have no docstring of their own; further ones are recognised by their prefix."""
PREFIXES = ("KIND_", "METRIC_", "PRESENT_", "TEMPORALITY_")


@pytest.mark.parametrize("value", PUBLIC)
def test_docstring_has_an_example(value):
    """The docstring is the object's own, says something first, and shows either a doctest or an example block."""
    own = value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    text = inspect.cleandoc(own or "")
    assert text
    assert not text.startswith((">>>", "Example"))
    assert ">>> " in text or "\nExample::\n\n    " in text


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_only_constants_are_exempt(package):
    """Every other public name is a class or a function, which the test above covers."""
    covered = {parameter.id.rpartition(".")[2] for parameter in PUBLIC}
    others = {name for name in package.__all__ if name not in covered and not name.startswith(PREFIXES)}
    assert others <= CONSTANTS
