"""Names the platform, the gateway's configuration and the claims have to agree on."""

from typing import Final

__all__ = ["API", "GPU_HOST", "HOST_PREFIX", "SERVICES"]

HOST_PREFIX: Final = "tailrace-demo-"
"""Every host of the simulated platform; spans of other hosts are the user's own."""
GPU_HOST: Final = HOST_PREFIX + "gpu"
"""As ``gpu::simulated::host_name`` in config/default.yaml."""
API: Final = "backend-api"
"""The service that counts requests."""
SERVICES: Final = {API: HOST_PREFIX + "api", "embedding-server": GPU_HOST, "vector-db": HOST_PREFIX + "vdb"}
"""Service to host."""
