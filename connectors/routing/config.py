"""Configuration of ``routing``. Source: opentelemetry-collector-contrib connector/routingconnector config.go."""

import re
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from collector.ottl import ErrorMode
from config.blocks import ComponentConfig

__all__ = ["RouteConfig", "RoutingConfig"]

_STATEMENT: Final = re.compile(r"\s*route\(\s*\)\s*(?:where\b(.*))?", re.DOTALL)
_REQUEST: Final = re.compile(r'\s*request\["([^"]+)"\]\s*(==|!=)\s*"([^"]*)"\s*')


class RouteConfig(ComponentConfig):
    """One row of the table."""

    context: Literal["", "request", "resource", "scope", "span", "metric", "datapoint", "log"] = ""
    """What the condition is about. Empty: what its paths say (``span.name``), else the resource."""
    condition: str = ""
    """An OTTL condition, or for the context request: ``request["header"] == "value"`` or ``!=``."""
    statement: str = ""
    """The same as an OTTL statement: ``route() where condition``, or ``route()`` for everything."""
    action: Literal["move", "copy"] = "move"
    """move: rows further down do not see what this one matches; copy: they do."""
    pipelines: tuple[str, ...] = Field(min_length=1)
    """The pipelines that get what matches."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.condition.strip()) == bool(self.statement.strip()):
            raise ValueError("exactly one of condition and statement is required")
        if self.statement and not _STATEMENT.fullmatch(self.statement):
            raise ValueError(
                f"statement: {self.statement!r} is not supported; write route() where <condition>, and change data "
                "with the processor transform"
            )
        if self.context == "request":
            if self.statement:
                raise ValueError("the context request needs a condition, not a statement")
            self.request()
        return self

    def text(self) -> str:
        """The condition; empty if everything matches."""
        if self.condition:
            return self.condition
        match = _STATEMENT.fullmatch(self.statement)
        return (match[1] or "").strip() if match else ""

    def request(self) -> tuple[str, bool, str]:
        """For the context request: (header in lower case, whether it must be equal, value)."""
        match = _REQUEST.fullmatch(self.condition)
        if match is None:
            raise ValueError(f'condition: expected request["header"] == "value" or !=, got {self.condition!r}')
        return match[1].lower(), match[2] == "==", match[3]


class RoutingConfig(ComponentConfig):
    """Configuration of ``routing``."""

    table: tuple[RouteConfig, ...] = Field(min_length=1)
    """The routes, tried in this order."""
    default_pipelines: tuple[str, ...] = ()
    """The pipelines that get what no route moved elsewhere. Empty: what no pipeline gets is dropped."""
    error_mode: ErrorMode = "ignore"
    """What happens to a row whose condition cannot be evaluated. ignore: it does not match, which is logged; silent:
    the same without a log line; propagate: the batch is dropped.
    """
