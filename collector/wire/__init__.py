"""Compiled kernels over OTLP bytes: index, rewrite, hash, JSON. They know field numbers and nothing else of the product."""
