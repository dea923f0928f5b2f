"""Exporters, one package each. They do not import each other; code that several share is in packages of `collector`."""
