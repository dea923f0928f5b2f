"""The full table of faults by exporters takes minutes: without ``TAILRACE_SLOW=1`` each fault meets one exporter."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("TAILRACE_SLOW"):
        return
    skip = pytest.mark.skip(reason="slow; TAILRACE_SLOW=1 (make test-all) runs it")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
