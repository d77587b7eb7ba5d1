"""The checkers of lesson 12, A real language model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilora.learn.exercises import Yours, exercise, unpack


@exercise(
    hints=(
        "At place i the model has read `ids[: i + 1]` and should say `ids[i + 1]`: the inputs are "
        "all ids but the last, the targets all but the first.",
        "Whether a target counts is `said` of the target itself: "
        "`np.where(said[1:], ids[1:], -100)`.",
    )
)
def answer_targets(yours: Yours) -> str:
    rng = np.random.default_rng(12)
    for asked, told, more in ((5, 4, 0), (3, 1, 0), (7, 6, 3), (1, 9, 0)):
        n = asked + told + more
        ids = rng.choice(np.arange(1, 900), size=n, replace=False)
        said = (np.arange(n) >= asked) & (np.arange(n) < asked + told)
        inputs, targets = unpack(yours(ids, said), "inputs, targets")
        yours.compare("inputs", inputs, ids[:-1], {
            "the last id is read by nobody: nothing follows that it could predict": ids,
            "the inputs begin with the first id; it is the targets that begin with the second":
                ids[1:],
        })  # fmt: skip
        yours.compare("targets", targets, np.where(said[1:], ids[1:], -100), {
            "whether a target counts is said of the target, not of the token before it":
                np.where(said[:-1], ids[1:], -100),
            "at each place the target is the NEXT token": np.where(said[:-1], ids[:-1], -100),
            "the answer counts, the question does not: that is the wrong way round":
                np.where(said[1:], -100, ids[1:]),
            "every token counts there; what the assistant does not say must be -100": ids[1:],
            "0 is a token like any other: what does not count is -100":
                np.where(said[1:], ids[1:], 0),
            "with -1 the loss would take the last token of the vocabulary: what does not count is "
            "-100": np.where(said[1:], ids[1:], -1),
            "only the question's targets are -100, and what follows the answer too":
                np.where(np.arange(1, n) >= asked, ids[1:], -100),
        })  # fmt: skip
    return "The model reads the question, and learns from the answer alone."


@exercise(
    hints=(
        "Each choice has one array, with a log-probability for each of its tokens.",
        "`int(np.argmax([np.mean(log_p) for log_p in log_ps]))`",
    )
)
def likeliest(yours: Yours) -> str:
    rng = np.random.default_rng(3)
    for lengths in ((2, 9, 5, 4), (7, 3, 12), (1, 6, 2, 3), (4, 4, 4, 4), (5, 2, 8, 11)) * 3:
        log_ps = [-rng.gamma(1.2, 2.0, size=n) for n in lengths]
        by: dict[str, Callable[[np.ndarray], Any]] = {
            "the sum grows with each token and so prefers short choices; take the mean": np.sum,
            "the first token alone says little: take the mean over all": lambda a: a[0],
            "the last token alone says little: take the mean over all": lambda a: a[-1],
            "one likely token does not make a likely choice: take the mean, not the highest":
                np.max,
            "take the mean, not the lowest": np.min,
            "take the mean, not the median": np.median,
            "take the mean of the logarithms, not of the probabilities": lambda a: np.exp(a).mean(),
            "log-probabilities are below 0: the highest mean is the one nearest to 0":
                lambda a: -a.mean(),
            "how long a choice is does not matter": len,
            "how short a choice is does not matter": lambda a: -len(a),
        }  # fmt: skip
        mistakes = {why: int(np.argmax([f(a) for a in log_ps])) for why, f in by.items()}
        got = yours([array.copy() for array in log_ps])
        right = int(np.argmax([array.mean() for array in log_ps]))
        yours.compare(f"choice among texts of {lengths} tokens", got, right, mistakes)
    return "No choice is shown to the model: each is judged by itself."


@exercise(
    hints=(
        "Questions with the same mark before and after say nothing. Of the n that changed, count "
        "how many became right and how many wrong; the smaller count is k.",
        "If a change were as likely for the better as for the worse, at most k of n go the rarer "
        "way with the chance `sum(math.comb(n, j) for j in range(k + 1)) / 2**n`. Twice that, and "
        "never more than 1.",
    )
)
def mcnemar(yours: Yours) -> str:
    cases = ((3, 10, 4, 5), (0, 6, 9, 2), (5, 5, 1, 1), (1, 8, 0, 20), (12, 2, 7, 3), (0, 0, 4, 4),
             (2, 4, 30, 0), (0, 1, 3, 3), (9, 21, 12, 3))  # fmt: skip
    rng = np.random.default_rng(4)
    for lost, won, stayed_right, stayed_wrong in cases:
        pairs = [(1, 0)] * lost + [(0, 1)] * won + [(1, 1)] * stayed_right
        pairs += [(0, 0)] * stayed_wrong
        marks = [pairs[i] for i in rng.permutation(len(pairs))]
        before, after = ([bool(pair[side]) for pair in marks] for side in (0, 1))
        n, k, total = lost + won, min(lost, won), len(marks)
        tail = _at_most(k, n)
        got = yours(before, after)
        yours.compare("p", got, min(1.0, 2 * tail), {
            "that is one side only: a change for the worse as large would surprise as much": tail,
            "p is a probability: never more than 1": 2 * tail,
            "that counts only fewer than k: at most k": min(1.0, 2 * (tail - _exactly(k, n))),
            "that is the chance of exactly k": min(1.0, 2 * _exactly(k, n)),
            "questions that stayed as they were say nothing: leave them out":
                min(1.0, 2 * _at_most(k, total)),
            "that is the normal approximation; n is small, so add up the binomial": _chi(lost, won),
            "that compares the two scores as if other people had answered; the questions are the "
            "same, so look at those that changed": _unpaired(sum(before), sum(after), total),
            "a small p speaks against chance: that is 1 - p": 1 - min(1.0, 2 * tail),
        })  # fmt: skip
    return "Only the questions that changed sides count."


def _exactly(k: int, n: int) -> float:
    return math.comb(n, k) / 2**n


def _at_most(k: int, n: int) -> float:
    return sum(_exactly(j, n) for j in range(k + 1))


def _chi(lost: int, won: int) -> float:
    """McNemar's own approximation of 1947."""
    return math.erfc(abs(won - lost) / math.sqrt(2 * max(1, won + lost)))


def _unpaired(before: int, after: int, total: int) -> float:
    """The normal test of two shares."""
    pooled = (before + after) / (2 * total)
    spread = math.sqrt(2 * pooled * (1 - pooled) / total)
    return math.erfc(abs(after - before) / total / spread / math.sqrt(2)) if spread else 1.0
