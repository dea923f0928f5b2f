import importlib.metadata
import sys
import types

import pytest

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from collector.registry import Registry, check_top_level_names
from config.blocks import ComponentConfig


def factory(component_type, kind=ComponentKind.EXPORTER, **more):
    return Factory(
        component_type=component_type,
        kind=kind,
        config_type=ComponentConfig,
        create=lambda settings, config: None,
        stability=Stability.BETA,
        signals=frozenset(Signal),
        **more,
    )


def entry_points(monkeypatch, *points):
    """Let the environment offer (kind, name, module:attribute) only."""
    all_points = [importlib.metadata.EntryPoint(name, value, f"tailrace.{kind}") for kind, name, value in points]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point for point in all_points if point.group == group]
    )


def module(monkeypatch, name, **attributes):
    made = types.ModuleType(name)
    vars(made).update(attributes)
    monkeypatch.setitem(sys.modules, name, made)


def test_entry_points_are_found_and_loaded_on_demand(monkeypatch):
    """Types are known by name; a module is imported when its type is asked for, once."""
    otlp = factory("otlp_http")
    module(monkeypatch, "plugin_a", factory=otlp)
    entry_points(
        monkeypatch, ("exporters", "otlp_http", "plugin_a:factory"), ("exporters", "gone", "plugin_gone:factory")
    )
    registry = Registry()
    assert registry.types(ComponentKind.EXPORTER) == ["gone", "otlp_http"]
    assert registry.find(ComponentKind.EXPORTER, "otlp_http") is otlp
    assert registry.find(ComponentKind.RECEIVER, "otlp_http") is None


@pytest.mark.parametrize(
    ("kind", "alias", "component_type"),
    [
        (ComponentKind.EXPORTER, "otlp", "otlp_grpc"),
        (ComponentKind.EXPORTER, "otlphttp", "otlp_http"),
        (ComponentKind.EXPORTER, "prometheusremotewrite", "prometheus_remote_write"),
        (ComponentKind.CONNECTOR, "servicegraph", "service_graph"),
        (ComponentKind.CONNECTOR, "spanmetrics", "span_metrics"),
        (ComponentKind.EXTENSION, "healthcheck", "health_check"),
    ],
)
def test_the_collectors_older_spellings_are_found(kind, alias, component_type):
    """The Collector's old and new names of a type mean the same component."""
    registry = Registry()
    assert registry.find(kind, alias) is registry.find(kind, component_type)
    assert registry.find(kind, alias).component_type == component_type


def test_the_otlp_receiver_is_not_renamed():
    """Only the exporter otlp became otlp_grpc."""
    registry = Registry.of([factory("otlp", ComponentKind.RECEIVER)])
    assert registry.find(ComponentKind.RECEIVER, "otlp_grpc") is None


def test_aliases_of_factories_are_found():
    """Factory.aliases count, also for types no table names."""
    assert (
        Registry.of([factory("mine", aliases=("my_own",))]).find(ComponentKind.EXPORTER, "my_own").component_type
        == "mine"
    )


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({}, "has no attribute 'factory'"),
        ({"factory": 5}, "refers to 'int', expected a collector.api.Factory"),
        (
            {"factory": factory("bad", ComponentKind.RECEIVER)},
            "of the kind receivers, but its entry point is in the group of exporters",
        ),
        ({"factory": factory("other")}, "of type 'other', but its entry point is named 'bad'"),
    ],
)
def test_entry_points_that_lie_are_refused(monkeypatch, attributes, problem):
    """What an entry point gives must be the factory it promises; the reason is kept, other types still work."""
    module(monkeypatch, "plugin_bad", **attributes)
    module(monkeypatch, "plugin_good", factory=factory("good"))
    entry_points(monkeypatch, ("exporters", "bad", "plugin_bad:factory"), ("exporters", "good", "plugin_good:factory"))
    registry = Registry()
    for _ in range(2):
        with pytest.raises(ImportError, match=problem):
            registry.find(ComponentKind.EXPORTER, "bad")
    assert registry.find(ComponentKind.EXPORTER, "good") is not None
    described = {each.type: each for each in registry.describe()}
    assert problem in described["bad"].problem
    assert described["good"].factory is not None


