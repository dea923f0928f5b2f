"""Receivers: what brings data in. One folder each."""
