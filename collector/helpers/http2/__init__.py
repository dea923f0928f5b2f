"""HTTP/2 on asyncio: libnghttp2 does framing, HPACK and flow control, these modules give it sockets.

``engine``    the binding of libnghttp2, behind the few methods we use; testable byte by byte
``protocol``  an asyncio protocol over it: reading, writing, keepalive; what both roles share
"""
