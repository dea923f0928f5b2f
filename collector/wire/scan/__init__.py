"""Validates a request to full depth in one pass and indexes it: its items become rows of offsets and numbers.

``check``    the entry points, which validate one request or several at once
``index``    what is indexed on demand: attributes, events, links, exemplars, single fields
``request``  walks the request down to its items; ``traces``, ``metrics`` and ``logs`` walk the items, and ``values``
             their attributes
``readers``  protobuf readers that set the error of the scan
``state``    the rows and the error
``keys``     the distinct attribute keys
``repair``   rewrites the rare request that may pass only after a change
"""
