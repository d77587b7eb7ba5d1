"""Is a value from a file what a type hint says it is? A dataclass is the schema of its file.

    checked({"r": 4}, Options, "options.json")   # Options(r=4), or a sentence that says why not

Known hints: Any, None, bool, int, float, str, Literal, X | Y, list[X], tuple[X, ...], dict[str, X],
and two kinds of objects with keys of their own: a dataclass, which allows no others and is made of
them, and a TypedDict, which does. Annotated[X, Range(…)] and Annotated[X, POSITIVE] limit a number,
or the length of a text or a list. As in JSON, true is no number, and 2.0 is no whole one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from minilora.system.errors import UsageError, brief

_NAMES = {
    NoneType: "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
}


@dataclass(frozen=True)
class Range:
    """low <= a number <= high, or the length of a text, list or object. open: low itself is not
    allowed."""

    low: float
    high: float = math.inf
    open: bool = False

    def holds(self, value: Any) -> bool:
        size = value if isinstance(value, int | float) else len(value)
        return self.low <= size <= self.high and not (self.open and size == self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"from {self.low:,.10g} to {self.high:,.10g}"
        return f"{'above' if self.open else 'of at least'} {self.low:,.10g}"


POSITIVE = Range(0, open=True)
NOT_EMPTY = Range(1)


def checked(value: Any, hint: Any, where: object, key: str = "", told: Any = None) -> Any:
    """`value` as the type hint has it: lists as tuples and objects as dataclasses where it says so.

    Raises UsageError, which names `where`, the file, and the key in it, if it is anything else.
    told: the hint that an error describes, if that is not this one.
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return value
    if kind is Annotated:
        found = checked(value, parts[0], where, key, told=hint)
        if parts[1].holds(found):
            return found
    elif kind in (Union, UnionType):
        return _one_of(value, hint, where, key)
    elif kind is Literal:
        if any(type(value) is type(part) and value == part for part in parts):
            return value
    elif kind in (list, tuple) and isinstance(value, list):
        return kind(checked(item, parts[0], where, inside(key, i)) for i, item in enumerate(value))
    elif kind is dict and isinstance(value, dict):
        return {k: checked(item, parts[1], where, inside(key, k)) for k, item in value.items()}
    elif _has_keys(kind) and isinstance(value, dict):
        return _object(value, kind, where, key)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif kind is NoneType or kind is None:
        if value is None:
            return None
    elif type(value) is kind:
        return value
    raise _wrong(value, told or hint, where, key)


def _one_of(value: Any, hint: Any, where: object, key: str) -> Any:
    """As the first of several hints that fits. Of objects the reason is told, as there is one."""
    for part in get_args(hint):
        try:
            return checked(value, part, where, key)
        except UsageError:
            if isinstance(value, dict | list) and _takes(part, value):
                raise
    raise _wrong(value, hint, where, key)


def _takes(hint: Any, value: dict[str, Any] | list[Any]) -> bool:
    kind = get_origin(hint) or hint
    return kind in (list, tuple) if isinstance(value, list) else kind is dict or _has_keys(kind)


def _has_keys(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or is_typeddict(kind)


def _object(value: Mapping[str, Any], kind: Any, where: object, key: str) -> Any:
    hints, required = _fields(kind)
    strange = [name for name in value if name not in hints]
    if strange and not is_typeddict(kind):
        at = inside(key, strange[0])
        raise UsageError(f"{where}: {at} is not known; known are {', '.join(hints)}")
    if missing := [name for name in required if name not in value]:
        raise UsageError(f"{where}: {f'{key} ' if key else ''}lacks {', '.join(missing)}")
    found = {
        name: checked(value[name], hint, where, inside(key, name))
        for name, hint in hints.items()
        if name in value
    }
    return {**value, **found} if is_typeddict(kind) else kind(**found)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """The hint of every key, and the keys that must be there."""
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        return hints, sorted(kind.__required_keys__)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    has_none = (dataclasses.MISSING, dataclasses.MISSING)
    required = [f.name for f in fields if (f.default, f.default_factory) == has_none]
    return {field.name: hints[field.name] for field in fields}, required


def inside(key: str, name: str | int) -> str:
    """The place of a name in an object, or of a number in a list: "model.layers", "rows[3]" or
    "cards['what-is-lora']"."""
    if isinstance(name, int):
        return f"{key}[{name}]"
    if name.isidentifier() and len(name) <= 40:
        return f"{key}.{name}" if key else name
    return f"{key}[{shown(name)}]" if key else shown(name)


def _wrong(value: Any, hint: Any, where: object, key: str) -> UsageError:
    what = f": {key}" if key else ""
    return UsageError(f"{where}{what} must be {_described(hint)}, got {shown(value)}")


def _described(hint: Any) -> str:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        if parts[1] == NOT_EMPTY and parts[0] is not int:
            return f"{_described(parts[0])} that is not empty"
        return f"{_described(parts[0])} {parts[1]}"
    if kind in (Union, UnionType):
        return " or ".join(map(_described, parts))
    if kind is Literal:
        return f"one of {', '.join(map(repr, parts))}" if len(parts) > 1 else repr(parts[0])
    return _NAMES.get(kind, "an object")


def shown(value: Any) -> str:
    """A value in an error: short, on one line, whatever it is."""
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    return brief(value)
