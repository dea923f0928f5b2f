"""How bytes reach us and leave us: HTTP/2, gRPC, HTTP/1.1, TLS, compression, endpoints, authentication hooks.

Nothing here knows OTLP or any other payload. A server hands whole requests to its caller; a client sends whole
requests.

``http2``        HTTP/2 over libnghttp2, for servers and clients
``grpc``         unary and streaming calls over ``http2``, and over grpcio as an alternative
``http``         HTTP/1.1 and HTTP/2 servers behind one interface; the client that exporters use
``tls``          TLS contexts from the Collector's ``tls`` blocks, with certificates that are reloaded
``compression``  gzip, zstd, snappy, lz4, deflate: bounded when decompressing
``endpoint``     host and port, URLs, Unix sockets, proxies
``ports``        binding, with an error that names the process holding a busy port
``auth``         the hooks through which extensions authenticate callers and supply credentials
``redaction``    keeps credentials out of messages
``error_log``    a rate-limited log of faults that requests can provoke
"""
