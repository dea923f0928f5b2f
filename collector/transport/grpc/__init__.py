"""gRPC for servers and clients: bytes in, bytes out, no generated stubs.

Both roles:

``framing``        messages, time-outs and status texts in HTTP/2 frames
``status``         status codes, and what they mean to a queue

Servers:

``method``         the interface of a server's methods, for both servers
``server``         the server over our own HTTP/2; its calls are in ``unary`` (compiled) and ``streaming``, its own
                   services in ``health`` and ``reflection``
``grpcio_server``  the server over the gRPC library; ``server_base``: what both servers share

Clients:

``client``         the client, over one of two channels
``client_http2``   the channel over our own HTTP/2: ``subchannel`` keeps its connections, ``client_connection`` is one
                   them, ``client_call`` one call
``client_grpcio``  the channel over the gRPC library
``target``         what a client's endpoint names; ``metadata``: metadata as header fields
"""
