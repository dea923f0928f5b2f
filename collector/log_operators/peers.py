"""The attributes that name the two ends of a connection.

Source: opentelemetry-collector-contrib pkg/stanza/operator/helper/ip_resolver.go (v0.156).
"""

import asyncio
import socket
from typing import Any, Final

from collector.text.cache import TextCache

__all__ = ["HostNames", "end_attributes"]

_TIMEOUT_S: Final = 2.0
_LOOK_UPS_MAX: Final = 16


class HostNames:
    """The names of IP addresses, from the resolver of the machine; an address without a name is its own name."""

    def __init__(self) -> None:
        self._names = TextCache[str](max_bytes=1024 * 1024)
        self._running: dict[str, asyncio.Task[str]] = {}

    def known(self, ip: str) -> str:
        """The name, if it is known; else the address, and the name is looked up for the next time."""
        name = self._names.get(ip, "")
        if not name and ip not in self._running and len(self._running) < _LOOK_UPS_MAX:
            self._start(ip)
        return name or ip

    async def find(self, ip: str) -> str:
        """The name; the address after two seconds."""
        name = self._names.get(ip, "")
        if name:
            return name
        if ip not in self._running and len(self._running) >= _LOOK_UPS_MAX:
            return ip
        return await asyncio.shield(self._running.get(ip) or self._start(ip))

    async def close(self) -> None:
        """End the look-ups that are running."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start(self, ip: str) -> asyncio.Task[str]:
        task = asyncio.ensure_future(self._look_up(ip))
        self._running[ip] = task
        task.add_done_callback(lambda _: self._running.pop(ip, None))
        return task

    async def _look_up(self, ip: str) -> str:
        try:
            look_up = asyncio.get_running_loop().getnameinfo((ip, 0), socket.NI_NAMEREQD)
            name, _ = await asyncio.wait_for(look_up, _TIMEOUT_S)
        except (OSError, TimeoutError):
            name = ip
        self._names.put(ip, name)
        return name


def end_attributes(end: str, address: Any, name: str) -> dict[str, str]:
    """The attributes of one end, ``peer`` or ``host``, of a connection."""
    return {f"net.{end}.ip": str(address[0]), f"net.{end}.port": str(address[1]), f"net.{end}.name": name}
