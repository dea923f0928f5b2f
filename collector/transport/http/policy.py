"""The rules of one HTTP server, from its configuration: CORS, authentication, encodings, limits, response headers.

Source: open-telemetry/opentelemetry-collector config/confighttp.
"""

import asyncio
import email.utils
from collections.abc import Coroutine
from typing import Any, Final

from collector.api import Admission, Clock, Host
from collector.transport.auth import Authenticate, find_authenticator
from collector.transport.error_log import ErrorLog
from collector.transport.http.cors import CORS
from collector.transport.http.headers import header_bytes
from collector.transport.http.response import Refused
from config.blocks import HTTPServerConfig

__all__ = ["RequestPolicy"]

# Encodings that are accepted together with a configured one.
_OTHER_NAMES: Final = {"gzip": "x-gzip", "snappy": "x-snappy-framed"}


class RequestPolicy:
    """What applies to all requests of a server. ``key``: path of its configuration block, for messages."""

    def __init__(self, config: HTTPServerConfig, *, key: str, clock: Clock, log: Any) -> None:
        self.config = config
        self.cors = CORS(config.cors) if config.cors is not None and config.cors.allowed_origins else None
        self.encodings = frozenset(config.compression_algorithms) | {
            other for name, other in _OTHER_NAMES.items() if name in config.compression_algorithms
        }
        self.max_bytes = config.max_request_body_size or type(config).model_fields["max_request_body_size"].default
        self.response_headers = [(name, value.get_secret_value()) for name, value in config.response_headers.items()]
        self.authenticate: Authenticate | None = None
        self.admission: Admission
        self.log_error = ErrorLog(
            log, clock, "a request failed inside the server and was answered with 500", config=key
        )
        self._key = key
        self._clock = clock
        self._now_s = -1
        self._date = ""
        self._common_headers = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, host: Host) -> None:
        """Find the authenticator and the memory budget.

        Raises:
            ValueError: there is no such authenticator.
        """
        self.admission = host.admission
        self.authenticate = find_authenticator(host, self.config.auth, self._key)

    def too_large(self) -> Refused:
        """Return the refusal of a body over the limit."""
        return Refused(
            413, f"request body too large: at most {self.max_bytes} bytes, also after decompression", reason="too_large"
        )

    def date(self) -> str:
        """Return the value of the Date header."""
        self.common_headers()
        return self._date

    def common_headers(self) -> bytes:
        """Return the lines that every HTTP/1.1 response has, ``response_headers`` and Date; made once per second."""
        now_s = self._clock.time_unix_nano() // 1_000_000_000
        if now_s != self._now_s:
            self._now_s = now_s
            self._date = email.utils.formatdate(now_s, usegmt=True)
            self._common_headers = header_bytes([*self.response_headers, ("Date", self._date)])
        return self._common_headers

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run ``coroutine`` as a task that this object owns."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_tasks(self) -> None:
        """Cancel the tasks that are still running, at shutdown."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
