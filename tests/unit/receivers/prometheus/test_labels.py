import hashlib

import pytest

from receivers.prometheus.config import GlobalConfig, ScrapeConfig
from receivers.prometheus.relabel import RelabelConfig, Relabeller
from receivers.prometheus.targets import (
    Identity,
    LimitError,
    SampleLabels,
    Target,
    resource_attributes,
    targets_of,
)

LABELS = {"a": "foo", "b": "bar", "c": "Baz"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "ch${1}-x"}, {"d": "choo-x"}),
        ({"source_labels": ["a", "b"], "separator": "/", "target_label": "d"}, {"d": "foo/bar"}),
        ({"source_labels": ["a"], "regex": "o", "target_label": "d"}, {}),
        ({"source_labels": ["a"], "regex": "(f).*", "target_label": "${1}x", "replacement": "y"}, {"fx": "y"}),
        ({"target_label": "a", "replacement": ""}, {"a": None}),
        ({"action": "keep", "source_labels": ["a"], "regex": "foo|x"}, {}),
        ({"action": "keep", "source_labels": ["a"], "regex": "fo"}, None),
        ({"action": "drop", "source_labels": ["a"], "regex": "f.*"}, None),
        ({"action": "drop", "source_labels": ["zz"], "regex": "f.*"}, {}),
        ({"action": "keepequal", "source_labels": ["a"], "target_label": "b"}, None),
        ({"action": "dropequal", "source_labels": ["a"], "target_label": "a"}, None),
        ({"action": "dropequal", "source_labels": ["a"], "target_label": "b"}, {}),
        (
            {"action": "hashmod", "source_labels": ["a", "b"], "modulus": 1000, "target_label": "d"},
            {"d": str(int.from_bytes(hashlib.md5(b"foo;bar").digest()[8:], "big") % 1000)},
        ),
        ({"action": "labelmap", "regex": "(b)", "replacement": "x_${1}"}, {"x_b": "bar"}),
        ({"action": "labeldrop", "regex": "a|c"}, {"a": None, "c": None}),
        ({"action": "labelkeep", "regex": "a|c"}, {"b": None}),
        ({"action": "Lowercase", "source_labels": ["c"], "target_label": "d"}, {"d": "baz"}),
        ({"action": "uppercase", "source_labels": ["c"], "target_label": "c"}, {"c": "BAZ"}),
        ({"source_labels": ["c"], "regex": "(?i)BAZ", "target_label": "d", "replacement": "y"}, {"d": "y"}),
    ],
)
def test_every_action(rule, expected):
    """As prometheus/prometheus model/relabel defines them."""
    got = Relabeller([RelabelConfig.model_validate(rule)]).apply(dict(LABELS))
    if expected is None:
        assert got is None
    else:
        assert got == {key: value for key, value in {**LABELS, **expected}.items() if value is not None}


@pytest.mark.parametrize("rule", [{"action": "hashmod", "target_label": "x"}, {"regex": "("}, {"action": "replace"}])
def test_a_rule_that_cannot_work_is_refused(rule):
    """With the key that is missing."""
    with pytest.raises(ValueError, match=r"modulus|target_label|regex|missing"):
        RelabelConfig.model_validate(rule)


def job(**keys):
    return ScrapeConfig.model_validate({"job_name": "j", **keys})


def labels_of(name, pairs, target_labels, **keys):
    config = job(**keys)
    target = Target("http://h:1/metrics", {"job": "j", "instance": "h:1", **target_labels}, {})
    rules = Relabeller(config.metric_relabel_configs)
    return SampleLabels(config, GlobalConfig(external_labels={"ext": "e"}), target, rules)(name, pairs)


def test_labels_of_the_target_win_by_default():
    """Those on the page are renamed, however often that is necessary."""
    got = labels_of("a", [("job", "x"), ("exported_job", "y"), ("empty", "")], {})
    expected = {"exported_exported_job": "x", "exported_job": "y", "job": "j", "instance": "h:1", "ext": "e"}
    assert got == {"__name__": "a", **expected}


def test_labels_of_the_page_win_with_honor_labels():
    """An empty one takes the target's away."""
    got = labels_of("a", [("job", "x"), ("instance", "")], {}, honor_labels=True)
    assert got == {"__name__": "a", "job": "x", "ext": "e"}


@pytest.mark.parametrize("limit", [{"label_limit": 3}, {"label_name_length_limit": 7}, {"label_value_length_limit": 3}])
def test_limits_of_labels(limit):
    """A series above a limit is an error."""
    with pytest.raises(LimitError, match=next(iter(limit))):
        labels_of("a", [("b", "1234")], {}, **limit)


def test_a_series_with_a_label_twice_is_refused():
    """As in Prometheus."""
    with pytest.raises(LimitError, match="twice"):
        labels_of("a", [("b", "1"), ("b", "2")], {})


def test_targets():
    """Relabelling decides about address, path, parameters and scheme; duplicates are one, errors are named."""
    config = job(
        params={"module": ["a b", "c"]},
        relabel_configs=[
            {"source_labels": ["__meta_path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {"source_labels": ["drop"], "regex": "yes", "action": "drop"},
        ],
    )
    found = [
        {"__address__": "h:1", "x": "y"},
        {"__address__": "h:1", "x": "y", "__meta_other": "z"},
        {"__address__": "h:2", "__meta_path": "/probe?x=1"},
        {"__address__": "h:3", "drop": "yes"},
        {"__address__": "http://h:4"},
        {"x": "no address"},
    ]
    targets, errors = targets_of(config, (60, 10), Relabeller(config.relabel_configs), found)
    assert [target.url for target in targets] == [
        "http://h:1/metrics?module=a+b&module=c",
        "http://h:2/probe?x=1&module=a+b&module=c",
    ]
    assert targets[0].labels == {"job": "j", "instance": "h:1", "x": "y"}
    assert len(errors) == 2


@pytest.mark.parametrize(
    ("instance", "address", "port"),
    [
        ("host:1", "host", "1"),
        ("127.0.0.1:1", None, "1"),
        ("0.0.0.0:1", None, "1"),
        ("localhost", None, ""),
        ("[::1]:1", None, "1"),
        ("[2001:db8::1]:1", "2001:db8::1", "1"),
        ("2001:db8::1", "2001:db8::1", ""),
    ],
)
def test_resource_attributes(instance, address, port):
    """An address that means nothing elsewhere is left out."""
    got = resource_attributes(Identity("j", instance), {"__scheme__": "https", "__meta_kubernetes_pod_name": "p"})
    assert (got.get("server.address"), got["server.port"]) == (address, port)
    assert (got["service.name"], got["url.scheme"], got["k8s.pod.name"]) == ("j", "https", "p")
