"""``tailrace demo``: the gateway with its embedded default configuration, fed by a simulated platform over real OTLP.

The platform is a process of its own. The demo shows live numbers, and at the end compares what the platform sent with
what is in the gateway's files and on its scrape page. The exit code is 0 if every one of these claims holds.

``command``   the command: ports, gateway, platform, screen, claims
``platform``  the simulated platform, with its ``metrics``
``feed``      the platform's process, which sends with ``sender``
``output``    what the gateway wrote: its trace file and its scrape page
``claims``    the comparison at the end
``screen``    the tables and the trace that are shown
``names``     names that all of them have to agree on
"""

from collector.cli.demo.command import command

__all__ = ["command"]
