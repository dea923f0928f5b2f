"""Receiving and sending bytes: HTTP/2, gRPC, HTTP/1.1, TLS, compression, endpoints, authentication hooks.

Nothing here knows OTLP or any other payload. A server passes whole requests to its user; a client sends whole requests.

``http2``        HTTP/2 over libnghttp2, for servers and clients
``grpc``         unary and streaming calls over ``http2``, and over grpcio as an alternative
``http``         HTTP/1.1 and HTTP/2 servers behind one interface; the client that exporters use
``tls``          TLS contexts from the Collector's ``tls`` blocks, with certificates that are reloaded
``compression``  gzip, zstd, snappy, lz4, deflate: bounded when decompressing
``endpoint``     where a server listens: host and port, or a Unix socket; whether a peer is on this machine
``listener``     a listening socket for asyncio protocols
``ports``        the error for a busy port, which names the process that has it
``auth``         the hooks through which extensions authenticate callers and supply credentials
``user_agent``   the name of our clients
``redaction``    keeps credentials out of messages
``error_log``    a rate-limited log of errors that requests can provoke
"""
