"""``Format``: Go's ``fmt.Sprintf`` for the values that OTTL has.

Source: Go 1.26 fmt, "Printing".
"""

import math
import re
from typing import Final

from collector.ottl.text import text_of
from collector.ottl.values import Duration, EvaluationError, Scalar, SpanId, Time, TraceId

__all__ = ["check_form", "printf"]

_VERB: Final = re.compile(r"%([+\-# 0]*)(\*|\d+)?(?:\.(\*|\d*))?(.)?", re.DOTALL)
_MAX_WIDTH: Final = 10_000


def check_form(form: str) -> None:
    """Check the format of ``Format``.

    Raises:
        ValueError: a width is so large that a text could become huge, or the arguments are numbered.
    """
    for number in re.findall(r"%[+\-# 0]*(\d+)|\.(\d+)", form):
        if any(len(digits) > 5 or int(digits or 0) > _MAX_WIDTH for digits in number):
            raise ValueError(f"a width in the format {form!r} is more than {_MAX_WIDTH}")
    if "%[" in form:
        raise ValueError(f"numbered arguments in the format {form!r} are not supported")


def printf(form: str, *values: Scalar) -> str:
    """The format with the verbs replaced by the values."""
    pending = list(values)
    made: list[str] = []
    at = 0
    for match in _VERB.finditer(form):
        made.append(form[at : match.start()])
        at = match.end()
        flags, width, precision, verb = match.groups()
        if verb is None:
            made.append("%!(NOVERB)")
            continue
        if verb == "%":
            made.append("%")
            continue
        sizes: list[int | None] = []
        for size in (width, precision):
            if size == "*":
                number = pending.pop(0) if pending else None
                if type(number) is not int or abs(number) > _MAX_WIDTH:
                    raise EvaluationError
                sizes.append(number)
            else:
                sizes.append(None if size is None else int(size or 0))
        if not pending:
            made.append(f"%!{verb}(MISSING)")
            continue
        made.append(_written(verb, flags, sizes[0], sizes[1], pending.pop(0)))
    made.append(form[at:])
    if pending:
        made.append("%!(EXTRA " + ", ".join(f"{_type(value)}={_plain(value)}" for value in pending) + ")")
    return "".join(made)


_TYPES: Final = {
    str: "string", int: "int64", float: "float64", bool: "bool", bytes: "[]uint8", list: "pcommon.Slice",
    dict: "pcommon.Map", Duration: "time.Duration", Time: "time.Time", TraceId: "pcommon.TraceID",
    SpanId: "pcommon.SpanID", type(None): "<nil>",
}  # fmt: skip


def _type(value: Scalar) -> str:
    return _TYPES[type(value)]


def _plain(value: Scalar) -> str:
    """A value as ``%v`` writes it."""
    if value is None:
        return "<nil>"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return _shortest(value)
    if type(value) is str:
        return value
    if type(value) is bytes:
        return "[" + " ".join(map(str, value)) + "]"
    if isinstance(value, TraceId | SpanId):
        return value.hex()
    if isinstance(value, Duration):
        return _duration(int(value))
    if type(value) is list:
        return "[" + " ".join(map(_plain, value)) + "]"
    if type(value) is dict:
        return "map[" + " ".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "]"
    return text_of(value) or ""


