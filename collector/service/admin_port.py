"""Where the admin server listens, over reloads that change its address."""

from collections.abc import Callable
from typing import Any, TypeAlias

from collector.service.admin import AdminServer
from collector.service.graph import StartError

__all__ = ["AdminPort"]

_Address: TypeAlias = tuple[str, int]


class AdminPort:
    """The admin server in use, and during a reload the one that takes its place."""

    def __init__(self, make: Callable[[], AdminServer], log: Any) -> None:
        self._make, self._log = make, log
        self._server: AdminServer | None = None
        self._address: _Address | None = None
        self._next: AdminServer | None = None
        self._next_address: _Address | None = None

    @property
    def port(self) -> int:
        """The port in use; 0 if nothing is served."""
        return self._server.port if self._server is not None else 0

    async def start(self, address: _Address | None) -> None:
        """Serve ``address``; None: nothing is served.

        Raises:
            StartError: the address cannot be used.
        """
        self._server = await self._started(address)
        self._address = address

    async def stop(self) -> None:
        """Stop serving. Safe before ``start`` and when called twice."""
        server, self._server = self._server, None
        await _stop(server)
        await self.undo()

    async def prepare(self, address: _Address | None) -> None:
        """Serve ``address`` beside the present one, until :meth:`apply` or :meth:`undo`.

        Two servers cannot share a port, so if only the host differs they change places in ``apply``.

        Raises:
            StartError: the address cannot be used.
        """
        self._next_address = address
        if address != self._address and not _is_same_port(address, self._address):
            self._next = await self._started(address)

    async def undo(self) -> None:
        """Stop what ``prepare`` has started."""
        prepared, self._next = self._next, None
        self._next_address = self._address
        await _stop(prepared)

    async def apply(self) -> None:
        """Serve what ``prepare`` was called with, and nothing else."""
        address, previous = self._next_address, self._address
        if address == previous:
            return
        replaced, self._server, self._next = self._server, self._next, None
        self._address = address
        await _stop(replaced)
        if not _is_same_port(address, previous):
            return
        for candidate in (address, previous):
            try:
                await self.start(candidate)
            except StartError as error:
                self._log.error("service::telemetry::metrics cannot be applied", error=str(error))
            else:
                break

    async def _started(self, address: _Address | None) -> AdminServer | None:
        if address is None:
            return None
        server = self._make()
        try:
            await server.start(*address)
        except OSError as error:
            raise StartError(error.strerror or str(error)) from error
        return server


async def _stop(server: AdminServer | None) -> None:
    if server is not None:
        await server.stop()


def _is_same_port(a: _Address | None, b: _Address | None) -> bool:
    """Whether the two are different addresses with one port."""
    return a is not None and b is not None and a[0] != b[0] and a[1] == b[1] != 0
