"""Compiled kernels over request bytes, and the layout of the index. They know OTLP field numbers and nothing else."""