def _shortest(value: float) -> str:
    """``%g`` with the fewest digits; an exponent below -4 and from 21 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value and (abs(value) < 1e-4 or abs(value) >= 1e21):
        exponent = int(f"{value:.17e}".partition("e")[2])
        digits = repr(value)
        mantissa = digits.partition("e")[0] if "e" in digits else _mantissa(digits)
        return f"{mantissa.removesuffix('.0')}e{exponent:+03d}"
    digits = repr(value)
    return (f"{value:.0f}" if "e" in digits else digits).removesuffix(".0")


def _mantissa(digits: str) -> str:
    sign = "-" if digits.startswith("-") else ""
    plain = digits.lstrip("-").replace(".", "").lstrip("0").rstrip("0")
    return sign + plain[:1] + ("." + plain[1:] if plain[1:] else "")


def _duration(nanoseconds: int) -> str:
    """A duration as Go writes it: ``1h2m3.5s``."""
    if not nanoseconds:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 10**9:
        for unit, name in ((1, "ns"), (10**3, "µs"), (10**6, "ms")):
            if rest < unit * 1000:
                return f"{sign}{_decimal(rest, unit)}{name}"
    seconds, fraction = divmod(rest, 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(seconds * 10**9 + fraction, 10**9) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    return f"{whole}.{str(rest).rjust(len(str(unit)) - 1, '0').rstrip('0')}" if rest else str(whole)


def _written(verb: str, flags: str, width: int | None, precision: int | None, value: Scalar) -> str:
    text = _verb(verb, flags, precision, value)
    if text is None:
        return f"%!{verb}({_type(value)}={_plain(value)})" if value is not None else f"%!{verb}(<nil>)"
    if width is None:
        return text
    left = "-" in flags or width < 0
    size = min(abs(width), _MAX_WIDTH)
    if left:
        return text.ljust(size)
    if "0" in flags and verb not in "sqvT":
        sign = text[:1] if text[:1] in "+- " and text[:1] else ""
        return sign + text[len(sign) :].rjust(size - len(sign), "0")
    return text.rjust(size, "0" if "0" in flags and verb in "sqv" and type(value) in {int, float} else " ")


def _verb(verb: str, flags: str, precision: int | None, value: Scalar) -> str | None:
    """The value by a verb; None if the verb is not for its type."""
    if verb == "T":
        return _type(value)
    if verb == "v":
        if type(value) is float and precision is not None:
            return _float("g", flags, precision, value)
        if type(value) in {int, float} and "+" in flags and not _plain(value).startswith(("-", "+")):
            return "+" + _plain(value)
        return _plain(value)
    if type(value) is bool:
        return _plain(value) if verb == "t" else None
    if type(value) in {int, Duration, Time} and type(value) is not Time:
        return _int(verb, flags, precision, int(value))
    if type(value) is float:
        return _float(verb, flags, precision, value) if verb in "eEfFgG" else None
    if type(value) is str:
        return _string(verb, flags, precision, value)
    if type(value) is bytes and verb in "xX":
        return value.hex() if verb == "x" else value.hex().upper()
    if type(value) is bytes and verb in "sq":
        return _string(verb, flags, precision, value.decode("utf-8", "replace"))
    if verb == "s" and value is not None and type(value) in {list, dict, TraceId, SpanId}:
        return _plain(value) if type(value) in {TraceId, SpanId} else None
    return None


def _signed(text: str, flags: str, *, negative: bool) -> str:
    return ("-" if negative else "+" if "+" in flags else " " if " " in flags else "") + text


def _int(verb: str, flags: str, precision: int | None, value: int) -> str | None:
    if verb in "cqU":
        if not 0 <= value < 0x110000:
            value = 0xFFFD
        return {"c": chr(value), "q": f"'{chr(value)}'", "U": f"U+{value:04X}"}[verb]
    form = {"d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}.get(verb)
    if form is None:
        return None
    digits = format(abs(value), form)
    if precision is not None:
        digits = digits.rjust(precision, "0")
    if verb == "O" or ("#" in flags and verb in "box" + "X"):
        digits = {"O": "0o", "b": "0b", "o": "0", "x": "0x", "X": "0X"}[verb] + digits
    return _signed(digits, flags, negative=value < 0)


def _float(verb: str, flags: str, precision: int | None, value: float) -> str:
    if not math.isfinite(value):
        return _shortest(value) if value != math.inf or "+" in flags else "+Inf"
    if verb in "gG" and precision is None:
        text = _shortest(abs(value))
    else:
        text = format(abs(value), f".{6 if precision is None else precision}{verb.lower()}")
    text = text.upper() if verb in "EG" else text
    return _signed(text, flags, negative=math.copysign(1, value) < 0)


def _string(verb: str, flags: str, precision: int | None, value: str) -> str | None:
    text = value if precision is None else value[:precision]
    if verb == "s":
        return text
    if verb == "q":
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if verb in "xX":
        digits = text.encode().hex()
        digits = digits.upper() if verb == "X" else digits
        return ("0x" if verb == "x" else "0X") + digits if "#" in flags and digits else digits
    return None
