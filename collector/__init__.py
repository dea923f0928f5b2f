"""Tailrace: the pipeline service's own packages. Layers and rules: docs/architecture.md."""
