"""Where a chat template runs: Jinja2's sandbox, and a budget.

The sandbox lets a template reach no file, no module and no attribute that begins with an
underscore. It does not keep it from running for ever or from filling the memory: so here every
round of a loop, every call, and every text that is made costs something, and what only serves to
make much out of little, such as `**` or `center`, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

_BUDGET = 10_000_000  # characters handled
_STEP = 100  # what a round, a call and an element of a list cost, in characters
_LONGEST = 1_000_000  # characters of a template, and of what it writes
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "safe", "select", "selectattr", "sort", "string",
    "title", "trim", "unique", "upper",
)  # fmt: skip
_METHODS = {
    "capitalize", "copy", "count", "endswith", "find", "get", "index", "isalpha", "isdigit",
    "isspace", "items", "join", "keys", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "title", "upper", "values",
}  # fmt: skip
_PLAIN = (str, bytes, int, float, list, tuple, dict, set, type)


class Refused(Exception):  # noqa: N818
    """The template itself says why: it called raise_exception."""


class Forbidden(Exception):  # noqa: N818
    """The template does what no template has to."""


def run(template: str, variables: Mapping[str, Any]) -> str:
    """What the template writes. Raises Refused, Forbidden, or whatever is wrong with it."""
    if len(template) > _LONGEST:
        raise Forbidden(f"it has {len(template)} characters, of at most {_LONGEST}")
    parts, length = [], 0
    try:
        environment, compiled = _compiled(template)
        environment.left = _BUDGET
        for part in compiled.generate(**variables):
            parts.append(part)
            length += len(part)
            if length > _LONGEST:
                raise Forbidden(f"it writes more than {_LONGEST} characters")
    except (SecurityError, MemoryError, OverflowError) as error:
        raise Forbidden(str(error) or type(error).__name__) from None
    return "".join(parts)


@lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[_Budgeted, jinja2.Template]:
    environment = _Budgeted()
    tree = _Counting().visit(environment.parse(template))
    return environment, environment.from_string(tree)


class _Counting(NodeTransformer):
    """Loops and the operator ~ call no function: here they come to call one that counts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes), "concatenated")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}, which some templates put around an answer."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Budgeted(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self._writable,
            extensions=[_Generation, loopcontrols],
        )
        self.left = _BUDGET
        self.filters = {name: self._paid(self.filters[name]) for name in _FILTERS} | {
            "concatenated": self.concat,
            "counted": self._counted,
            "join": self._join,
            "replace": self._replace,
            "string": lambda value: str(self._writable(value)),
            "tojson": self._tojson,
        }
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        del self.globals["lipsum"]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        known = attr in _METHODS or not isinstance(obj, _PLAIN)
        return known and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        return None  # so that is_safe_attribute is asked about `format` too

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._spend(_STEP)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            self._spend(len(owner))
            if name == "join":
                return self._join(args[0], owner)
            if name == "replace":
                return self._replace(owner, *args)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            if operator == "**" or max(abs(left), abs(right)) > 2**63:
                raise Forbidden(f"it computes {left!r:.20} {operator} {right!r:.20}")
        elif operator in ("**", "%"):
            raise Forbidden(f"it uses the operator {operator} on texts")
        elif operator == "*":
            times = [abs(side) if isinstance(side, int) else _size(side) for side in (left, right)]
            self._spend(times[0] * times[1])
        else:
            self._spend(_size(left) + _size(right))
        return super().call_binop(context, operator, left, right)

    def _spend(self, characters: int) -> None:
        self.left -= characters
        if self.left < 0:
            raise Forbidden("it does more than a template has to")

    def _paid(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # with the marks of those that are given the environment first
        def paid(*args: Any, **kwargs: Any) -> Any:
            self._spend(_STEP + sum(map(_size, args)))
            return function(*args, **kwargs)

        return paid

    @jinja2.pass_context  # so that it is not called when the template is compiled
    def _counted(self, context: Context, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._spend(_STEP)
            yield value

    def _writable(self, value: Any) -> Any:
        """The value, if it can be paid for that it be written."""
        waiting = [value]
        while waiting:
            part = waiting.pop()
            self._spend(_STEP + _size(part))
            if isinstance(part, list | tuple | set):
                waiting.extend(part)
            elif isinstance(part, dict):
                waiting.extend([*part, *part.values()])
        return value

    def concat(self, parts: Iterable[Any]) -> str:
        """Jinja2 calls it for what a macro or a block has written."""
        return "".join(str(self._writable(part)) for part in parts)

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        parts = list(values)
        if attribute is not None:
            parts = [self.getitem(part, attribute) for part in parts]
        self._spend(len(parts) * (1 + len(d)))
        return d.join(str(self._writable(part)) for part in parts)

    def _replace(self, text: Any, old: str, new: str, count: int = -1) -> str:
        text = str(self._writable(text))
        self._spend(text.count(old) * len(new))
        return text.replace(old, new, count)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As in transformers: Jinja2's own would escape < and >."""
        if (isinstance(indent, int) and indent > 16) or _size(str(indent)) > 16:
            raise Forbidden("it indents by more than 16")
        options: dict[str, Any] = dict(ensure_ascii=ensure_ascii, sort_keys=sort_keys)
        return json.dumps(self._writable(value), indent=indent, separators=separators, **options)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | set | dict) else 1


def _refuse(message: str) -> None:
    raise Refused(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
