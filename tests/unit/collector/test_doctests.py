"""The examples in the docstrings of ``collector.api``, ``model`` and ``delivery`` run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import collector.api
import collector.delivery
import collector.model
from collector.model.batch import Batch

PACKAGES = (collector.api, collector.model, collector.delivery)
MODULES = [
    name
    for package in PACKAGES
    for name in (
        package.__name__,
        *(module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
    )
] + ["collector.wire.errors"]  # defines MalformedBatch, a public name of the model


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
        "api.factory.ComponentId",
        "api.shared.SharedState",
        "model.batch.Batch.concat",
        "model.batch.Batch.edit",
        "model.batch.Batch.partition",
        "model.batch.Batch.select",
        "model.batch.Batch.split",
        "model.builders.logs.LogsBuilder",
        "model.builders.metrics.MetricsBuilder",
        "model.builders.traces.TracesBuilder",
        "model.edit.Edit.delete",
        "model.edit.Edit.set",
        "model.edit.Edit.set_field",
        "model.groups.groups",
        "model.keytable.KeyTable",
        "model.tables.Tables.attribute",
        "model.tables.Tables.field",
        "model.tables.Tables.table",
    ):
        assert f"collector.{name}" in documented
