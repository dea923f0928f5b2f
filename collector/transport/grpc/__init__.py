"""gRPC for servers and clients: bytes in, bytes out, no generated stubs.

``wire``           messages, time-outs, status texts as they stand in HTTP/2 frames
``method``         what a server's methods see, whichever server it is
``server``         the server over HTTP/2 of our own; ``unary`` (compiled) and ``streaming``: its calls; ``health`` and
                   ``reflection``:
                   the services it brings
``grpcio_server``  the server over the gRPC library
"""
