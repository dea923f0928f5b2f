"""What has been counted as parts of a checkpoint, and back: resources, series and the totals of the report.

Candidates for exemplars and the rates of the report are not kept; they begin anew.
"""

from typing import Any, Final

import numpy as np

from collector.model.builders import Attributes
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, part_of, within
from connectors.span_metrics.series import Budget, MetricFamily, Resource, Resources
from connectors.span_metrics.state import State

__all__ = ["VERSION", "parts_of", "restore"]

VERSION: Final = 1


def parts_of(state: State) -> dict[str, Part]:
    """The parts. They have copies, so the state may change while they are saved."""
    parts: dict[str, Part] = {"last_flush": state.last_flush, "instance_id": state.instance_id}
    known = sorted(state.resources.known.items())
    parts |= nested(
        "resources",
        nested("table", state.resources.table.snapshot())
        | {
            "known": np.array([slot for slot, _ in known], np.int32),
            "attributes": [resource.attributes.encoded for _, resource in known],
            "services": [resource.service for _, resource in known],
            "common": state.resources.common,
        },
    )
    for name, family in state.families.items():
        parts |= nested(name, _family_parts(family))
    return parts | nested("report", state.report.parts())


def restore(state: State, parts: Parts, elapsed_s: float) -> None:
    """Continue from the parts. ``elapsed_s`` is added to monotonic times.

    Raises:
        CheckpointError, KeyError, TypeError, ValueError: They are not those of such a state, which is useless then.
    """
    state.last_flush, state.instance_id = int(parts["last_flush"]), str(parts["instance_id"])
    _restore_resources(state.resources, within("resources", parts), elapsed_s)
    for name, family in state.families.items():
        _restore_family(family, state.resources, state.budget, within(name, parts), elapsed_s)
    state.report.restore(within("report", parts))
    for family in state.families.values():
        operations = family.table.column("operation")[family.table.live()]
        if (operations >= state.report.operation_count).any():
            raise CheckpointError("a series has an operation that is not in the report")


def _restore_resources(resources: Resources, parts: Parts, elapsed_s: float) -> None:
    resources.table.restore(within("table", parts))
    live = resources.table.live()
    known = part_of(parts, "known", np.int32)
    resources.common = int(parts["common"])
    if not np.array_equal(known, live) or resources.common not in known:
        raise CheckpointError("the resources and their attributes do not belong together")
    encoded, services = parts["attributes"], parts["services"]
    resources.known = {
        slot: Resource(Attributes.from_encoded(attributes), str(service))
        for slot, attributes, service in zip(known.tolist(), encoded, services, strict=True)
    }
    resources.table.column("seen")[live] += elapsed_s


def _family_parts(family: MetricFamily) -> dict[str, Part]:
    slots = family.table.live()
    parts: dict[str, Any] = nested("table", family.table.snapshot())
    parts["attributes"] = [family.attributes[slot].encoded for slot in slots.tolist()]
    parts["overflow"] = np.array(sorted(family.overflow_slots.items()), np.int64).reshape(-1, 2)
    if family.flush_times is not None:
        parts |= nested("flush_times", family.flush_times.snapshot())
    return parts


def _restore_family(family: MetricFamily, resources: Resources, budget: Budget, parts: Parts, elapsed_s: float) -> None:
    family.table.restore(within("table", parts))
    slots = family.table.live()
    column = family.table.column
    owners, named = column("resource")[slots].tolist(), column("is_named")[slots].tolist()
    if not resources.known.keys() >= set(owners):
        raise CheckpointError("a series has a resource that is not known")
    family.attributes = {
        slot: Attributes.from_encoded(encoded)
        for slot, encoded in zip(slots.tolist(), parts["attributes"], strict=True)
    }
    family.overflow_slots = dict(part_of(parts, "overflow", np.int64).tolist())
    if not set(slots.tolist()) >= set(family.overflow_slots.values()):
        raise CheckpointError("an overflow series is not known")
    for slot, owner, is_named in zip(slots.tolist(), owners, named, strict=True):
        if is_named:
            family.named_counts[owner] = family.named_counts.get(owner, 0) + 1
            budget.used += 1
            budget.text_bytes += family.attributes[slot].size_bytes
    column("seen")[slots] += elapsed_s
    column("candidate_count")[slots] = 0
    if family.flush_times is not None:
        family.flush_times.restore(within("flush_times", parts))
        family.flush_times.column("seen")[family.flush_times.live()] += elapsed_s
