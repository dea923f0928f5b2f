"""HTTP for component authors: a server whose routes know no version of the protocol, and what it is made of.

``server`` listens, ``http1`` speaks HTTP/1.1, ``http2`` takes streams of an HTTP/2 server, ``service`` holds what every
version keeps to: routes, CORS, authentication, the bounded reading and unpacking of bodies. ``pool`` has the
connections of the client, :mod:`collector.transport.http.client`.
"""

from collector.transport.http.answer import Answer, Refused
from collector.transport.http.server import HTTPServer
from collector.transport.http.service import Request, Route

__all__ = ["Answer", "HTTPServer", "Refused", "Request", "Route"]