def test_two_distributions_for_one_type_are_refused(monkeypatch):
    """A type that two modules offer is nobody's; the same module offered twice is one."""
    module(monkeypatch, "plugin_a", factory=factory("x"))
    entry_points(monkeypatch, ("exporters", "x", "plugin_a:factory"), ("exporters", "x", "plugin_b:factory"))
    with pytest.raises(ImportError, match="several distributions provide it: plugin_a:factory, plugin_b:factory"):
        Registry().find(ComponentKind.EXPORTER, "x")
    entry_points(monkeypatch, ("exporters", "x", "plugin_a:factory"), ("exporters", "x", "plugin_a:factory"))
    assert Registry().find(ComponentKind.EXPORTER, "x") is not None


class FakeDistribution:
    """An installed distribution: its name, its version, and some of its metadata files."""

    def __init__(self, name, version="1.0", **files):
        self.name, self.version = name, version
        self.metadata = {"Name": name}
        self.files = files

    def read_text(self, name):
        return self.files.get(name.removesuffix(".txt"))


def provided_by(distribution, component_type, module):
    """The entry point of an exporter, as ``importlib.metadata`` returns it for an installed distribution."""
    point = importlib.metadata.EntryPoint(component_type, f"{module}:factory", "tailrace.exporters")
    return point._for(distribution)


def test_components_name_the_distribution_that_provides_them(monkeypatch):
    """Distributions other than Tailrace's own are third parties, also if their component cannot be loaded."""
    module(monkeypatch, "plugin_a", factory=factory("ours"))
    points = [
        provided_by(FakeDistribution("tailrace", "0.1.0"), "ours", "plugin_a"),
        provided_by(FakeDistribution("their-plugin", "2.3"), "theirs", "plugin_gone"),
        importlib.metadata.EntryPoint("unknown", "plugin_gone:factory", "tailrace.exporters"),
    ]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == "tailrace.exporters" else []
    )
    described = {description.type: description for description in Registry().describe()}
    assert {name: (found.distribution, found.is_third_party) for name, found in described.items()} == {
        "ours": ("tailrace 0.1.0", False),
        "theirs": ("their-plugin 2.3", True),
        "unknown": ("", False),
    }
    assert described["theirs"].problem


def test_rivals_for_one_type_are_all_named(monkeypatch):
    """An operator sees which distributions to choose between."""
    points = [provided_by(FakeDistribution(name), "x", f"plugin_{name}") for name in ("b", "a")]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == "tailrace.exporters" else []
    )
    (description,) = Registry().describe()
    assert (description.distribution, description.is_third_party) == ("a 1.0, b 1.0", True)


@pytest.mark.parametrize("spelling", ["fluentforward", "fluent_forward", "k8s_attributes"])
def test_the_collectors_types_are_known(spelling):
    """Names of the Collector's components are known in every spelling."""
    kinds = [kind for kind in ComponentKind if Registry.of([]).known_elsewhere(kind, spelling)]
    assert len(kinds) == 1
    assert not Registry.of([]).known_elsewhere(ComponentKind.EXTENSION, "cardinality")


def test_our_names_are_ours():
    """In this environment no other place provides one of our packages."""
    assert check_top_level_names() == []


def test_foreign_owners_of_our_names_are_found(monkeypatch, tmp_path):
    """A distribution that installs a package called config is named, whether it lists its packages or only its files."""
    (tmp_path / "collector").mkdir()
    (tmp_path / "collector" / "__init__.py").write_text("")
    monkeypatch.setattr(sys.modules["collector"], "__file__", str(tmp_path / "collector" / "__init__.py"))
    others = [
        FakeDistribution("a", top_level="config\nother\n"),
        FakeDistribution("b", RECORD="exporters/x.py,,\nb.py,,\n"),
        FakeDistribution("tailrace", top_level="config\n"),
        FakeDistribution("c", top_level="c"),
    ]
    found = check_top_level_names(["config"], lambda: others)
    assert any("'config' is imported from" in problem for problem in found)
    assert any("distribution 'a' also installs a package named 'config'" in problem for problem in found)
    assert not any("'tailrace'" in problem for problem in found)
    assert any("distribution 'b'" in problem for problem in check_top_level_names(["exporters"], lambda: others))


def test_a_component_named_like_an_alias_of_another_is_refused():
    """Otherwise installing a plug-in would silently change what a configuration means."""
    registry = Registry.of([factory("otlp_http", aliases=("otlphttp",)), factory("otlphttp")])
    assert registry.find(ComponentKind.EXPORTER, "otlp_http").component_type == "otlp_http"
    with pytest.raises(ImportError, match="it is also an alias of otlp_http"):
        registry.find(ComponentKind.EXPORTER, "otlphttp")
