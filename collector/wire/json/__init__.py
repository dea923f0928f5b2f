"""OTLP/JSON to protobuf bytes and back, without message objects in between.

``schema``  the messages and fields, from the descriptors of opentelemetry-proto, so both directions agree
``read``    JSON to protobuf: orjson parses, and a walk over its dictionaries writes protobuf
``write``   protobuf to JSON, in one pass over the bytes

What a request says (ids of zeros, metric names, the depth of AnyValues) is not validated here: the bytes go through the
door like any others.

Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding" (ids are hex, enums are integers, unknown
fields are ignored), and the JSON mapping of protobuf for the rest. Where the Collector accepts more (snake_case keys,
names of enum values, null), so does this.
"""

from collector.wire.json.read import from_json
from collector.wire.json.schema import NESTING_MAX
from collector.wire.json.write import to_json

__all__ = ["NESTING_MAX", "from_json", "to_json"]
