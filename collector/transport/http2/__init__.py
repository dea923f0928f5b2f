"""HTTP/2 on asyncio. libnghttp2 does framing, HPACK and flow control; these modules connect it to sockets.

Without I/O, testable byte by byte:

``session``             one end of a connection, over libnghttp2 (``nghttp2`` opens the library)
``sessions``            creates sessions with our limits for servers and clients; ``codes``: HTTP/2's numbers
``events``              what a session reports
``header_fields``       header fields to send; ``header_block``: header fields received
``stream``, ``output``  a session's state of one stream; the bytes a session writes at one time

On asyncio:

``protocol``            an asyncio protocol around a session: reading, writing, keepalive; shared by both roles
``client``              opens client connections: TCP, Unix sockets, TLS, proxies
``server``              listens; ``server_connection``: one accepted connection, on top of ``server_streams``, its
                        compiled part, which every request passes
``protocol_detection``  a port that serves HTTP/1.1 as well
"""
