"""The checkers of lesson 11, Exam prep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minilora as ml
from minilora.learn.demos.small_models import moved_adapter, tiny_gpt2, tiny_llama
from minilora.learn.exercises import Yours, exercise, require, unpack
from minilora.system.errors import how_many


@exercise(
    hints=(
        "Collect for each topic how many answers are right and how many there are.",
        "Sort the triples with `key=lambda t: (t[1] / t[2], t[0])`: by share, then by name.",
    )
)
def score_by_topic(yours: Yours) -> str:
    sheets = (
        [("memory", True), ("scaling", False), ("memory", False), ("scaling", False)],
        [("texts", False)] * 2 + [("texts", True)] * 6 + [("memory", False), ("memory", True)],
        [("memory", True)] * 3
        + [("memory", False), ("targets", False), ("counting", True), ("targets", True)],
        [("scaling", True), ("counting", True), ("texts", False), ("counting", True)],
        [("serving", False), ("targets", True), ("serving", True), ("definition", True),
         ("targets", False), ("definition", False), ("definition", True)],
        [("memory", i < 200) for i in range(301)] + [("scaling", i < 100) for i in range(151)],
    )  # shares that only rounding makes equal in the last  # fmt: skip
    for sheet in sheets:
        right = _scored(sheet)
        wrong = {
            "the weakest topic comes first": _scored(sheet, lambda r, n: -r / n),
            "sort by the share that is right, not by their number": _scored(sheet, lambda r, n: r),
            "sort by the share that is right, not by how many are wrong": _scored(
                sheet, lambda r, n: r - n
            ),
            "that is in alphabetical order": _scored(sheet, lambda r, n: 0),
            "of two topics with one share, the first by name comes first": _scored(
                sheet, backwards=True
            ),
            "the middle number is of right answers, not of wrong ones": [
                (topic, n - r, n) for topic, r, n in right
            ],
            "the last number is of all answers on the topic, not of wrong ones": [
                (topic, r, n - r) for topic, r, n in right
            ],
        }
        got = yours(list(sheet))
        topics = how_many(len(right), "topic")
        require(
            isinstance(got, list | tuple),
            f"it returns {type(got).__name__} for answers on {topics}; expected a list of triples",
        )
        require(
            len(got) == len(right),
            f"it returns {how_many(len(got), 'triple')} for answers on {topics}; expected one for "
            "each topic",
        )
        for i, (topic, r, n) in enumerate(right):
            found = unpack(got[i], "topic, right, asked")
            parts = ("topic", topic), ("number of right answers", r), ("number of answers", n)
            for j, (part, value) in enumerate(parts):
                mistakes = {why: triples[i][j] for why, triples in wrong.items()}
                yours.compare(f"{part} in entry {i}", found[j], value, mistakes)
    return "What stands first is what to read again first."


Sheet = list[tuple[str, bool]]


def _scored(
    sheet: Sheet,
    key: Callable[[int, int], float] = lambda r, n: r / n,
    backwards: bool = False,
) -> list[tuple[str, int, int]]:
    triples = [
        (topic, sum(right for t, right in sheet if t == topic), sum(t == topic for t, _ in sheet))
        for topic in sorted({topic for topic, _ in sheet}, reverse=backwards)
    ]
    return sorted(triples, key=lambda triple: key(*triple[1:]))  # stable: ties stay by name


def _terms(n: int, p: float) -> list[float]:
    """The chance of exactly 0, 1, ... n right answers."""
    return [math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(n + 1)]


@exercise(
    hints=(
        "Add up the chances of exactly k, k + 1, ... and n right answers.",
        "`sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))`",
    )
)
def chance_at_least(yours: Yours) -> str:
    for k, n, p in ((3, 5, 0.25), (8, 13, 0.25), (0, 4, 0.3), (5, 5, 0.4), (7, 11, 0.6)):
        terms = _terms(n, p)
        mistakes = {
            "that is the chance of exactly k": terms[k],
            "k itself counts: at least k": sum(terms[k + 1 :]),
            "n itself counts: all of them right": sum(terms[k:n]),
            "that is the chance of at most k": sum(terms[: k + 1]),
            "that is the chance of fewer than k": sum(terms[:k]),
            "there are comb(n, j) ways to have j right": sum(
                p**j * (1 - p) ** (n - j) for j in range(k, n + 1)
            ),
            "the other n - j answers are wrong, with 1 - p each": sum(
                math.comb(n, j) * p**j for j in range(k, n + 1)
            ),
            "p is the chance of a right answer, 1 - p of a wrong one": sum(_terms(n, 1 - p)[k:]),
        }
        got = yours(k, n, p)
        yours.compare(f"chance for {yours.inputs}", got, sum(terms[k:]), mistakes)
    return "With k = 0 it is 1: something between none and all will be right."


@exercise(
    hints=(
        "Try k = 0, 1, 2, ... and stop at the first whose chance is below the level.",
        "`next(k for k in range(n + 2) if chance_at_least(k, n, p) < level)`: for k = n + 1 the "
        "sum is empty, and 0.",
    )
)
def fewest_right(yours: Yours) -> str:
    for n, p, level in (
        (20, 0.25, 0.05),
        (10, 0.25, 0.05),
        (42, 0.25, 0.01),
        (5, 0.5, 0.01),
        (30, 0.5, 0.1),
        (12, 0.2, 0.001),
        (42, 0.1, 0.05),
        (10, 0.5, 0.9),
        (40, 0.25, 1e-6),
        (10, 0.5, 56 / 1024),  # exactly the chance of 8 or more: sums of halves are not rounded
    ):
        terms = _terms(n, p)
        tails = [sum(terms[k:]) for k in range(n + 2)]
        right = next(k for k, tail in enumerate(tails) if tail < level)
        deviation = math.sqrt(n * p * (1 - p))
        mistakes = {
            "that many can still be guessed too often: one more": right - 1,
            "a chance equal to the level is not below it": next(
                k for k, tail in enumerate(tails) if tail <= level
            ),
            "that is one more than needed": right + 1,
            "ask for at least k, not for exactly k": next(
                (k for k in range(math.ceil(n * p), n + 1) if terms[k] < level), n + 1
            ),
            "that is what guessing gives on average": round(n * p),
            "the level is an argument, and not always 5 per cent": next(
                k for k, tail in enumerate(tails) if tail < 0.05
            ),
            "p is an argument, and not always one in four": next(
                k for k in range(n + 2) if sum(_terms(n, 0.25)[k:]) < level
            ),
            "if not even n right are enough, return n + 1": min(right, n),
            "two deviations above the mean are 2.3 per cent, whatever the level": math.ceil(
                n * p + 2 * deviation
            ),
        }
        got = yours(n, p, level)
        yours.compare(f"number for {yours.inputs}", got, right, mistakes)
    return "9 of 20 with four choices: fewer say little about what somebody knows."


_W = 0.1542  # of FSRS-6, its last parameter


@exercise(
    hints=(
        "Solve `R = (1 + f * t / S) ** -w` for t. First take both sides to the power of -1 / w.",
        "`t = S * (R ** (-1 / w) - 1) / f`, with `f = 0.9 ** (-1 / w) - 1`.",
    )
)
def days_until(yours: Yours) -> str:
    for S, R in ((10.0, 0.9), (10.0, 0.8), (3.5, 0.95), (40.0, 0.6), (2.0, 0.97)):
        power, nine = R ** (-1 / _W) - 1, 0.9 ** (-1 / _W) - 1
        mistakes = {
            "that forgets exponentially; FSRS forgets by a power": S * np.log(R) / np.log(0.9),
            "that forgets in a straight line": S * (1 - R) / 0.1,
            "f is missing, which makes it S days for 0.9": S * power,
            "divide by f": S * power * nine,
            "S multiplies: what is remembered better lasts longer": power / nine / S,
            "the exponent is 1 / w when solved for t, not w": S * (R**-_W - 1) / (0.9**-_W - 1),
            "that is R after the days, not the days": (1 + nine * R / S) ** -_W,
            "that is S whatever is wanted": S,
        }
        yours.compare(f"days for S={S:g}, R={R:g}", yours(S, R), S * power / nine, mistakes)
    return "It is S days for R = 0.9, and a stricter wish makes the days fewer."


_WHAT = ("the change", "the weight", "neither")


def _rank(M: np.ndarray, above: float = 1e-8) -> int:
    return int(np.sum(np.linalg.svd(M, compute_uv=False) > above))


def _decomposed(W: np.ndarray, tuned: np.ndarray, r: int, slip: str = "") -> str:
    above = 1e-2 if slip == "coarse" else 1e-8
    change, weight = _rank(tuned - W, above), _rank(tuned, above)
    if slip == "base":
        weight = _rank(W)
    if slip == "below":
        return _WHAT[0] if change < r else _WHAT[1] if weight < r else _WHAT[2]
    if slip == "exactly":
        return _WHAT[0] if change == r else _WHAT[1] if weight == r else _WHAT[2]
    if slip == "any":
        full = min(W.shape)
        return _WHAT[0] if change < full else _WHAT[1] if weight < full else _WHAT[2]
    if slip == "swapped":
        return _WHAT[1] if change <= r else _WHAT[0] if weight <= r else _WHAT[2]
    if slip == "two ways":
        return _WHAT[0] if change <= r else _WHAT[1]
    return _WHAT[0] if change <= r else _WHAT[1] if weight <= r else _WHAT[2]


@exercise(
    hints=(
        "Two ranks decide: that of the change, tuned - W, and that of tuned itself.",
        "`rank = np.sum(np.linalg.svd(M, compute_uv=False) > 1e-8)`. Ask for the change first, "
        "with `rank <= r`.",
    )
)
def what_is_decomposed(yours: Yours) -> str:
    rng = np.random.default_rng(8)

    def of_rank(k: int, shape: tuple[int, int], least: float = 1.0) -> np.ndarray:
        U, V = (np.linalg.qr(rng.standard_normal((d, k)))[0] for d in shape)
        return (U * np.linspace(3, least, k)) @ V.T

    wide, tall = (7, 11), (12, 8)
    W, T = (rng.standard_normal(shape) for shape in (wide, tall))
    last = np.zeros(wide)
    last[:, 7:] = rng.standard_normal((7, 4))
    cases = {
        "LoRA": (W, W + of_rank(3, wide), 3),
        "LoRA whose change has a lower rank": (T, T + of_rank(1, tall), 4),
        "a compressed weight": (W, of_rank(3, wide), 3),
        "a compressed weight of a lower rank": (T, of_rank(2, tall), 5),
        "full fine-tuning": (W, W + rng.standard_normal(wide), 3),
        "a change of one direction too many": (T, T + of_rank(4, tall), 3),
        "a change with a weak direction": (W, W + of_rank(4, wide, 1e-4), 3),
        "a base of low rank, tuned in full": (of_rank(2, wide), W, 3),
        "LoRA on a base of low rank": (of_rank(1, tall), of_rank(2, tall), 3),
        "a model as it was": (W, W.copy(), 3),
        "LoRA, stored with a little noise": (
            T,
            T + of_rank(2, tall) + 1e-11 * rng.standard_normal(tall),
            3,
        ),
        "fine-tuning of the last columns": (W, W + last, 3),
    }
    slips = {
        "it is the tuned weight whose rank counts, not the base's": "base",
        "a rank of r itself will do": "below",
        "a rank below r will do too": "exactly",
        "compare the rank with r": "any",
        "LoRA has a low rank in the change, compression in the weight": "swapped",
        "there is a third answer": "two ways",
        "weak directions count too, down to 1e-8": "coarse",
    }
    for about, (before, tuned, r) in cases.items():
        got = yours(before.copy(), tuned.copy(), r)
        mistakes = {why: _decomposed(before, tuned, r, slip) for why, slip in slips.items()}
        yours.compare(f"answer for {about}", got, _decomposed(before, tuned, r), mistakes)
    return "LoRA decomposes the change. What it is added to keeps its rank."


def _models() -> dict[str, ml.Module]:
    """In one the frozen part is in float64, in another the trained one: bytes are not numbers."""
    lora, mixed = tiny_gpt2(), tiny_llama(n_layer=1)
    moved_adapter(lora, r=3, target_modules=["q_proj", "up_proj"])
    moved_adapter(mixed, r=5, target_modules="all-linear")
    for p in mixed.parameters():
        if not p.requires_grad:
            p.data = p.data.astype(np.float64)
    partly, nearly_full = tiny_llama(), tiny_gpt2(n_layer=1)
    nearly_full.parameters()[0].requires_grad = False
    for p in partly.parameters():
        p.requires_grad = p.ndim < 2
        if p.requires_grad:
            p.data = p.data.astype(np.float64)
    return {
        "a model with an adapter": lora,
        "one whose frozen part is in float64": mixed,
        "full fine-tuning of all but one array": nearly_full,
        "a model in which the norms train, in float64": partly,
    }


@exercise(
    hints=(
        "`model.parameters()` has all of them, each once. `requires_grad` says which train.",
        "`p.data.nbytes` are its bytes. Divide the sum over those that train by the sum over all.",
    )
)
def adapter_share(yours: Yours) -> str:
    for about, model in _models().items():
        named = model.named_parameters()
        params = model.parameters()
        trained = [p for p in params if p.requires_grad]
        every, part = (sum(p.data.nbytes for p in some) for some in (params, trained))
        numbers = sum(p.size for p in trained) / sum(p.size for p in params)
        of_lora = sum(p.data.nbytes for name, p in named if name.endswith((".A", ".B")))
        frozen = every - part
        mistakes = {
            "that is the part that is frozen": frozen / every,
            "divide by all bytes, not by the frozen ones": part / frozen,
            "that counts numbers; a number may have 4 bytes or 8": numbers,
            "that counts arrays; they differ in size": len(trained) / len(params),
            "a share is from 0 to 1; that is per cent": 100 * part / every,
            "what trains need not be an adapter: requires_grad says it": of_lora / every,
            "a step keeps more, but here only the parameters are asked for": 4 * part / every,
        }
        yours.compare(f"share for {about}", yours(model), part / every, mistakes, 1e-6)
    return "So the sentence is wrong: far more than the adapter is in memory."


Factors = tuple[np.ndarray, np.ndarray, float]
World = Callable[[int], Factors]
CLAIMS = {
    "double_half": (2, 1 / 2),
    "double_same": (2, 1),
    "double_root": (2, 1 / math.sqrt(2)),
    "fourfold_half": (4, 1 / 2),
}


def world(power: float, numbers: int = 1, d_in: int = 48, d_out: int = 80) -> World:
    """make(r) -> (A, B, s), where s falls with r to this power, and the number of entries grows
    with r to the power `numbers`."""

    def make(r: int) -> Factors:
        k = r**numbers
        return np.full((d_in, k), 0.1), np.zeros((k, d_out)), 16 / r**power

    return make


def _thin_b(r: int) -> Factors:
    """B does not grow, so the numbers do not double."""
    return np.full((30, r), 0.1), np.zeros((4, 70)), 16 / r


def _thin_a(r: int) -> Factors:
    """A does not grow."""
    return np.full((30, 4), 0.1), np.zeros((r, 70)), 16 / r


def _nearly_half(r: int) -> Factors:
    """s falls to 0.54 of what it was, which is not a half."""
    return np.full((30, r), 0.1), np.zeros((r, 70)), 16 / r**0.9


def _as_wide_as_r(r: int) -> Factors:
    """A layer that grows with r: A and B have four times the entries, and so has A B."""
    return np.full((5 * r, r), 0.1), np.zeros((r, 7 * r)), 16 / r


def _worlds() -> dict[str, World]:
    return {
        "s = alpha / r": world(1),
        "s = alpha / r, in a thin layer": world(1, d_in=3, d_out=500),
        "s = alpha": world(0),
        "s = alpha / sqrt(r)": world(0.5),
        "as many columns as r squared, s = alpha / r": world(1, 2),
        "as many columns as r squared, s = alpha": world(0, 2),
        "s = alpha / r squared": world(2),
        "a B that does not grow": _thin_b,
        "an A that does not grow": _thin_a,
        "s falls by less than a half": _nearly_half,
        "a layer that grows with r": _as_wide_as_r,
    }


def _holding(make: World, slip: str = "", r: int = 4) -> list[str]:
    (A, B, s), (A2, B2, s2) = make(r), make(2 * r)
    grown, scaled = (A2.size + B2.size) / (A.size + B.size), s2 / s
    if slip == "only a":
        grown = A2.size / A.size
    if slip == "columns":
        grown = (A2.shape[0] * B2.shape[1]) / (A.shape[0] * B.shape[1])
    if slip == "flipped":
        scaled = s / s2
    if slip == "always":
        return ["double_half"]
    found = []
    for key, (numbers, scale) in CLAIMS.items():
        counts, scales = math.isclose(grown, numbers), math.isclose(scaled, scale)
        holds = {
            "either": counts or scales,
            "numbers alone": counts,
            "scale alone": scales,
            "smaller": counts and (scaled < 1) == (scale < 1),
        }
        if holds.get(slip, counts and scales):
            found.append(key)
    return found


@exercise(
    hints=(
        "Call make for two ranks, one twice the other. Of each take `A.size + B.size` and s, and "
        "divide.",
        "`numbers == 2 and np.isclose(scale, 1 / 2)` is the claim of `double_half`. Collect the "
        "keys whose claim holds: often one, sometimes none.",
    )
)
def doubled_rank(yours: Yours) -> str:
    slips = {
        "a demo must measure: that is the same answer in every world": "always",
        "B counts as well as A": "only a",
        "count the entries of A and B, not those of A B": "columns",
        "that ratio is the wrong way round": "flipped",
        "both halves of a claim must hold, and one does not": "either",
        "half of each claim is about s, too": "numbers alone",
        "half of each claim is about the numbers, too": "scale alone",
        "smaller is not enough: each claim says by how much": "smaller",
    }
    for about, make in _worlds().items():
        got = yours(make)
        require(
            isinstance(got, list | tuple | set | frozenset),
            "return a list of the keys whose claims hold, an empty one if none does",
        )
        require(
            all(key in CLAIMS for key in got),
            f"a key is one of {', '.join(CLAIMS)}",
        )
        wrong: dict[str, Any] = {why: _joined(_holding(make, slip)) for why, slip in slips.items()}
        yours.compare(f"answer where {about}", _joined(got), _joined(_holding(make)), wrong)
    return "It proves the key of the card, and would have noticed if another choice were right."


def _joined(keys: Any) -> str:
    return ", ".join(sorted(keys)) or "none"
