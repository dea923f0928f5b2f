"""gRPC for servers and clients: bytes in, bytes out, no generated stubs.

``wire``  messages, time-outs, status texts as they stand in HTTP/2 frames
"""
