"""OTLP/JSON to protobuf bytes and back, without message objects in between.

``repair``  JSON text that is not valid Unicode
``schema``  the messages and fields, from the descriptors of opentelemetry-proto, so both directions agree
``read``    JSON to protobuf: orjson parses, and a walk over its dictionaries writes protobuf
``write``   protobuf to JSON, in one pass over the bytes

What a request says (the length of ids, metric names, the depth of AnyValues) is not validated here: the bytes go
through the door like any others.

Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding" (ids are hex, enums are integers, unknown
fields are ignored), and the JSON mapping of protobuf for the rest. Where the Collector accepts more (snake_case keys,
names of enum values, null), so does this: ignoring such keys, as the specification says, would lose data silently.
"""

from collector.wire.json.read import from_json
from collector.wire.json.schema import NESTING_MAX
from collector.wire.json.write import to_json

__all__ = ["NESTING_MAX", "from_json", "to_json"]
