"""What the processor ``redaction`` does, row by row over protobuf messages: slow, but obvious."""

import base64
import hashlib
import json
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def redacted(request: ExportLogsServiceRequest, options: dict[str, Any], regex: Any) -> ExportLogsServiceRequest:
    """A copy of the request after redaction with ``options``; ``regex`` is a module like ``re``."""
    out = ExportLogsServiceRequest()
    out.CopyFrom(request)
    rules = _Rules(options, regex)
    for group in out.resource_logs:
        rules.attributes(group.resource.attributes)
        for scope in group.scope_logs:
            rules.attributes(scope.scope.attributes)
            for record in scope.log_records:
                rules.attributes(record.attributes)
                if record.HasField("body"):
                    rules.body(record)
    return out


class _Rules:
    def __init__(self, options: dict[str, Any], regex: Any) -> None:
        self.options = options
        self.regex = regex

    def fate(self, key: str) -> str:
        options = self.options
        if key in options.get("ignored_keys", ()) or self.any("ignored_key_patterns", key):
            return "ignored"
        own = ("redacted.keys", "redacted.count", "masked.keys", "masked.count", "ignored.count")
        allowed = [*options.get("allowed_keys", ()), *(f"redaction.{name}" for name in own)]
        if not options.get("allow_all_keys") and key not in allowed:
            return "redacted"
        return "blocked" if self.any("blocked_key_patterns", key) else "checked"

    def any(self, option: str, text: str) -> bool:
        return any(self.regex.search(pattern, text) for pattern in self.options.get(option, ()))

    def mask(self, pattern: str, text: str) -> str:
        name = self.options.get("hash_function", "")
        pieces, at, last = [], 0, -1
        for match in self.regex.finditer(pattern, text):
            if match.start() == match.end() == last:
                continue
            found = match.group(0).encode()
            pieces += [text[at : match.start()], hashlib.new(name, found).hexdigest() if name else "****"]
            at = last = match.end()
        return "".join([*pieces, text[at:]])

    def checked(self, text: str) -> str:
        for pattern in self.options.get("blocked_values", ()):
            if self.regex.search(pattern, text):
                text = self.mask(pattern, text)
        return text

    def attributes(self, attributes: Any) -> None:
        found: dict[str, list[str]] = {"redacted": [], "masked": [], "allowed": [], "ignored": []}
        kept = []
        for pair in list(attributes):
            fate = self.fate(pair.key)
            if fate in {"redacted", "ignored"}:
                found[fate].append(pair.key)
            if fate == "redacted":
                continue
            kept.append(pair)
            if fate == "ignored":
                continue
            text = _text(pair.value) if self.options.get("redact_all_types") else pair.value.string_value
            if self.any("allowed_values", text):
                found["allowed"].append(pair.key)
                continue
            new = self.mask(".*", text) if fate == "blocked" else self.checked(text)
            if fate == "blocked" or new != text:
                found["masked"].append(pair.key)
                pair.value.string_value = new
        copies = [KeyValue.FromString(pair.SerializeToString()) for pair in kept]
        del attributes[:]
        attributes.extend(copies)
        self.summarise(attributes, "redaction", found)

    def body(self, record: Any) -> None:
        found: dict[str, list[str]] = {"redacted": [], "masked": [], "allowed": [], "ignored": []}
        kind = record.body.WhichOneof("value")
        if kind == "kvlist_value":
            self.map(record.body, "", found)
        elif kind == "array_value":
            for place, item in enumerate(record.body.array_value.values):
                self.nested(item, f"[{place}]", found)
        else:
            self.nested(record.body, "body", found)
            found["allowed"] = []
        self.summarise(record.attributes, "redaction.body", found)

    def map(self, value: AnyValue, path: str, found: dict[str, list[str]]) -> None:
        kept = []
        for pair in list(value.kvlist_value.values):
            name = f"{path}.{pair.key}" if path else pair.key
            fate = self.fate(pair.key)
            if fate in {"redacted", "ignored"}:
                found[fate].append(name)
            elif fate == "blocked":
                found["masked"].append(name)
                pair.value.string_value = self.mask(".*", pair.value.string_value)
            else:
                self.nested(pair.value, name, found)
            if fate != "redacted":
                kept.append(KeyValue.FromString(pair.SerializeToString()))
        del value.kvlist_value.values[:]
        value.kvlist_value.values.extend(kept)

    def nested(self, value: AnyValue, path: str, found: dict[str, list[str]]) -> None:
        kind = value.WhichOneof("value")
        if kind == "kvlist_value":
            self.map(value, path, found)
        elif kind == "array_value":
            for place, item in enumerate(value.array_value.values):
                self.nested(item, f"{path}.[{place}]", found)
        elif self.any("allowed_values", _text(value)):
            found["allowed"].append(path)
        elif (new := self.checked(_text(value))) != _text(value):
            found["masked"].append(path)
            value.string_value = new

    def summarise(self, attributes: Any, prefix: str, found: dict[str, list[str]]) -> None:
        for name, keys in found.items():
            if not keys:
                continue
            existing = {pair.key: pair.value for pair in attributes}
            if self.options.get("summary") == "debug" and name != "ignored":
                old = existing.get(f"{prefix}.{name}.keys", AnyValue()).string_value
                _put(attributes, f"{prefix}.{name}.keys").string_value = ",".join(
                    sorted([*keys, *(old.split(",") if old else ())])
                )
            if self.options.get("summary") in {"debug", "info"}:
                old_count = existing.get(f"{prefix}.{name}.count", AnyValue()).int_value
                _put(attributes, f"{prefix}.{name}.count").int_value = old_count + len(keys)


def _put(attributes: Any, key: str) -> AnyValue:
    for pair in attributes:
        if pair.key == key:
            found: AnyValue = pair.value
            return found
    added: AnyValue = attributes.add(key=key).value
    return added


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind in {"kvlist_value", "array_value"}:
        return json.dumps(_plain(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    plain = _plain(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return "" if plain is None else str(plain)


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {pair.key: _plain(pair.value) for pair in value.kvlist_value.values}
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)
