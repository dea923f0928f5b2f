"""Names that the platform, the gateway's configuration and the claims have to agree on."""

from typing import Final

__all__ = ["API", "EMBEDDING_SERVER", "GPU_HOST", "HOST_PREFIX", "SERVICES", "VECTOR_DB"]

HOST_PREFIX: Final = "tailrace-demo-"
"""Prefix of every host of the simulated platform; spans from other hosts are the user's own."""
GPU_HOST: Final = HOST_PREFIX + "gpu"
"""The same as ``gpu::simulated::host_name`` in config/default.yaml."""
API: Final = "backend-api"
"""The service that counts requests."""
EMBEDDING_SERVER: Final = "embedding-server"
VECTOR_DB: Final = "vector-db"
SERVICES: Final = {API: HOST_PREFIX + "api", EMBEDDING_SERVER: GPU_HOST, VECTOR_DB: HOST_PREFIX + "vdb"}
"""The host of each service."""
