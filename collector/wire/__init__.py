"""Compiled kernels over request bytes, and the layout of the index. They know OTLP field numbers and nothing else.

``scan``    validates a request and lists its items; indexes attributes and children when they are needed
``splice``  rewrites a request: patches, selections, joined indexes
``encode``  columns to protobuf messages
``hash``    exact dictionaries of byte slices, keyed 128-bit hashes, slot tables
``json``    OTLP/JSON to protobuf bytes and back

``protobuf`` has the same encodings in Python, for what is encoded or read once per distinct value.
"""
