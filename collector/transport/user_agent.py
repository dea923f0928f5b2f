"""The name under which our clients introduce themselves to servers, over HTTP and gRPC alike."""

from collector.api import Settings

__all__ = ["user_agent"]


def user_agent(settings: Settings) -> str:
    """Return the User-Agent of a component's clients, for example ``tailrace/1.2.0``."""
    return f"tailrace/{settings.version or 'unknown'}"
