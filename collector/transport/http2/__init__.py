"""HTTP/2 on asyncio: libnghttp2 does framing, HPACK and flow control, these modules give it sockets.

``session``            one end of a connection without I/O, over libnghttp2 (``nghttp2``: the library); testable byte by
                       byte.
                       ``events``: what it tells of; ``fields``, ``header_block``: header fields that go out, that come
                       in; ``stream``: what it holds of one stream; ``output``: what it writes at one time
``engine``             its configuration for both roles, and HTTP/2's numbers
``protocol``           an asyncio protocol over it: reading, writing, keepalive; what both roles share
``server``             listening; ``server_connection``: the server's role, ``server_streams``: the compiled part of it,
                       which every
                       request passes; ``first_bytes``: a port that serves HTTP/1.1, too
"""
