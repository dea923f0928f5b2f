"""HTTP servers for component authors, whose routes do not depend on the version of HTTP; and HTTP clients.

``server`` listens. ``http1`` implements HTTP/1.1, ``http2`` handles the streams of an HTTP/2 server. ``request`` holds
what they have in common: routes, and requests from head to response; ``policy`` the rules of one server: CORS,
authentication, limits. ``client`` sends requests on the connections of a ``pool``.
"""

from collector.transport.http.request import Request, Route
from collector.transport.http.response import Refused, Response
from collector.transport.http.server import HTTPServer

__all__ = ["HTTPServer", "Refused", "Request", "Response", "Route"]
