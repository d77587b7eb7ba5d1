"""Mathematics in the texts of cards and page: `$s = α/r$` as terminal text, HTML or MathML.

A text marks `code` with backticks and $formulas$ with dollars. A formula is written as one would
type it: names `d_in`, `ΔW`, scripts `x_i`, `x^{-2}`, roots `√r`, `√(d r)`, numbers `9,216`, signs
`= + × ≤ …`. It is read once, into a small tree (parse), and each format is one walk over it.
Spaces stay where the author put them, so that the linear forms read as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape, unescape
from typing import TypeGuard

from minilora.system.errors import UsageError

_CLOSING = {"(": ")", "[": "]", "{": "}", "‖": "‖"}
_TOKEN = re.compile(
    r"(?P<number>\d+(?:,\d{3})*(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z\u0370-\u03ffℝ]+)"
    r"|(?P<sign>[-=+−·×/<>≤≥≪≫≈≠∝∈→←↦⊙⊕,;:.|∂∇∑])"
    r"|(?P<symbol>[…%!∞′'])"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[][(){}‖_^√])"
)
_PIECE = re.compile(r"(`[^`]+`|\$[^$]+\$)")
_TYPED = str.maketrans("-'", "−′")
_RAISED = str.maketrans("0123456789−T", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᵀ")
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_GREEK_CAPITALS = range(0x391, 0x3AA)  # upright in mathematics, unlike other variables


@dataclass(frozen=True)
class Leaf:
    """kind: number, name, sign, symbol or space."""

    kind: str
    text: str


@dataclass(frozen=True)
class Group:
    """(inside), [inside] or ‖inside‖; the braces of {inside} are not shown."""

    left: str
    inside: list[Node]
    right: str


@dataclass(frozen=True)
class Root:
    of: Node


@dataclass(frozen=True)
class Scripts:
    """base with something below, above, or both."""

    base: Node
    below: Node | None
    above: Node | None


Node = Leaf | Group | Root | Scripts
_SPACE = Leaf("space", " ")


def to_text(text: str) -> str:
    """For a terminal: `$10^{-4}$` is 10⁻⁴ and `$d_in$` stays d_in; code keeps its backticks.

    Raises UsageError, naming the formula, if one cannot be read. So do the other functions.
    """
    return _convert(text, str, lambda code: f"`{code}`", formula_to_text)


def to_html(text: str) -> str:
    """For any program that shows HTML, even one that knows no MathML; everything is escaped."""
    return _convert(text, _escaped, _html_code, formula_to_html)


def to_mathml(text: str) -> str:
    """For a browser: HTML as of to_html, with the formulas as MathML."""
    return _convert(text, _escaped, _html_code, formula_to_mathml)


def mathml_in_html(html: str) -> str:
    """Finished HTML, such as a part of the page, of which only the $formulas$ are converted."""
    return _convert(html, str, lambda code: f"`{code}`", lambda f: formula_to_mathml(unescape(f)))


def _convert(
    text: str,
    plain: Callable[[str], str],
    code: Callable[[str], str],
    formula: Callable[[str], str],
) -> str:
    converted = []
    for piece in _PIECE.split(text):
        if _PIECE.fullmatch(piece):
            converted.append((code if piece[0] == "`" else formula)(piece[1:-1]))
        elif "$" in piece:
            raise UsageError(f"a formula stands between two dollars, which is not so in: {text}")
        else:
            converted.append(plain(piece))
    return "".join(converted)


def _escaped(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _html_code(code: str) -> str:
    return f"<code>{escape(code)}</code>"


def formula_to_text(formula: str) -> str:
    """A formula (without its dollars) in one line of characters."""
    return "".join(_text(node) for node in parse(formula))


def formula_to_html(formula: str) -> str:
    """A formula (without its dollars) with <i>, <sub> and <sup>."""
    return "".join(_html(node) for node in parse(formula))


def formula_to_mathml(formula: str) -> str:
    """A formula (without its dollars) as a <math> element."""
    return f"<math>{_mathml_row(parse(formula))}</math>"


def parse(formula: str) -> list[Node]:
    """The tree of a formula. Raises UsageError, naming it, if it cannot be read."""
    tokens, end = [], 0
    while found := _TOKEN.match(formula, end):
        kind = str(found.lastgroup)
        text = found[0].translate(_TYPED)
        tokens.append(_SPACE if kind == "space" else Leaf(kind, text))
        end = found.end()
    try:
        if end < len(formula):
            raise SyntaxError(f"{formula[end]!r} has no meaning there")
        nodes = _row(tokens)
        if tokens:
            raise SyntaxError(f"{tokens[0].text!r} closes nothing")
    except SyntaxError as problem:
        raise UsageError(f"cannot read the formula ${formula}$: {problem}") from None
    return nodes


def _row(tokens: list[Leaf], right: str = "") -> list[Node]:
    """Take nodes from the front of the tokens, until they end or a bracket closes."""
    nodes = []
    while tokens and tokens[0].text not in (right, ")", "]", "}"):
        nodes.append(_scripted(tokens))
    return nodes


def _scripted(tokens: list[Leaf]) -> Node:
    """An atom with what is below and above it."""
    base = _atom(tokens)
    scripts: dict[str, Node] = {}
    while tokens and tokens[0].text in ("_", "^"):
        mark = tokens.pop(0).text
        if mark in scripts or base == _SPACE:
            raise SyntaxError(f"nothing stands before {mark!r}")
        scripts[mark] = _script(tokens)
    return Scripts(base, scripts.get("_"), scripts.get("^")) if scripts else base


def _script(tokens: list[Leaf]) -> Node:
    """What is lowered or raised: one atom, perhaps with a minus before it."""
    if tokens and tokens[0].text == "−":
        return Group("{", [tokens.pop(0), _atom(tokens)], "}")
    return _atom(tokens)


def _atom(tokens: list[Leaf]) -> Node:
    if not tokens:
        raise SyntaxError("something is missing at its end")
    token = tokens.pop(0)
    if token.text == "√":
        return Root(_scripted(tokens))
    if token.text in _CLOSING:
        right = _CLOSING[token.text]
        inside = _row(tokens, right)
        if not tokens or tokens.pop(0).text != right:
            raise SyntaxError(f"{token.text!r} is not closed by {right!r}")
        return Group(token.text, inside, right)
    if token.kind == "mark":
        raise SyntaxError(f"nothing stands before {token.text!r}")
    return token


def _text(node: Node | None) -> str:
    match node:
        case None:
            return ""
        case Leaf():
            return node.text
        case Group("{", inside, _):
            return "".join(map(_text, inside))
        case Group(left, inside, right):
            return left + "".join(map(_text, inside)) + right
        case Root(of):
            return "√" + _text(of)
        case Scripts(base, below, above):
            return _text(base) + _text_script("_", below) + _text_script("^", above)


def _text_script(mark: str, node: Node | None) -> str:
    """In small characters if there are such, else after its mark, in brackets if it is long."""
    small = _LOWERED if mark == "_" else _RAISED
    text = _text(node)
    if all(ord(character) in small for character in text):
        return text.translate(small)
    return f"{mark}{text}" if isinstance(node, Leaf) else f"{mark}({text})"


def _html(node: Node | None) -> str:
    match node:
        case None:
            return ""
        case Leaf("name", name) if _is_variable(name):
            return "".join(c if _is_upright(c) else f"<i>{c}</i>" for c in name)
        case Leaf():
            return escape(node.text)
        case Group("{", inside, _):
            return "".join(map(_html, inside))
        case Group(left, inside, right):
            return left + "".join(map(_html, inside)) + right
        case Root(of):
            return "√" + _html(of)
        case Scripts(base, below, above):
            lowered = f"<sub>{_html_script(below)}</sub>" if below else ""
            raised = f"<sup>{_html_script(above)}</sup>" if above else ""
            return _html(base) + lowered + raised


def _html_script(node: Node) -> str:
    return node.text if _is_label(node) else _html(node)


def _mathml(node: Node) -> str:
    match node:
        case Leaf("number", text):
            return f"<mn>{text}</mn>"
        case Leaf("name", name) if _is_variable(name):
            return _mathml_variables(name)
        case Leaf("name" | "symbol", word):
            return f"<mi>{word}</mi>"
        case Leaf("space", _):
            return '<mspace width="0.2em"/>'
        case Leaf(_, sign):
            return f"<mo>{escape(sign)}</mo>"
        case Group("{", inside, _):
            return f"<mrow>{_mathml_row(inside)}</mrow>"
        case Group(left, inside, right):
            return f"<mrow><mo>{left}</mo>{_mathml_row(inside)}<mo>{right}</mo></mrow>"
        case Root(Group("(", inside, _)):
            return f"<msqrt>{_mathml_row(inside)}</msqrt>"
        case Root(of):
            return f"<msqrt>{_mathml(of)}</msqrt>"
        case Scripts(base, below, above):
            scripts = [_mathml_script(node) for node in (below, above) if node]
            kind = "msubsup" if below and above else "msub" if below else "msup"
            return f"<{kind}>{_mathml(base)}{''.join(scripts)}</{kind}>"


def _mathml_row(nodes: list[Node]) -> str:
    """Beside a sign the browser sets the space, so the author's is kept only between factors."""
    edge: Node = Leaf("sign", "")
    around = zip([edge, *nodes], nodes, [*nodes[1:], edge], strict=False)
    solid = [
        node
        for before, node, after in around
        if node != _SPACE or not (_is_sign(before) or _is_sign(after))
    ]
    row = ""
    for before, node in zip([edge, *solid], solid, strict=False):
        if node in (Leaf("sign", "−"), Leaf("sign", "+")) and _is_sign(before):
            row += f'<mo form="prefix">{_text(node)}</mo>'  # the minus of −1, not of 2 − 1
        else:
            row += _mathml(node)
    return row


def _mathml_script(node: Node) -> str:
    if not _is_label(node):
        return _mathml(node)
    return f'<mi mathvariant="normal">{node.text}</mi>'


def _mathml_variables(name: str) -> str:
    """One element, since scripts are set on one: the letters of ΔW or A, each a variable."""
    letters = [
        f'<mi mathvariant="normal">{letter}</mi>' if _is_upright(letter) else f"<mi>{letter}</mi>"
        for letter in name
    ]
    return letters[0] if len(letters) == 1 else f"<mrow>{''.join(letters)}</mrow>"


def _is_sign(node: Node) -> bool:
    return isinstance(node, Leaf) and node.kind == "sign"


def _is_variable(name: str) -> bool:
    """One letter is a variable, two are two of them or dA and ΔW; more are a word."""
    return len(name) <= 2


def _is_label(script: Node) -> TypeGuard[Leaf]:
    """Words as in d_in are no product of variables, nor is the T of x^T: they stand upright."""
    return (
        isinstance(script, Leaf)
        and script.kind == "name"
        and (len(script.text) > 1 or script.text == "T")
    )


def _is_upright(letter: str) -> bool:
    return ord(letter) in _GREEK_CAPITALS
