"""Statements run by ours and by the Go collector's transform processor over the same requests.

``tests/data/ottl_cases.txt`` has a case a line: ``context: statement ;; statement``, or ``-@signal: …`` where the
context is inferred. A line ``difference REASON`` says that what follows it, up to the next empty line, differs from
the Collector on purpose. ``tests/data/ottl_golden.json`` has what the Collector made of each line:
``python tests/support/ottl_cases.py PROGRAM`` records it, with the program that ``make backends`` builds as ``ottl``.
"""

import base64
import hashlib
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from ottl_data import logs_data, metrics_data, traces_data
from pydantic import ValidationError

from collector.model import Signal, batch_type
from collector.ottl.draft import Draft
from processors.transform.config import TransformConfig

DATA = Path(__file__).parents[1] / "data"
CASES, GOLDEN = DATA / "ottl_cases.txt", DATA / "ottl_golden.json"
SIGNALS = {"span": "traces", "spanevent": "traces", "metric": "metrics", "datapoint": "metrics", "log": "logs"}
REQUESTS = {"traces": traces_data(), "metrics": metrics_data(), "logs": logs_data()}
KEYS = {"traces": "trace_statements", "metrics": "metric_statements", "logs": "log_statements"}


@dataclass(frozen=True)
class Case:
    """One line."""

    line: str
    signal: str
    group: dict[str, Any]
    difference: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the processor."""
        return {KEYS[self.signal]: [self.group], "error_mode": "ignore"}


@dataclass(frozen=True)
class Outcome:
    """What came of a case: refused, or the number of failures and a digest of the request after it."""

    refused: bool = False
    failures: int = 0
    digest: str = ""
    detail: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> list[Any]:
        """What is compared and recorded."""
        return ["refused"] if self.refused else [self.failures, self.digest]


def cases() -> list[Case]:
    """All cases."""
    found: list[Case] = []
    difference = ""
    for line in CASES.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            difference = ""
        elif line.startswith("difference "):
            difference = line.removeprefix("difference ")
        elif not line.startswith("#"):
            where, _, text = line.partition(":")
            context, at, signal = where.partition("@")
            group: dict[str, Any] = {"statements": [part.strip() for part in text.split(" ;; ")]}
            if context != "-":
                group["context"] = context
            found.append(Case(line, signal if at else SIGNALS[context], group, difference))
    return found


def ours(case: Case) -> Outcome:
    """What we make of a case."""
    try:
        config = TransformConfig.model_validate(case.config)
    except ValidationError as exc:
        return Outcome(refused=True, detail=str(exc))
    failed: list[int] = []
    reasons: list[str] = []

    def report(statement: str, row_count: int, reason: Any, *, silent: bool) -> None:
        del silent
        failed.append(row_count)
        reasons.append(f"{statement}: {reason()}")

    signal = Signal(case.signal)
    draft = Draft(batch_type(signal).from_wire(REQUESTS[case.signal].SerializeToString()))
    for group in config.groups(signal):
        group.apply(draft, report)
    wire = draft.finished().wire
    batch_type(signal).from_wire(wire)  # what we made is valid
    return Outcome(failures=sum(failed), digest=digest(case.signal, wire), detail="; ".join(reasons[:1]))


def theirs(program: str, listed: list[Case]) -> list[Outcome]:
    """What the Collector makes of cases."""
    requests = [
        {"signal": case.signal, "config": case.config, "data": encoded(REQUESTS[case.signal])} for case in listed
    ]
    done = subprocess.run(
        [program], input="".join(json.dumps(request) + "\n" for request in requests), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    outcomes = []
    for case, line in zip(listed, done.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        if "data" not in answer:
            outcomes.append(Outcome(refused="invalid" in answer, detail=str(answer)))
            continue
        failures = answer.get("failures") or []
        wire = base64.b64decode(answer["data"])
        outcomes.append(Outcome(failures=len(failures), digest=digest(case.signal, wire), detail=str(failures[:1])))
    return outcomes


def encoded(message: Message) -> str:
    """A message for the program."""
    return base64.b64encode(message.SerializeToString()).decode()


def digest(signal: str, wire: bytes) -> str:
    """A digest of the content of a request: empty messages, the order of attributes and of points do not count."""
    try:
        message = type(REQUESTS[signal]).FromString(wire)
    except Exception as exc:
        return f"invalid: {type(exc).__name__}"
    return hashlib.sha256(repr(content(message)).encode()).hexdigest()[:20]


def content(message: Any) -> Any:
    """A message as plain values."""
    kind = message.DESCRIPTOR.name
    found = {}
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            items = list(value) if hasattr(value, "append") else value
            found[field.name] = "nan" if isinstance(items, float) and math.isnan(items) else items
        elif hasattr(value, "add"):
            entries = [content(item) for item in value]
            if field.message_type.name == "KeyValue":
                merged = {item.key: entry for item, entry in zip(value, entries, strict=True)}
                entries = [merged[key] for key in sorted(merged)]
            elif field.name == "data_points":
                entries.sort(key=repr)
            if entries or kind in {"ArrayValue", "KeyValueList"}:
                found[field.name] = entries
        else:
            inner = content(value)
            if inner or kind == "AnyValue":
                found[field.name] = inner
    return sorted(found.items())


def golden() -> dict[str, list[Any]]:
    """What the Collector made of each line."""
    found: dict[str, list[Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Record what the Collector makes of all cases."""
    listed = cases()
    outcomes = theirs(sys.argv[1], listed)
    for case, outcome in zip(listed, outcomes, strict=True):
        own = ours(case)
        if (own == outcome) == bool(case.difference):
            print(f"{case.line}\n  ours  {own.key} {own.detail}\n  theirs {outcome.key} {outcome.detail}")
    table = {case.line: outcome.key for case, outcome in zip(listed, outcomes, strict=True)}
    GOLDEN.write_text(json.dumps(table, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
