"""Policy by policy the same traces as the Go collector, apart from the differences listed in docs/tail_sampling.md.

The cases and both programs are ``benchmarks/tail_sampling_peer.py``: what a user runs is what is tested.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def peer():
    path = Path(__file__).parents[2] / "benchmarks" / "tail_sampling_peer.py"
    spec = importlib.util.spec_from_file_location("tail_sampling_peer", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_policy_keeps_the_traces_the_go_collector_keeps(peer, server, tmp_path, seed):
    """Each kept trace has all of its spans.

    All differences are documented ones, and every policy type has a case.
    """
    answers = peer.compare(300, seed, tmp_path, server.binary("otelcol"))
    unexpected = {each.case.name: (len(each.ours), len(each.theirs)) for each in answers if not each.as_documented}
    assert not unexpected
    assert {each.case.name for each in answers if not each.equal} <= {"latency, band", "latency, upper only"}
    telling = [each for each in answers if 0 < len(each.ours) < 300]
    assert len(telling) > len(answers) / 2


def test_every_policy_type_is_compared(peer):
    """A new policy type must not be forgotten."""
    from processors.tail_sampling.policy_config import PolicyConfig

    def types(written):
        if isinstance(written, dict):
            yield from [written["type"]] if isinstance(written.get("type"), str) else []
            for each in written.values():
                yield from types(each)
        elif isinstance(written, list):
            for each in written:
                yield from types(each)

    blocks = {field.alias or name for name, field in PolicyConfig.model_fields.items()} - {"name", "type"}
    assert {kind for case in peer.cases(0) for kind in types(case.policies)} == blocks | {
        "always_sample",
        "trace_flags",
    }
