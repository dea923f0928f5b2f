"""Whatever pydantic reports reaches the user as a sentence of ours."""

from enum import Enum
from typing import Annotated, Literal

import pytest
from pydantic import Discriminator, Field, Tag
from pydantic_core import PydanticCustomError, core_schema

from config.blocks import ByteSize, ComponentConfig, Duration, Secret
from config.validation import parse_model
from config.yaml import Position, parse


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Block(ComponentConfig):
    size: ByteSize = 0


class Refusing:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        def refuse(value):
            raise PydanticCustomError("of_a_plug_in", "the moon is full")

        return core_schema.no_info_plain_validator_function(refuse)


def kind_of(value):
    return "text" if isinstance(value, str) else "block" if isinstance(value, dict) else None


class Model(ComponentConfig):
    count: int = Field(default=2, gt=1, le=9)
    even: int = Field(default=2, multiple_of=2)
    ratio: float = Field(default=0.5, lt=1)
    finite: float = Field(default=0.5, allow_inf_nan=False)
    wait: Duration = Field(default=5.0, ge=1, le=90)
    size: ByteSize = 0
    names: tuple[str, ...] = Field(default=("a",), min_length=1, max_length=2)
    many: tuple[str, ...] = Field(default=("a", "b"), min_length=2)
    word: str = Field(default="ab", min_length=2, max_length=3, pattern="^[a-z]+$")
    filled: str = Field(default="a", min_length=1)
    password: Secret = Field(default=Secret("abcd"), min_length=4)
    colour: Colour = Colour.RED
    mode: Literal["", "on"] = ""
    text_or_block: str | Block = ""
    tagged: Annotated[Annotated[str, Tag("text")] | Annotated[Block, Tag("block")], Discriminator(kind_of)] = ""
    by_field: Annotated["First | Second", Field(discriminator="kind")] | None = None
    refused: Refusing | None = None


class First(ComponentConfig):
    kind: Literal["first"]


class Second(ComponentConfig):
    kind: Literal["second"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 1", "count: the value must be greater than 1, got 1"),
        ("count: 10", "count: the value must be at most 9, got 10"),
        ("count: 99999999999999999999", "count: expected a whole number, got 1e+20"),
        ("count: '5'", "count: expected a whole number, got '5'; write it without quotes"),
        ("count: [5]", "count: expected a whole number, got a list"),
        ("even: 3", "even: the value must be a multiple of 2, got 3"),
        ("ratio: 1", "ratio: the value must be less than 1, got 1"),
        ("finite: .inf", "finite: expected a finite number, got inf"),
        ("wait: 5", "wait: a duration needs a unit: write 5s or 5ms"),
        ("wait: {s: 5}", "wait: expected a duration, got a mapping (examples: 5s, 1m30s, 250ms)"),
        ("wait: [5s]", "wait: expected a duration, got a list (examples: 5s, 1m30s, 250ms)"),
        ("wait: true", "wait: expected a duration, got true (examples: 5s, 1m30s, 250ms)"),
        ("wait: 10ms", "wait: the value must be at least 1s, got '10ms'"),
        ("wait: 1h", "wait: the value must be at most 90s, got '1h'"),
        ("size: -1", "size: the value must be at least 0, got -1"),
        ("size: 1.5", "size: expected a whole number, got 1.5"),
        ("names: []", "names: the list must not be empty"),
        ("names: [a, b, c]", "names: expected at most 2 entries, got 3"),
        ("names: a", "names: expected a list, got 'a'"),
        ("many: [a]", "many: expected at least 2 entries, got 1"),
        ("word: a", "word: expected at least 2 characters, got 'a'"),
        ("word: abcd", "word: expected at most 3 characters, got 'abcd'"),
        ("word: AB", "word: 'AB' does not match the pattern ^[a-z]+$"),
        ("filled: ''", "filled: the text must not be empty"),
        ("password: abc", "password: expected at least 4 characters, got [REDACTED]"),
        ("password: 5", "password: expected text, got [REDACTED]; write it in quotes"),
        ("colour: rot", "colour: 'rot' is not an allowed value; the allowed values are red, blue"),
        ("mode: off", "mode: 'off' is not an allowed value; the allowed values are '' (empty), on"),
        ("text_or_block: 5", "text_or_block: expected text or a mapping, got 5; write it in quotes: '5'"),
        ("text_or_block: []", "text_or_block: expected text or a mapping, got a list"),
        ("tagged: 5", "tagged: 5 is not allowed here"),
        (
            "by_field: {kind: third}",
            "by_field: 'third' is not an allowed value of 'kind'; the allowed values are first, ",
        ),
        ("by_field: {}", "by_field: the required key 'kind' is missing"),
        ("refused: 5", "refused: the moon is full"),
        ("cuont: 5", "unknown key 'cuont' (did you mean 'count'?); the allowed keys are "),
    ],
)
def test_every_kind_of_error_is_a_sentence(text, message):
    """What was wrong, the value, and what is expected."""
    node = parse(text, "f")
    config, errors = parse_model(Model, node, Position("f", 1, 1), ())
    assert config is None
    assert len(errors) == 1
    assert str(errors[0]).split(": ", 1)[1].startswith(message)


def test_a_defect_of_a_validator_is_named_as_one():
    """An exception that is not a validation error is reported without its text, which may hold secrets."""

    class Broken(ComponentConfig):
        def model_post_init(self, context):
            raise RuntimeError("hunter2")

    _, errors = parse_model(Broken, parse("{}", "f"), Position("f", 1, 1), ("exporters", "x"))
    (error,) = errors
    assert str(error) == (
        "f:1:1: exporters::x: the validation of this component failed with RuntimeError; "
        "this is a defect of the component"
    )
