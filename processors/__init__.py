"""Processors: one folder each. No component imports a sibling; what several share is in collector.helpers."""
