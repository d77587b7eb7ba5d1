"""Answers to lesson 11's exercises: right ones in other styles, and wrong ones with the words of
the reason that each must get, or None."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import groupby
from math import ceil, comb, erfc, log, prod, sqrt
from typing import Any

import numpy as np

import minilora as ml
from minilora.learn import lesson_11 as L

# score_by_topic(answers)


def score_by_counters(answers):
    asked = Counter(topic for topic, _ in answers)
    right = Counter(topic for topic, was_right in answers if was_right)
    by_name = sorted((topic, right[topic], asked[topic]) for topic in asked)
    return sorted(by_name, key=lambda triple: triple[1] / triple[2])


def score_by_groups(answers):
    found = []
    for topic, group in groupby(sorted(answers), key=lambda pair: pair[0]):
        marks = [was_right for _, was_right in group]
        found.append((sum(marks) / len(marks), topic, sum(marks), len(marks)))
    return [list(entry[1:]) for entry in sorted(found)]


def score_by_lists(answers):
    marks = defaultdict(list)
    for topic, was_right in answers:
        marks[topic].append(was_right)
    names = sorted(marks, key=lambda topic: (np.mean(marks[topic]), topic))
    return tuple((name, int(np.sum(marks[name])), len(marks[name])) for name in names)


def scored(key=lambda r, n: r / n, backwards=False, shown=lambda t, r, n: (t, r, n)):
    return lambda sheet: [shown(*triple) for triple in L._scored(sheet, key, backwards)]


def score_in_order_of_appearance(answers):
    triples = {topic: (topic, r, n) for topic, r, n in L._scored(answers)}
    return [triples[topic] for topic in dict.fromkeys(topic for topic, _ in answers)]


# chance_at_least(k, n, p) and fewest_right(n, p, level)


def tail_by_complement(k, n, p):
    return 1 - sum(L._terms(n, p)[:k])


def tail_by_recursion(k, n, p):
    if k <= 0:
        return 1.0
    if n == 0:
        return 0.0
    return p * tail_by_recursion(k - 1, n - 1, p) + (1 - p) * tail_by_recursion(k, n - 1, p)


def tail_by_convolution(k, n, p):
    chances = np.ones(1)
    for _ in range(n):
        chances = np.convolve(chances, [1 - p, p])
    return chances[k:].sum()


def tail_by_products(k, n, p):
    total = 0.0
    for j in range(k, n + 1):
        ways = prod(range(n - j + 1, n + 1)) / prod(range(1, j + 1))
        total += ways * p**j * (1 - p) ** (n - j)
    return total


def tail_of(part):
    return lambda k, n, p: float(np.sum(L._terms(n, p)[part(k, n)]))


def normal_tail(k, n, p):
    return erfc((k - 0.5 - n * p) / sqrt(2 * n * p * (1 - p))) / 2


def tails(n, p):
    return [sum(L._terms(n, p)[k:]) for k in range(n + 2)]


def fewest_from_above(n, p, level):
    k, tail, terms = n + 1, 0.0, L._terms(n, p)
    while tail + terms[k - 1] < level:
        k -= 1
        tail += terms[k]
    return k


def fewest_that_may_be_the_level(n, p, level):
    return next(k for k in range(n + 2) if sum(L._terms(n, p)[k:]) <= level)


def fewest_by_bisection(n, p, level):
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tails(n, p)[middle] < level else (middle + 1, high)
    return low


def fewest_by_normal(n, p, level):
    return next(k for k in range(n + 2) if normal_tail(k, n, p) < level)


def fewest_from_the_mean(n, p, level):
    return next(k for k in range(round(n * p), n + 2) if tails(n, p)[k] < level)


def fewest_by_simulation(n, p, level):
    found = np.random.default_rng(0).binomial(n, p, 2000)
    return next(k for k in range(n + 2) if np.mean(found >= k) < level)


# days_until(stability, wanted)


def days_by_bisection(stability, wanted):
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        recall = (1 + (0.9 ** (-1 / 0.1542) - 1) * middle / stability) ** -0.1542
        low, high = (middle, high) if recall > wanted else (low, middle)
    return low


def days_by_logarithms(stability, wanted):
    grow = [np.expm1(-np.log(chance) / 0.1542) for chance in (wanted, 0.9)]
    return stability * grow[0] / grow[1]


def days(change):
    """An answer of R ** (-1 / w) - 1 and the same for 0.9."""
    return lambda S, R: change(S, R, R ** (-1 / 0.1542) - 1, 0.9 ** (-1 / 0.1542) - 1)


# what_is_decomposed(W, tuned, r)


def by_gram(W, tuned, r):
    ranks = [np.sum(np.linalg.eigvalsh(M.T @ M) > 1e-12) for M in (tuned - W, tuned)]
    return next((word for word, k in zip(L._WHAT, ranks, strict=False) if k <= r), "neither")


def by_next_singular_value(W, tuned, r):
    change, weight = (np.linalg.svd(M)[1][r] for M in (tuned - W, tuned))
    return "The change" if change < 1e-8 else "THE WEIGHT" if weight < 1e-8 else " neither "


def by_pinv(W, tuned, r):
    for word, M in (("the change", tuned - W), ("the weight", tuned)):
        projector = np.linalg.pinv(M, rcond=1e-10) @ M
        if round(float(np.trace(projector))) <= r:
            return word
    return "neither"


def decomposed(slip):
    return lambda W, tuned, r: L._decomposed(W, tuned, r, slip)


def by_entries(W, tuned, r):
    changed = int(np.sum(tuned != W))
    return "the change" if changed <= r * sum(W.shape) else "neither"


def by_norm(W, tuned, r):
    small = np.linalg.norm(tuned - W) < np.linalg.norm(W)
    return "the change" if small else "the weight"


def by_stable_rank(W, tuned, r):
    for word, M in (("the change", tuned - W), ("the weight", tuned)):
        S = np.linalg.svd(M)[1]
        if np.sum(S**2) <= r * S[0] ** 2:
            return word
    return "neither"


def the_weight_first(W, tuned, r):
    if L._rank(tuned) <= r:
        return "the weight"
    return "the change" if L._rank(tuned - W) <= r else "neither"


def by_default_tolerance(W, tuned, r):
    change, weight = np.linalg.matrix_rank(tuned - W), np.linalg.matrix_rank(tuned)
    return "the change" if change <= r else "the weight" if weight <= r else "neither"


def by_diagonal_of_qr(W, tuned, r):
    for word, M in (("the change", tuned - W), ("the weight", tuned)):
        if np.sum(np.abs(np.diag(np.linalg.qr(M)[1])) > 1e-8) <= r:
            return word
    return "neither"


def unless_unchanged(W, tuned, r):
    return "neither" if np.allclose(W, tuned) else L._decomposed(W, tuned, r)


# adapter_share(model)


def share(top, bottom=lambda p: True, size=lambda p: p.data.nbytes):
    def answer(model):
        params = model.parameters()
        below = sum(size(p) for p in params if bottom(p))
        return sum(size(p) for p in params if top(p)) / below

    return answer


def trains(p):
    return p.requires_grad


def share_and_freezes(model):
    found = share(trains)(model)
    model.requires_grad_(False)
    return found


def share_by_loops(model):
    part = every = 0
    for _, p in model.named_parameters():
        n = int(np.prod(p.shape)) * p.data.itemsize
        every += n
        if p.requires_grad:
            part += n
    return part / every


def share_of_lora(model):
    named = model.named_parameters()
    of_lora = sum(p.data.nbytes for name, p in named if name.endswith((".A", ".B")))
    return of_lora / sum(p.data.nbytes for p in model.parameters())


def four_bytes_each(model):
    trained = sum(4 * p.size for p in model.parameters() if p.requires_grad)
    return trained / sum(p.data.nbytes for p in model.parameters())


# doubled_rank(make)


def held_for_b(make):
    (_, B, s), (_, B2, s2) = make(4), make(8)
    found = B2.size / B.size, s2 / s
    return [key for key, claim in L.CLAIMS.items() if np.allclose(claim, found)]


def held_roughly(make):
    (A, B, s), (A2, B2, s2) = make(4), make(8)
    found = (A2.size + B2.size) / (A.size + B.size), s2 / s
    return [key for key, claim in L.CLAIMS.items() if np.allclose(claim, found, rtol=0, atol=0.1)]


def held(slip="", r=4):
    return lambda make: L._holding(make, slip, r)


def held_by_table(make):
    sizes, scales = [], []
    for r in (3, 6):
        A, B, s = make(r)
        sizes.append(A.shape[0] * A.shape[1] + B.shape[0] * B.shape[1])
        scales.append(s)
    table = {(2, 0.5): "double_half", (2, 1.0): "double_same", (2, 0.7071): "double_root",
             (4, 0.5): "fourfold_half"}  # fmt: skip
    key = table.get((sizes[1] / sizes[0], round(scales[1] / scales[0], 4)))
    return {key} - {None}


def held_by_logarithms(make):
    (A, B, s), (A2, B2, s2) = make(1), make(2)
    grown = log((A2.size + B2.size) / (A.size + B.size), 2)
    fallen = log(s / s2, 2)
    claims = [("double_half", 1, 1), ("double_same", 1, 0), ("double_root", 1, 0.5),
              ("fourfold_half", 2, 1)]  # fmt: skip
    return tuple(k for k, g, f in claims if abs(grown - g) < 1e-9 and abs(fallen - f) < 1e-9)


def nearest(make):
    (A, B, s), (A2, B2, s2) = make(4), make(8)
    found = (A2.size + B2.size) / (A.size + B.size), s2 / s
    return [min(L.CLAIMS, key=lambda key: np.hypot(*np.subtract(L.CLAIMS[key], found)))]


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "score_by_topic": [score_by_counters, score_by_groups, score_by_lists, scored(), L._scored],
    "chance_at_least": [
        tail_by_complement,
        tail_by_recursion,
        tail_by_convolution,
        tail_by_products,
        lambda k, n, p: sum(comb(n, i) * p ** (n - i) * (1 - p) ** i for i in range(n - k + 1)),
    ],
    "fewest_right": [
        fewest_from_above,
        fewest_by_bisection,
        lambda n, p, level: int(np.argmax(np.array(tails(n, p)) < level)),
        lambda n, p, level: float(sum(tail >= level for tail in tails(n, p))),
        lambda n, p, level: next(k for k, tail in enumerate(tails(n, p)) if tail < level),
    ],
    "days_until": [
        days_by_bisection,
        days_by_logarithms,
        days(lambda S, R, power, nine: S / nine * power),
        lambda S, R: np.float32(days_by_logarithms(S, R)),
        lambda S, R: ml.Tensor(np.array(days_by_logarithms(S, R))),
    ],
    "what_is_decomposed": [
        by_gram,
        by_next_singular_value,
        by_pinv,
        decomposed(""),
        lambda W, tuned, r: np.str_(L._decomposed(W, tuned, r)),
    ],
    "adapter_share": [
        share(trains),
        share_by_loops,
        lambda model: ml.Tensor(np.array(share_by_loops(model))),
        lambda model: 1 - share(lambda p: not p.requires_grad)(model),
        lambda model: np.average(
            [p.requires_grad for p in model.parameters()],
            weights=[p.data.nbytes for p in model.parameters()],
        ),
    ],
    "doubled_rank": [
        held(),
        held_by_table,
        held_by_logarithms,
        held(r=7),
        lambda make: frozenset(L._holding(make)),
    ],
}

WRONG: dict[str, list[tuple[Callable[..., Any], str | None]]] = {
    "score_by_topic": [
        (scored(lambda r, n: -r / n), "the weakest topic comes first"),
        (scored(lambda r, n: r), "not by their number"),
        (scored(lambda r, n: r - n), "not by how many are wrong"),
        (scored(lambda r, n: 0), "alphabetical order"),
        (scored(backwards=True), "the first by name comes first"),
        (lambda answers: scored()(answers)[:1], "it returns 1 triple for answers on 2 topics"),
        (lambda answers: dict(answers), "it returns dict for answers on 2 topics"),
        (scored(shown=lambda t, r, n: (t, n - r, n)), "the middle number"),
        (scored(shown=lambda t, r, n: (t, r, n - r)), "is of all answers on the topic"),
        (scored(shown=lambda t, r, n: (t, r / n)), "expected 3 values"),
        (score_in_order_of_appearance, None),
        (scored(lambda r, n: n), None),
        (scored(lambda r, n: -n), None),
        (scored(lambda r, n: r % 2), None),
        (scored(shown=lambda t, r, n: (t, n, r)), None),
        (scored(lambda r, n: round(100 * r / n)), None),
    ],
    "chance_at_least": [
        (tail_of(lambda k, n: slice(k, k + 1)), "exactly k"),
        (tail_of(lambda k, n: slice(k + 1, None)), "k itself counts"),
        (tail_of(lambda k, n: slice(k, n)), "n itself counts"),
        (tail_of(lambda k, n: slice(k + 1)), "at most k"),
        (tail_of(lambda k, n: slice(k)), "fewer than k"),
        (
            lambda k, n, p: sum(p**j * (1 - p) ** (n - j) for j in range(k, n + 1)),
            "there are comb(n, j) ways",
        ),
        (lambda k, n, p: sum(comb(n, j) * p**j for j in range(k, n + 1)), "answers are wrong"),
        (lambda k, n, p: sum(L._terms(n, 1 - p)[k:]), "1 - p of a wrong one"),
        (normal_tail, None),
        (lambda k, n, p: p**k, None),
        (lambda k, n, p: comb(n, k) * p**k, None),
        (lambda k, n, p: k * p / n, None),
        (lambda k, n, p: 1 - (1 - p) ** n, None),
        (lambda k, n, p: np.exp(-2 * n * (k / n - p) ** 2), None),
    ],
    "fewest_right": [
        (lambda n, p, level: fewest_from_above(n, p, level) - 1, "guessed too often"),
        (lambda n, p, level: fewest_from_above(n, p, level) + 1, "one more than needed"),
        (
            lambda n, p, level: next(
                (k for k in range(ceil(n * p), n + 1) if L._terms(n, p)[k] < level), n + 1
            ),
            "not for exactly k",
        ),
        (lambda n, p, level: round(n * p), "on average"),
        (lambda n, p, level: fewest_from_above(n, p, 0.05), "not always 5 per cent"),
        (lambda n, p, level: fewest_from_above(n, 0.25, level), "not always one in four"),
        (lambda n, p, level: min(n, fewest_from_above(n, p, level)), "return n + 1"),
        (lambda n, p, level: ceil(n * p + 2 * sqrt(n * p * (1 - p))), "whatever the level"),
        (fewest_that_may_be_the_level, "equal to the level"),
        (fewest_by_normal, None),
        (lambda n, p, level: ceil(n * (1 - level)), None),
        (lambda n, p, level: ceil(0.7 * n), None),
        (lambda n, p, level: ceil(log(level) / log(p)), None),
        (lambda n, p, level: ceil(n * p / level**0.1), None),
        (fewest_from_the_mean, None),
        (fewest_by_simulation, None),
    ],
    "days_until": [
        (lambda S, R: S * log(R) / log(0.9), "forgets exponentially"),
        (lambda S, R: S * (1 - R) / 0.1, "in a straight line"),
        (days(lambda S, R, power, nine: S * power), "f is missing"),
        (days(lambda S, R, power, nine: S * power * nine), "divide by f"),
        (days(lambda S, R, power, nine: power / nine / S), "S multiplies"),
        (lambda S, R: S * (R**-0.1542 - 1) / (0.9**-0.1542 - 1), "the exponent is 1 / w"),
        (days(lambda S, R, power, nine: (1 + nine * R / S) ** -0.1542), "not the days"),
        (lambda S, R: S, "whatever is wanted"),
        (lambda S, R: S * 0.9 / R, None),
        (lambda S, R: S * R, None),
        (lambda S, R: -S * log(R), None),
        (days(lambda S, R, power, nine: S * (power + 1) / (nine + 1)), None),
        (lambda S, R: S * ((R**-2 - 1) / (0.9**-2 - 1)), None),
    ],
    "what_is_decomposed": [
        (decomposed("base"), "not the base's"),
        (decomposed("below"), "a rank of r itself"),
        (decomposed("exactly"), "a rank below r"),
        (decomposed("any"), "compare the rank with r"),
        (decomposed("swapped"), "compression in the weight"),
        (decomposed("two ways"), "a third answer"),
        (decomposed("coarse"), "weak directions count too"),
        (by_entries, None),
        (by_norm, None),
        (by_stable_rank, None),
        (the_weight_first, None),
        (by_default_tolerance, None),
        (by_diagonal_of_qr, None),
        (unless_unchanged, None),
        (lambda W, tuned, r: "the change", None),
        (lambda W, tuned, r: L._WHAT[r % 3], None),
        (lambda W, tuned, r: "the weight" if r > 3 else "the change", None),
    ],
    "adapter_share": [
        (share(lambda p: not p.requires_grad), "the part that is frozen"),
        (share(trains, lambda p: not p.requires_grad), "not by the frozen ones"),
        (share(trains, size=lambda p: p.size), "that counts numbers"),
        (share(trains, size=lambda p: 1), "that counts arrays"),
        (lambda model: 100 * share(trains)(model), "that is per cent"),
        (share_of_lora, "what trains need not be an adapter"),
        (lambda model: 4 * share(trains)(model), "only the parameters are asked for"),
        (share(trains, size=lambda p: p.shape[-1]), None),
        (share_and_freezes, "you changed the model you were given"),
        (share(lambda p: p.ndim < 2), None),
        (lambda model: 0.01, None),
        (share(lambda p: p.requires_grad and p.data.dtype == np.float32), None),
        (four_bytes_each, None),
        (lambda model: sum(p.data.nbytes for p in model.trainable_parameters()), None),
        (lambda model: ml.count_parameters(model)[0] / len(model.parameters()), None),
    ],
    "doubled_rank": [
        (held("always"), "the same answer in every world"),
        (held("only a"), "B counts as well as A"),
        (held("columns"), "not those of A B"),
        (held("flipped"), "the wrong way round"),
        (held("either"), "both halves of a claim"),
        (held("numbers alone"), "about s, too"),
        (held("scale alone"), "about the numbers, too"),
        (held("smaller"), "by how much"),
        (lambda make: "double_half", "return a list of the keys"),
        (lambda make: ["right"], "a key is one of"),
        (nearest, None),
        (held_for_b, None),
        (held_roughly, None),
        (lambda make: list(L.CLAIMS), None),
        (lambda make: [], None),
        (lambda make: ["double_root"], None),
        (lambda make: ["double_half" if make(4)[2] < make(2)[2] else "double_same"], None),
    ],
}

EQUIVALENT: dict[str, dict[str, str]] = {
    "chance_at_least": {"line 3: 1 -> 2": "comb(n, n + 1) is 0"},
    "fewest_right": {
        "line 3: 0 -> 1": "the chance of at least 0 is 1, which is below no level",
    },
    "adapter_share": {
        "line 5: bytes_of[p.requires_grad] += p.data.nbytes -> "
        "bytes_of[p.requires_grad] -= p.data.nbytes": "all signs are turned, and cancel",
    },
}
