"""The examples in the docstrings of ``collector.model`` run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import collector.model
from collector.model.batch import Batch

MODULES = [module.name for module in pkgutil.walk_packages(collector.model.__path__, "collector.model.")]


def example_globals():
    """What the examples of ``Batch`` define; the examples of other docstrings use the same batch."""
    (example,) = doctest.DocTestFinder(recurse=False).find(Batch, "Batch")
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    return example.globs


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs=example_globals() | vars(module))
    assert results.failed == 0


def test_there_are_examples():
    """The finder sees the examples; otherwise the test above would be empty."""
    documented = {
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
        if test.examples
    }
    for name in (
        "batch.Batch.concat",
        "batch.Batch.edit",
        "batch.Batch.partition",
        "batch.Batch.select",
        "batch.Batch.split",
        "builders.logs.LogsBuilder",
        "builders.metrics.MetricsBuilder",
        "builders.traces.TracesBuilder",
        "edit.Edit.delete",
        "edit.Edit.set",
        "edit.Edit.set_field",
        "groups.groups",
        "keytable.KeyTable",
        "tables.Tables.attribute",
        "tables.Tables.field",
        "tables.Tables.table",
    ):
        assert f"collector.model.{name}" in documented
