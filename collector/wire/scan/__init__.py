"""The index of a request: validated to full depth in one pass, its items listed as rows of offsets and numbers.

``check``    the entry points: validate one request or several at once
``index``    what is indexed only when it is asked for: attributes, events, links, exemplars, single fields
``request``  the walk from the request down to its items; ``traces``, ``metrics``, ``logs`` walk the items, ``values``
             their attributes
``readers``  protobuf readers that note an error in the scan; ``state`` the rows and the error; ``keys`` the distinct
             attribute keys
``repair``   rewrites the rare request that may pass only after a change
"""
