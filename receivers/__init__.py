"""Receivers: one folder each.

No component imports a sibling; what several share has a package of its own in collector.
"""
