"""Answers to lesson 12's exercises: right ones in other styles, and wrong ones with the words of
the reason that each must get, or None."""

from collections.abc import Callable
from fractions import Fraction
from math import comb, erfc, lgamma, log, sqrt
from typing import Any

import numpy as np

from minilora.learn import lesson_12 as L

# answer_targets(ids, said)


def targets_by_loop(ids, said):
    inputs, targets = [], []
    for i in range(len(ids) - 1):
        inputs.append(int(ids[i]))
        targets.append(int(ids[i + 1]) if said[i + 1] else -100)
    return inputs, targets


def targets_by_assignment(ids, said):
    targets = np.full(len(ids) - 1, -100)
    targets[said[1:]] = ids[1:][said[1:]]
    return ids[:-1], targets


def targets_by_arithmetic(ids, said):
    counts = said.astype(int)[1:]
    return ids[:-1], ids[1:] * counts - 100 * (1 - counts)


def targets_in_one_array(ids, said):
    masked = np.array(ids)
    masked[~said] = -100
    return np.stack([ids[:-1], masked[1:]])


def targets_by_zip(ids, said):
    pairs = zip(ids[1:].tolist(), said[1:].tolist(), strict=True)
    return list(ids[:-1]), [i if counts else -100 for i, counts in pairs]


def targets_where(mask, ids_of=lambda ids: ids[1:], ignored=-100):
    return lambda ids, said: (ids[:-1], np.where(mask(said), ids_of(ids), ignored))


def targets_changed_in_place(ids, said):
    ids[~said] = -100
    return ids[:-1], ids[1:]


def targets_after_the_first(ids, said):
    first = int(np.flatnonzero(said)[0])
    return ids[:-1], np.where(np.arange(1, len(ids)) > first, ids[1:], -100)


def targets_shortened(ids, said):
    return ids[:-1][said[1:]], ids[1:][said[1:]]


# likeliest(log_ps)


def likeliest_by_key(log_ps):
    return max(range(len(log_ps)), key=lambda i: sum(log_ps[i]) / len(log_ps[i]))


def likeliest_by_perplexity(log_ps):
    return np.argmin([np.exp(-np.mean(log_p)) for log_p in log_ps])


def likeliest_by_geometric_mean(log_ps):
    return int(np.argmax([np.prod(np.exp(log_p)) ** (1 / len(log_p)) for log_p in log_ps]))


def likeliest_by_loop(log_ps):
    best, best_mean = 0, float("-inf")
    for i, log_p in enumerate(log_ps):
        total = 0.0
        for value in log_p:
            total += value
        if total / len(log_p) > best_mean:
            best, best_mean = i, total / len(log_p)
    return best


def likeliest_by_sorting(log_ps):
    return sorted((float(np.mean(a)), i) for i, a in enumerate(log_ps))[-1][1]


def likeliest_by(of):
    return lambda log_ps: int(np.argmax([of(a) for a in log_ps]))


# mcnemar(before, after)


def changed(before, after):
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    return lost, won


def mcnemar_by_fractions(before, after):
    lost, won = changed(before, after)
    n = lost + won
    tail = sum(Fraction(comb(n, j), 2**n) for j in range(min(lost, won) + 1))
    return float(min(Fraction(1), 2 * tail))


def mcnemar_from_above(before, after):
    lost, won = changed(before, after)
    n, k = lost + won, max(lost, won)
    return 1.0 if lost == won else 2 * sum(comb(n, j) for j in range(k, n + 1)) / 2**n


def mcnemar_by_arrays(before, after):
    difference = np.array(after, int) - np.array(before, int)
    n, k = (
        int(np.abs(difference).sum()),
        int(min((difference == 1).sum(), (difference == -1).sum())),
    )
    chances = np.ones(1)
    for _ in range(n):
        chances = np.convolve(chances, [0.5, 0.5])
    return np.minimum(1, 2 * chances[: k + 1].sum())


def mcnemar_by_logarithms(before, after):
    lost, won = changed(before, after)
    n = lost + won
    terms = [
        lgamma(n + 1) - lgamma(j + 1) - lgamma(n - j + 1) - n * log(2)
        for j in range(min(lost, won) + 1)
    ]
    return min(1.0, 2 * float(np.exp(terms).sum()))


def mcnemar_by_both_tails(before, after):
    """All outcomes that are as rare as this one, or rarer."""
    lost, won = changed(before, after)
    n = lost + won
    return sum(comb(n, j) for j in range(n + 1) if abs(2 * j - n) >= abs(won - lost)) / 2**n


def of_changed(p):
    return lambda before, after: p(*changed(before, after))


def mcnemar_continuity(lost, won):
    n = lost + won
    return erfc(max(0, abs(won - lost) - 1) / sqrt(2 * n)) if n else 1.0


