"""Connectors, one folder each. They do not import each other; what several share is in a package of ``collector``."""
