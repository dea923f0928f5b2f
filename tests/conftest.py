"""Shared by all tests."""

import os

import hypothesis

# In CI the examples are the same every time: what decides whether a change lands is reproducible. Elsewhere they are new each run.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("default-deadline", deadline=None)
hypothesis.settings.register_profile("sanitize", derandomize=True, deadline=None, max_examples=15)  # every access is checked: slow
hypothesis.settings.load_profile(os.environ.get("TAILRACE_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "default-deadline"))
