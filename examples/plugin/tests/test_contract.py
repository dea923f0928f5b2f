"""Every component keeps the contract between Tailrace and its components."""

import pytest

from collector.testing import check_component
from tailrace_example_plugin import heartbeat, jsonl_tcp, redact_prompts


@pytest.mark.parametrize("module", [heartbeat, jsonl_tcp, redact_prompts], ids=lambda module: module.__name__)
async def test_contract(module):
    """Life cycle, accounting, configuration, metrics and README examples are as every component's must be."""
    await check_component(module.factory)
