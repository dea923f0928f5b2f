"""``tailrace demo``: the gateway on its embedded default, fed over real OTLP by a simulated platform in a process of its own.

Shows what happens while it happens, and at the end both sides of each claim: what the platform sent, and what came out
of the gateway's own files and scrape page. Exit code 0 when every claim holds.
"""

from collector.cli.demo.command import command

__all__ = ["command"]
