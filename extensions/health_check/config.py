"""Configuration of ``health_check``. Source: opentelemetry-collector-contrib extension/healthcheckextension config.go."""

from pydantic import Field, field_validator

from config.blocks import ComponentConfig, Duration, HTTPServerConfig

__all__ = ["HealthCheckConfig", "PipelineCheck", "ResponseBody"]


class ResponseBody(ComponentConfig):
    """What is answered instead of the JSON document."""

    healthy: str = ""
    unhealthy: str = ""


class PipelineCheck(ComponentConfig):
    """``check_collector_pipeline``: whether failing exporters make us unhealthy."""

    enabled: bool = False
    interval: Duration = Field(default=300.0, gt=0)
    """Read, and not acted on: the exporters' own checks say since when they fail."""
    exporter_failure_threshold: int = Field(default=5, ge=1)
    """Read, and not acted on, as ``interval``."""


class HealthCheckConfig(HTTPServerConfig):
    """``confighttp.ServerConfig`` and three keys."""

    endpoint: str = "localhost:13133"
    path: str = "/"
    """``/`` answers on every path."""
    response_body: ResponseBody | None = None
    check_collector_pipeline: PipelineCheck = PipelineCheck()

    @field_validator("path")
    @classmethod
    def _rooted(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} must begin with /")
        return path
