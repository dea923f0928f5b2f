"""Which version of the protocol a receiver gets: 2.0 if that is configured, and 1.0 where the receiver knows no other.

Source: the remote-write specification 2.0, "Required Written Response Headers", "Backward and forward compatibility".
"""

from typing import Any, Final

from collector.api import Clock, PermanentError
from collector.transport.http.client import HTTPClient
from exporters.prometheus_remote_write.requests import WriteRequest

__all__ = ["V1_HEADERS", "VersionChoice"]

V1_HEADERS: Final = {"X-Prometheus-Remote-Write-Version": "0.1.0"}
_V2_HEADERS: Final = {"X-Prometheus-Remote-Write-Version": "2.0.0"}
_V1_CONTENT_TYPE: Final = "application/x-protobuf"
_V2_CONTENT_TYPE: Final = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
_WRITTEN_HEADERS: Final = tuple(
    f"x-prometheus-remote-write-{what}-written".encode() for what in ("samples", "histograms", "exemplars")
)
_RETRY_AFTER_S: Final = 3600.0  # receivers are updated


class VersionChoice:
    """Posts requests to one receiver, in the version that it understands."""

    def __init__(self, client: HTTPClient, url: str, clock: Clock, log: Any, *, prefers_v2: bool) -> None:
        """``prefers_v2``: whether version 2.0 is used at all; requests must have their details then."""
        self.prefers_v2 = prefers_v2
        self._client, self._url, self._clock, self._log = client, url, clock, log
        self._uses_v1_until_s = float("-inf")

    def uses_v2(self) -> bool:
        """Whether the next request is sent as version 2.0."""
        return self.prefers_v2 and self._clock.monotonic_s() >= self._uses_v1_until_s

    async def post(self, request: WriteRequest) -> None:
        """Send the request, as version 1.0 after the receiver has not understood version 2.0. Raises as the client."""
        if self.uses_v2() and request.details is not None and await self._post_v2(request.as_v2()):
            return
        await self._client.post(self._url, request.body, content_type=_V1_CONTENT_TYPE)

    async def _post_v2(self, body: bytes) -> bool:
        """Send a request of version 2.0. False: the receiver does not know that version and has stored nothing."""
        if not body:
            return True  # only metadata, which each series of version 2.0 has itself
        try:
            response = await self._client.post(self._url, body, content_type=_V2_CONTENT_TYPE, headers=_V2_HEADERS)
        except PermanentError as exc:
            if exc.reason != "http_415":
                raise
            self._fall_back("it answered 415 Unsupported Media Type")
            return False
        if any(name in response.headers for name in _WRITTEN_HEADERS):
            return True
        # A receiver of version 1.0 finds no series in such a request and accepts it.
        self._fall_back("its response has no X-Prometheus-Remote-Write-*-Written header")
        return False

    def _fall_back(self, why: str) -> None:
        if self.uses_v2():
            self._log.warning(
                "the receiver does not understand remote write 2.0 and is sent version 1.0; 2.0 is tried again in an"
                " hour",
                why=why,
            )
        self._uses_v1_until_s = self._clock.monotonic_s() + _RETRY_AFTER_S
