"""The checkers of lesson 00, LoRA in ten minutes."""

from __future__ import annotations

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack
from minilora.system.errors import how_many


def _whole_numbers(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Arrays of small whole numbers, none zero, that nobody knows before the check runs."""
    rng = np.random.default_rng()
    return [rng.choice([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], shape) for shape in shapes]


@exercise(
    hints=(
        "Two ways lead from x to y: through W, and through A and then B. Add them.",
        "The detour is x A first, and that times B. Which number scales it?",
    )
)
def lora_forward(yours: Yours) -> str:
    for front, d_out, alpha, r in (
        ((5,), 3, 10, 4),
        ((2, 3), 4, 1, 2),
        ((), 5, 3, 4),
        ((4,), 6, 20, 3),
    ):
        x, W, A, B = _whole_numbers((*front, 6), (6, d_out), (6, r), (r, d_out))
        frozen, detour, s = x @ W, (x @ A) @ B, alpha / r
        mistakes = {
            "that is the detour alone; x W comes on top": s * detour,
            "that is x W alone, without the detour": frozen,
            "the detour must be multiplied by s = alpha / r": frozen + detour,
            "s is alpha / r, not alpha": frozen + alpha * detour,
            "that is with r / alpha; s is alpha / r": frozen + r / alpha * detour,
            "that is with alpha / sqrt(r), as in rsLoRA; here s is alpha / r": frozen
            + alpha / np.sqrt(r) * detour,
            "alpha // r rounds down; use one /": frozen + alpha // r * detour,
            "s belongs to A B alone, and not to W": s * (frozen + detour),
            "s must come in once, not with A and with B": frozen + s * s * detour,
            "the detour is added, not taken off": frozen - s * detour,
        }
        got = yours(x, W, A, B, alpha, r)
        yours.compare(f"y for {yours.inputs}", got, frozen + s * detour, mistakes)
    return "You never needed the whole of A B: x goes through r numbers on its way."


@exercise(
    hints=(
        "How many numbers do A and B add for one matrix? Sum them over all, then divide.",
        "Above the line stands `sum(... for d_in, d_out in shapes)`, below it all numbers. Does "
        "`total` hold those of the adapters?",
    )
)
def trained_share(yours: Yours) -> str:
    block = [(128, 128)] * 4 + [(128, 512), (512, 128)]
    d = int(np.random.default_rng().integers(40, 90))
    for total, shapes, r in (
        (417_280, 2 * block, 4),
        (1_000, [(10, 20)], 3),
        (50_000, [(64, 30), (30, 96), (96, 10)], 5),
        (9 * d * d, [(2 * d, d), (d, 3 * d)], 2),
    ):
        trained = sum(r * (d_in + d_out) for d_in, d_out in shapes)
        first = r * sum(shapes[0])
        squares = sum(2 * r * d_in for d_in, _ in shapes)
        expected = trained / (total + trained)
        mistakes = {
            "that is a count; divide it by all numbers": trained,
            "below the line, the numbers of A and B are missing": trained / total,
            "that is in per cent; a share lies between 0 and 1": 100 * expected,
            "that is the share that is frozen": 1 - expected,
            "that is for r = 1": trained / r / (total + trained / r),
            "that is one matrix; sum over all in shapes": first / (total + first),
            "that is upside down": 1 / expected,
            "that takes each matrix as square; B has d_out columns": squares / (total + squares),
            "the numbers of A and B come on top of those of W, they do not replace any": trained
            / (total - trained),
        }
        what = f"share for total={total:,}, r={r} and {how_many(len(shapes), 'matrix', 'matrices')}"
        yours.compare(what, yours(total, list(shapes), r), expected, mistakes)
    return "The first of the models tried was docs-tiny, with LoRA of rank 4 on all its matrices."


@exercise(
    hints=(
        "Which product of A (d_in, r) and B (r, d_out) has the shape of W?",
        "It is A times B, in this order. Which number comes in front of it, and how do you get it "
        "from alpha and r?",
    )
)
def delta_weight(yours: Yours) -> str:
    for d_in, d_out, alpha, r in ((6, 3, 10, 4), (4, 4, 1, 2), (3, 5, 3, 1), (7, 4, 16, 6)):
        A, B = _whole_numbers((d_in, r), (r, d_out))
        product, s = A @ B, alpha / r
        mistakes = {
            "it lacks the factor s = alpha / r": product,
            "s is alpha / r, not alpha": alpha * product,
            "that is with r / alpha; s is alpha / r": r / alpha * product,
            "that is with alpha / sqrt(r), as in rsLoRA; here s is alpha / r": alpha
            / np.sqrt(r)
            * product,
            "alpha // r rounds down; use one /": alpha // r * product,
            "A comes first in our convention, (d_in, r) @ (r, d_out)": s * product.T,
            "s must come in once, not with A and with B": s * s * product,
        }
        got = yours(A, B, alpha, r)
        yours.compare(f"change of W for {yours.inputs}", got, s * product, mistakes)
    return "Its rank is at most r, whatever A and B hold."


@exercise(
    hints=(
        "Which operation gives a new array and which one writes into W?",
        "`W += ...` writes into the array you were given; `W + ...` makes a new one. What has to "
        "be added is the change of exercise 0.3.",
    )
)
def merge(yours: Yours) -> str:
    for d_in, d_out, r, s, W_size, B_starts in (
        (6, 3, 2, 2.5, 1, 1),
        (4, 4, 1, 0.25, 1, 1),
        (3, 7, 4, -1.5, 1, 1),
        (5, 6, 2, 0.5, 1 / 7, 1),  # taking the change off again would leave W rounded
        (5, 3, 2, 2.5, 1, 0),
    ):
        W, A, B = _whole_numbers((d_in, d_out), (d_in, r), (r, d_out))
        W, B = W_size * W, B_starts * B
        change = A @ B
        mistakes = {
            "s is missing: the adapter counts s times": W + change,
            "that is s A B alone, and W must be in it too": s * change,
            "that takes s A B off, which is unmerging": W - s * change,
            "s belongs to A B alone, and not to W": s * (W + change),
            "that is W, with nothing merged into it": W,
            "s must come in once, not with A and with B": W + s * s * change,
            "that merges the change twice": W + 2 * s * change,
        }
        got = yours(W, A, B, s)
        own = as_array(got)
        if not B_starts and own is not None:
            seen = f"for {yours.inputs}, B all zero, you return W itself"
            require(not np.shares_memory(own, W), f"{seen}: the result needs an array of its own")
        yours.compare(f"merged W for {yours.inputs}", got, W + s * change, mistakes)
    return "Merged, the model has as many numbers as before and needs no detour."


@exercise(
    hints=(
        "For B the rule has X = x A, M = B, Z = y. For A it has X = x, M = A, Z = x A: what is "
        "the gradient of that Z?",
        "By the second half of the rule, the gradient of x A is `s * G @ B.T`. The first half "
        "leads from there to A.",
    )
)
def lora_gradients(yours: Yours) -> str:
    for n, d_in, d_out, r, s, B_starts in (
        (5, 4, 3, 2, 2.5, 1), (3, 4, 4, 4, 0.5, 1), (4, 3, 3, 1, 2, 0),
    ):  # fmt: skip
        x, A, B, G = _whole_numbers((n, d_in), (d_in, r), (r, d_out), (n, d_out))
        B = B_starts * B
        grad_A, grad_B = s * x.T @ (G @ B.T), s * (x @ A).T @ G
        got_A, got_B = unpack(yours(x, A, B, s, G), "grad_A, grad_B")
        swapped = "those are the two in the wrong order: return grad_A, grad_B"
        of_both = {
            "s is missing from both: y holds it once, and so do they": 1 / s,
            "s came in twice": s,
            "that is divided by the number of rows: G holds all there is to divide": 1 / n,
            "they have the wrong sign": -1,
        }
        of_A = {why: factor * grad_A for why, factor in of_both.items()} | {
            swapped: grad_B,
            "s is missing from the gradient of A: that of x A is s * G @ B.T": grad_A / s,
            "the gradient of A is transposed: x.T comes first": grad_A.T,
            "the gradient of A is zero only while B is": 0 * A,
        }
        of_B = {why: factor * grad_B for why, factor in of_both.items()} | {
            swapped: grad_A,
            "s is missing from the gradient of B: what B multiplies is s * (x @ A)": grad_B / s,
            "the gradient of B is transposed: (x @ A).T comes first": grad_B.T,
        }
        zero = "" if B_starts else ", B all zero"
        yours.compare(f"gradient of A for {yours.inputs}{zero}", got_A, grad_A, of_A)
        yours.compare(f"gradient of B for {yours.inputs}{zero}", got_B, grad_B, of_B)
    return "The last case tried had B = 0: there the gradient of A is zero, that of B is not."


def _descend(
    x: np.ndarray, target: np.ndarray, W: np.ndarray, A: np.ndarray, B: np.ndarray,
    s: float, lr: float, steps: int, mistake: str = "",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What train_lora returns, rightly or with one of its mistakes."""
    n = 1 if mistake == "n" else len(x)
    first_G = (x @ W + s * (x @ A) @ B - target) / n
    for _ in range(steps):
        G = (x @ W + (1 if mistake == "s in y" else s) * (x @ A) @ B - target) / n
        G = first_G if mistake == "stale" else G
        G = G * 2 if mistake == "2" else G
        step = lr if mistake == "s in gradients" else lr * s
        new_A = A - step * x.T @ (G @ B.T)
        new_B = B - step * ((new_A if mistake == "in turn" else A).T @ x.T @ G)
        A, B = A if mistake == "A frozen" else new_A, B if mistake == "B frozen" else new_B
    return A, B


@exercise(
    hints=(
        "Which A and B does the second gradient need: those from before or from after the first "
        "update?",
        "Every step of the loop does four things, in this order: y, G, both gradients, both "
        "updates. The last two can be a line each, as in `A, B = ..., ...`.",
    )
)
def train_lora(yours: Yours) -> str:
    s, lr, r = 0.4, 0.1, 3
    rng = np.random.default_rng(0)
    x, W, A = (rng.standard_normal(shape) for shape in ((7, 5), (5, 4), (5, r)))
    target = x @ (W + rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4)))
    for B, steps in (
        (rng.standard_normal((r, 4)), 1),
        (rng.standard_normal((r, 4)), 3),
        (rng.standard_normal((r, 4)), 0),
        (np.zeros((r, 4)), 8),
    ):
        result = unpack(yours(x, target, W, A, B, s, lr, steps), "A, B")
        wrong = {
            "that goes up the slope: take lr times the gradient off": (-lr, steps, ""),
            "that is one step only": (lr, 1, ""),
            "that is one step too many": (lr, steps + 1, ""),
            "G must be divided by the number of rows": (lr, steps, "n"),
            "that is twice the gradient: of half the squared error the factor is 1": (
                lr, steps, "2",
            ),
            "y lacks the factor s": (lr, steps, "s in y"),
            "both gradients lack the factor s": (lr, steps, "s in gradients"),
            "G must be computed anew in every step": (lr, steps, "stale"),
            "A moved before the gradient of B was taken: compute both first": (
                lr, steps, "in turn",
            ),
            "A did not train": (lr, steps, "A frozen"),
            "B did not train": (lr, steps, "B frozen"),
        }  # fmt: skip
        results = {why: _descend(x, target, W, A, B, s, *how) for why, how in wrong.items()}
        expected = _descend(x, target, W, A, B, s, lr, steps)
        for i in (1, 0):  # with B = 0, one step leaves A where it was: B tells more
            mistakes = {why: pair[i] for why, pair in results.items()}
            yours.compare(f"{'AB'[i]} for {yours.inputs}", result[i], expected[i], mistakes, 1e-4)
    losses = [
        ((x @ (W + s * a @ b) - target) ** 2).sum() / 2 / len(x) for a, b in ((A, B), expected)
    ]
    return (
        "Half the squared error, summed over a row and averaged over the rows, fell from "
        f"{losses[0]:.2g} to {losses[1]:.2g} in {steps} steps, with W as it was."
    )
