"""Configuration of ``metrics_transform``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/metricstransformprocessor config.go, factory.go.
"""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from collector.otlp.merge_points import Aggregation
from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig

__all__ = ["MetricsTransformConfig", "OperationConfig", "TransformConfig", "ValueAction"]


class ValueAction(ComponentConfig):
    """A text of a label, and what replaces it."""

    value: str = ""
    """The text to replace."""
    new_value: str = ""
    """The text that replaces it; ``{{version}}`` stands for the version of Tailrace."""


class OperationConfig(ComponentConfig):
    """A change of the points of a metric."""

    action: Literal[
        "add_label",
        "update_label",
        "delete_label_value",
        "toggle_scalar_data_type",
        "experimental_scale_value",
        "aggregate_labels",
        "aggregate_label_values",
    ]
    """What is done."""
    label: str = ""
    """The label, of the actions that change, delete or aggregate values of one. Required for update_label."""
    new_label: str = ""
    """The new name of the label (update_label), or the name of the label to add (add_label, where it is required)."""
    label_set: tuple[str, ...] = ()
    """aggregate_labels: the labels that remain."""
    aggregation_type: Literal["", "sum", "mean", "min", "max", "count", "median"] = ""
    """aggregate_labels, aggregate_label_values: what becomes of the values of points that are merged. Histograms are
    always added up. Empty: the first value stays.
    """
    aggregated_values: tuple[str, ...] = ()
    """aggregate_label_values: the texts of the label that become ``new_value``."""
    new_value: str = ""
    """The text of the new label (add_label, where it is required) or of the aggregated values; ``{{version}}`` stands
    for the version of Tailrace.
    """
    value_actions: tuple[ValueAction, ...] = ()
    """update_label: texts to replace. Of several with the same value the last one counts."""
    experimental_scale: float = 0.0
    """experimental_scale_value: the factor, which must not be 0."""
    label_value: str = ""
    """delete_label_value: points whose label has this text are dropped."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        for action, key in (
            ("update_label", "label"),
            ("add_label", "new_label"),
            ("add_label", "new_value"),
            ("experimental_scale_value", "experimental_scale"),
        ):
            if self.action == action and not getattr(self, key):
                raise ValueError(f"{key}: required for the action {action}")
        return self

    @property
    def aggregation(self) -> Aggregation | None:
        """What becomes of values; None: the first one stays."""
        return self.aggregation_type or None


class TransformConfig(ComponentConfig):
    """Which metrics are changed, and how."""

    include: str = Field(min_length=1)
    """The name of the metric, or a regular expression that must match somewhere in the name."""
    match_type: Literal["", "strict", "regexp"] = "strict"
    """Whether ``include`` and ``experimental_match_labels`` are texts (strict) or regular expressions (regexp)."""
    experimental_match_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that points must have. A label that is absent, or is not a text, counts as empty."""
    action: Literal["insert", "update", "combine", "group"]
    """``update`` changes the metrics; ``insert`` changes copies of them; ``combine`` merges the metrics of a scope into
    one; ``group`` moves them to a resource of their own.
    """
    new_name: str = ""
    """The new name. Required for insert and combine. With regexp, ``${1}`` and ``${name}`` stand for groups."""
    group_resource_labels: dict[str, str] | None = None
    """group: attributes that the new resource has in addition. Required there."""
    aggregation_type: Literal["", "sum", "mean", "min", "max", "count", "median"] = ""
    """combine: what becomes of the values of equal points. Required there."""
    submatch_case: Literal["", "lower", "upper"] = ""
    """combine: the case of labels that are made from groups of ``include``. Empty: as it is."""
    operations: tuple[OperationConfig, ...] = ()
    """Changes of the points of the resulting metrics, in this order."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.is_regexp:
            for pattern in (self.include, *self.experimental_match_labels.values()):
                compile_pattern(pattern)
        for action, key in (("insert", "new_name"), ("combine", "new_name"), ("combine", "aggregation_type")):
            if self.action == action and not getattr(self, key):
                raise ValueError(f"{key}: required for the action {action}")
        if self.action == "group" and self.group_resource_labels is None:
            raise ValueError("group_resource_labels: required for the action group")
        return self

    @property
    def is_regexp(self) -> bool:
        """Whether texts to match are regular expressions."""
        return self.match_type == "regexp"

    @property
    def aggregation(self) -> Aggregation | None:
        """What becomes of values; None: the first one stays."""
        return self.aggregation_type or None


class MetricsTransformConfig(ComponentConfig):
    """Configuration of ``metrics_transform``."""

    transforms: tuple[TransformConfig, ...] = ()
    """The transformations. Each one works on the results of those before it."""

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Settings that are accepted, and probably not what was meant."""
        for number, transform in enumerate(self.transforms):
            for place, operation in enumerate(transform.operations):
                if operation.action.startswith("aggregate_") and not operation.aggregation_type:
                    yield (
                        f"transforms[{number}].operations[{place}].aggregation_type",
                        "is not given: of points that are merged, only the first value stays",
                    )
