"""Do two formulas say the same? Both are evaluated, with the same random numbers for their names.

So `r d_in + r*d_out`, `(d_out+d_in)·r` and `$r (d_in + d_out)$` are one answer, in any style. A
typed formula is brought into the notation of maths.py and read by it; the value of its tree is
taken here, by a walk that knows numbers, names, + − · /, powers and roots and can do nothing else.
A and B and the other names of matrices stand for matrices, since A B is not B A.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import numpy as np

from minilora.learn.exam.maths import Group, Leaf, Node, Root, Scripts, parse
from minilora.system.errors import UsageError

_LONGEST = 120  # characters: no answer is longer, and brackets cannot be nested too deeply
_POINTS = 3
_SIDE = 3  # of the matrices, all square, so that every product of them exists
_MATRICES = {"A", "B", "W", "W0", "ΔW", "G", "U", "V", "x", "X", "y", "dA", "dB", "dW", "dx"}
_FROM_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_FROM_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SPELLINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\*\*", "^"),
    (r"[*@⋅∗•]", "·"),
    (r"[÷∕⁄]", "/"),
    (r"[–—]", "−"),
    (r"(?i)(?:\b(?:sqrt|root)\b|√)\s*", "√"),
    (r"(?i)\b(?:lora_)?alpha\b", "α"),
    (r"(?i)\bdelta[ _]?(?=W)", "Δ"),
    (r"['′ᵀ]|\.T\b", "^T"),
    (r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "^{" + m[1].translate(_FROM_RAISED) + "}"),
    (r"([₀₁₂₃₄₅₆₇₈₉]+)", lambda m: "_" + m[1].translate(_FROM_LOWERED)),
    (r"(?<=\d)[eE]([+-]?\d+)", r"·10^{\1}"),
    (r"(?<![A-Za-zΔα_])([A-Za-zΔα]+)(\d+)", r"\1_\2"),  # W0
    (r"(?<![\d.])\.(?=\d)", "0."),
    (r"(?<=\d)[ _\u00a0\u2009\u202f](?=\d{3}(?!\d))", ""),  # 4 194 304
)

Value = float | np.ndarray


class UnreadableError(ValueError):
    """This is no formula, or it has no value."""


@np.errstate(all="ignore")
def same_formula(typed: str, expected: str) -> bool:
    """Have both the same value, whatever their names stand for? False if one is no formula.

    Names are those of `expected`: "rd_in" is r times d_in if it has both.
    """
    try:
        tree, wanted = _read(typed), _read(expected)
        known = set(_names(wanted))
        for seed in range(_POINTS):
            values = _Values(known, seed)
            if not _close(_sum(tree, values), _sum(wanted, values)):
                return False
    except UnreadableError:
        return False
    return True


@np.errstate(all="ignore")
def is_formula(typed: str) -> bool:
    """Can it be read as one? A word can, as a product of its letters."""
    try:
        _sum(_read(typed), _Values(set(), 0))
    except UnreadableError:
        return False
    return True


def _read(text: str) -> list[Node]:
    formula = text.replace("$", "").replace("`", "").rpartition("=")[2].strip()
    for written, meant in _SPELLINGS:
        formula = re.sub(written, meant, formula)
    if len(formula) > _LONGEST:
        raise UnreadableError
    try:
        return parse(formula)
    except UsageError:
        raise UnreadableError from None


def _close(one: Value, other: Value) -> bool:
    """Up to rounding; what is infinite is close to nothing."""
    return bool(np.abs(one - other).max() <= 1e-9 * np.abs(other).max())


class _Values:
    """What names stand for, at one random point: drawn when a name is first asked for."""

    def __init__(self, known: set[str], seed: int) -> None:
        self._known = {name.casefold(): name for name in sorted(known)}
        self._known |= {name: name for name in known}
        self._seed = seed

    def of(self, word: str) -> list[Value]:
        """Of each name that a word such as "rdin" is made of."""
        return [self._of_name(name) for name in self._split(word) or [word]]

    def _split(self, word: str) -> list[str]:
        """In names that are known, as long ones as possible; empty if it cannot be split so."""
        found: dict[int, list[str]] = {0: []}  # where a name can end, and the names up to there
        for end in range(1, len(word) + 1):
            for start in sorted(found):
                name = self._known.get(word[start:end])
                name = name or self._known.get(word[start:end].casefold())
                if name and end not in found:
                    found[end] = [*found[start], name]
        return found.get(len(word), [])

    def _of_name(self, name: str) -> Value:
        rng = np.random.default_rng([self._seed, *map(ord, name)])
        if name in _MATRICES:
            return rng.uniform(0.5, 2, (_SIDE, _SIDE))
        return float(rng.uniform(0.5, 2))


def _names(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        match node:
            case Leaf("name", name):
                yield name
            case Group(_, inside, _):
                yield from _names(inside)
            case Root(of):
                yield from _names([of])
            case Scripts(Leaf("name", name), below, above):
                yield _with_script(name, below)
                yield from _names([above] if above else [])
            case Scripts(base, _, above):
                yield from _names([base, above] if above else [base])


def _with_script(name: str, below: Node | None) -> str:
    """ "d" above "in" is din, as some type it."""
    match below:
        case None:
            return name
        case Leaf("name" | "number", script) | Group("{", [Leaf("name" | "number", script)], _):
            return name + script
    raise UnreadableError


def _is_transpose(above: Node) -> bool:
    return above in (Leaf("name", "T"), Group("{", [Leaf("name", "T")], "}"))


def _sum(nodes: list[Node], values: _Values) -> Value:
    solid = [node for node in nodes if node != Leaf("space", " ")]
    if not solid or _is(solid[-1], "+−·×/"):
        raise UnreadableError
    total: Value = 0.0
    term: list[Node] = []
    sign = 1
    for node in [*solid, Leaf("sign", "+")]:
        if not _is(node, "+−"):
            term.append(node)
        elif term and not _is(term[-1], "·×/"):
            total = _add(total, sign * _product(term, values))
            term, sign = [], -1 if _is(node, "−") else 1
        elif _is(node, "−"):
            sign = -sign  # −a, or a · −b
    return total


def _product(nodes: list[Node], values: _Values) -> Value:
    """From left to right; what stands side by side is multiplied."""
    result: Value = 1.0
    divide = awaited = False
    for i, node in enumerate(nodes):
        if _is(node, "·×/"):
            if awaited or i == 0:
                raise UnreadableError
            divide, awaited = _is(node, "/"), True
            continue
        factor = _value(node, values)
        result = _multiply(result, _power(factor, -1.0) if divide else factor)
        divide = awaited = False
    return result


def _value(node: Node, values: _Values) -> Value:
    match node:
        case Leaf("number", digits):
            return float(digits.replace(",", ""))
        case Leaf("symbol", "%"):
            return 0.01
        case Leaf("name", name):
            return _multiply(*values.of(name))
        case Group("(" | "[" | "{", inside, _):
            return _sum(inside, values)
        case Root(of):
            return _power(_value(of, values), 0.5)
        case Scripts(Leaf("name", name), below, above):
            *before, last = values.of(_with_script(name, below))
            return _multiply(*before, _raised(last, above, values))
        case Scripts(base, None, above):
            return _raised(_value(base, values), above, values)
    raise UnreadableError


def _raised(base: Value, above: Node | None, values: _Values) -> Value:
    if above is None:
        return base
    if _is_transpose(above):
        return np.transpose(base)
    return _power(base, _value(above, values))


def _is(node: Node, signs: str) -> bool:
    return isinstance(node, Leaf) and node.kind == "sign" and node.text in signs


def _add(one: Value, other: Value) -> Value:
    """A number beside a matrix is that number times the identity."""
    if np.ndim(one) != np.ndim(other):
        one, other = (v * np.eye(_SIDE) if np.ndim(v) == 0 else v for v in (one, other))
    return one + other


def _multiply(*factors: Value) -> Value:
    product: Value = 1.0
    for factor in factors:
        both = np.ndim(product) and np.ndim(factor)
        product = product @ factor if both else product * factor  # type: ignore[operator]
    return product


def _power(base: Value, exponent: Value) -> Value:
    """Of matrices only the square. Numbers that are too large have no value."""
    try:
        if np.ndim(base) == np.ndim(exponent) == 0:
            return math.pow(base, exponent)
    except (ValueError, ArithmeticError):
        raise UnreadableError from None
    if np.ndim(exponent) == 0 and exponent == 2:
        return base @ base  # type: ignore[operator]
    raise UnreadableError