def simulated(lost, won):
    n = lost + won
    drawn = np.random.default_rng(0).binomial(n, 0.5, 1000)
    return float(np.mean(np.abs(2 * drawn - n) >= abs(won - lost)))


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "answer_targets": [
        targets_by_loop,
        targets_by_assignment,
        targets_by_arithmetic,
        targets_in_one_array,
        targets_by_zip,
    ],
    "likeliest": [
        likeliest_by_key,
        likeliest_by_perplexity,
        likeliest_by_geometric_mean,
        likeliest_by_loop,
        likeliest_by_sorting,
    ],
    "mcnemar": [
        mcnemar_by_fractions,
        mcnemar_from_above,
        mcnemar_by_arrays,
        mcnemar_by_logarithms,
        mcnemar_by_both_tails,
    ],
}

WRONG: dict[str, list[tuple[Callable[..., Any], str | None]]] = {
    "answer_targets": [
        (targets_where(lambda said: said[:-1]), "not of the token before it"),
        (targets_where(lambda said: said[:-1], lambda ids: ids[:-1]), "the NEXT token"),
        (targets_where(lambda said: ~said[1:]), "the wrong way round"),
        (lambda ids, said: (ids[:-1], ids[1:]), "every token counts"),
        (targets_where(lambda said: said[1:], ignored=0), "0 is a token"),
        (targets_where(lambda said: said[1:], ignored=-1), "last token of the vocabulary"),
        (lambda ids, said: (ids, np.where(said[1:], ids[1:], -100)), "read by nobody"),
        (lambda ids, said: (ids[1:], np.where(said[1:], ids[1:], -100)), "begin with the first id"),
        (targets_changed_in_place, "changed"),
        (lambda ids, said: (ids, np.where(said, ids, -100)), None),
        (targets_after_the_first, None),
        (targets_shortened, None),
        (targets_where(lambda said: said[1:], ignored=100), None),
        (lambda ids, said: (ids[:-1], np.full(len(ids) - 1, -100)), None),
        (lambda ids, said: (ids[:-1], np.where(said[1:], ids[1:], -100)[::-1]), None),
        (targets_where(lambda said: said[1:] | said[:-1]), None),
    ],
    "likeliest": [
        (likeliest_by(np.sum), "prefers short choices"),
        (likeliest_by(lambda a: a[0]), "the first token alone"),
        (likeliest_by(lambda a: a[-1]), "the last token alone"),
        (likeliest_by(np.max), "not the highest"),
        (likeliest_by(np.min), "not the lowest"),
        (likeliest_by(np.median), "not the median"),
        (likeliest_by(lambda a: np.exp(a).mean()), "not of the probabilities"),
        (likeliest_by(lambda a: -a.mean()), "nearest to 0"),
        (likeliest_by(len), "how long a choice is"),
        (likeliest_by(lambda a: -len(a)), "how short a choice is"),
        (likeliest_by(lambda a: a.sum() / np.sqrt(len(a))), None),
        (likeliest_by(lambda a: a.sum() / (len(a) + 1)), None),
        (likeliest_by(lambda a: a[:3].mean()), None),
        (lambda log_ps: 0, None),
        (lambda log_ps: max(np.mean(a) for a in log_ps), None),
        (lambda log_ps: 1 + int(np.argmax([np.mean(a) for a in log_ps])), None),
    ],
    "mcnemar": [
        (of_changed(lambda b, c: L._at_most(min(b, c), b + c)), "one side only"),
        (of_changed(lambda b, c: 2 * L._at_most(min(b, c), b + c)), "never more than 1"),
        (of_changed(lambda b, c: min(1, 2 * L._exactly(min(b, c), b + c))), "exactly k"),
        (of_changed(L._chi), "normal approximation"),
        (
            lambda before, after: L._unpaired(sum(before), sum(after), len(before)),
            "as if other people",
        ),
        (
            lambda before, after: min(1, 2 * L._at_most(min(changed(before, after)), len(before))),
            "leave them out",
        ),
        (
            of_changed(lambda b, c: 1 - min(1, 2 * L._at_most(min(b, c), b + c))),
            "that is 1 - p",
        ),
        (
            of_changed(
                lambda b, c: min(
                    1, 2 * (L._at_most(min(b, c), b + c) - L._exactly(min(b, c), b + c))
                )
            ),
            "only fewer than k",
        ),
        (of_changed(mcnemar_continuity), None),
        (of_changed(simulated), None),
        (of_changed(lambda b, c: min(1, 2 * L._at_most(b, b + c))), None),
        (of_changed(lambda b, c: b / max(1, b + c)), None),
        (of_changed(lambda b, c: 2.0 ** -abs(c - b)), None),
        (lambda before, after: abs(sum(after) - sum(before)) / len(before), None),
    ],
}

EQUIVALENT = {"mcnemar": {"line 3: True -> False": "both lists have one mark for each question"}}
