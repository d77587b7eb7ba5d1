"""The checkers of lesson 05, Counting parameters."""

from __future__ import annotations

import math

import numpy as np

from minilora.learn.exercises import Yours, exercise


def _any(low: int, high: int) -> int:
    """A whole number that nobody knows before the check runs."""
    return int(np.random.default_rng().integers(low, high))


@exercise(
    hints=(
        "A has d_in rows and r columns. How many numbers is that, and how many has B?",
        "A has `d_in * r` numbers. Count B in the same way; then which operation joins the two?",
    )
)
def count_lora(yours: Yours) -> str:
    unknown = (_any(20, 90), _any(100, 400), _any(2, 16))
    for d_in, d_out, r in ((64, 256, 4), (320, 48, 6), (4096, 4096, 8), (3, 5, 4), unknown):
        full, both = d_in * d_out, r * (d_in + d_out)
        mistakes = {
            "that is W, which is frozen": full,
            "that counts the frozen W too": full + both,
            "that is A alone, and B trains too": r * d_in,
            "that is B alone, and A trains too": r * d_out,
            "B has d_out columns, not d_in": 2 * r * d_in,
            "A has d_in rows, not d_out": 2 * r * d_out,
            "A and B are two arrays: add their sizes, do not multiply them": r * r * full,
            "that is r times W: the sides d_in and d_out must be added, not multiplied": r * full,
            "that is for r = 1": d_in + d_out,
            "only one of the two was multiplied by r: put d_in + d_out in brackets": r * d_in
            + d_out,
            "so many numbers determine a matrix of rank r, but A and B hold r * r more": both
            - r * r,
            "the formula of LoRA has no bias that trains": both + d_out,
        }
        got = yours(d_in, d_out, r)
        yours.compare(f"count for {yours.inputs}", got, both, mistakes)
    return "The count is proportional to r, and grows with the sides of W, not with its area."


_BLOCK = {"q_proj": (64, 64), "k_proj": (64, 32), "v_proj": (64, 48), "up_proj": (64, 256)}


@exercise(
    hints=(
        "What does one target cost? Its (d_in, d_out) is in `shapes`. Sum over the targets.",
        "One target costs `r * sum(shapes[name])`. Over which names do you sum, and how often does "
        "each occur in the model?",
    )
)
def count_model(yours: Yours) -> str:
    side = _any(90, 200)
    other = {
        "down_proj": (side, 70),
        "o_proj": (70, 40),
        "v_proj": (70, 40),
        "qkv_proj": (70, 210),  # its name contains that of another,
        "o_proj_gate": (50, 90),  # and this one begins like another
    }
    for shapes, n_layer, r, targets in (
        (_BLOCK, 3, 4, ["q_proj", "v_proj"]),
        (_BLOCK, 2, 5, ["up_proj"]),
        (_BLOCK, 7, 3, ["v_proj", "up_proj", "k_proj"]),
        (other, 4, _any(6, 20), ["down_proj", "o_proj", "v_proj"]),
    ):
        sides = [sum(shapes[name]) for name in targets]
        expected = n_layer * r * sum(sides)
        mistakes = {
            "that is one block, and the model has n_layer of them": r * sum(sides),
            "that adapts every matrix of a block: only targets are adapted": n_layer
            * r
            * sum(sum(shape) for shape in shapes.values()),
            "that is the first target; sum over all": n_layer * r * sides[0],
            "that is for r = 1": n_layer * sum(sides),
            "that takes each matrix as square; use both of its sides": n_layer
            * r
            * sum(2 * shapes[name][0] for name in targets),
            "that is the matrices themselves, which are frozen": n_layer
            * sum(math.prod(shapes[name]) for name in targets),
            "r came in twice": r * expected,
        }
        got = yours(dict(shapes), n_layer, r, list(targets))
        what = f"count for n_layer={n_layer}, r={r}, targets={targets}"
        yours.compare(what, got, expected, mistakes)
    return "So the count of a whole model is a sum over its targets, times its blocks."


@exercise(
    hints=(
        "Write down both counts, that of A and B together and that of W, and set them equal.",
        "r (d_in + d_out) = d_in d_out. Solve for r, and do not round.",
    )
)
def break_even_rank(yours: Yours) -> str:
    # in all of them the part after the point is below a half: round() and int() do the same
    for d_in, d_out in ((64, 256), (100, 100), (7, 3), (50, 7)):
        expected = d_in * d_out / (d_in + d_out)
        mistakes = {
            "that is the largest rank W can have; LoRA stops saving well before": min(d_in, d_out),
            "that is right for a square matrix only": d_in / 2,
            "that is half the shorter side, and is right for a square matrix only": min(d_in, d_out)
            / 2,
            "that is upside down": 1 / expected,
            "leave it unrounded": int(expected),
            "leave it unrounded: above it LoRA trains more": math.ceil(expected),
            "at that rank A and B together have twice as many numbers as W": 2 * expected,
        }
        got = yours(d_in, d_out)
        yours.compare(f"rank for {yours.inputs}", got, expected, mistakes)
    return "For a square matrix it is d / 2: half of the rank that the matrix can have."


@exercise(
    hints=(
        "How many numbers does each further rank cost? How often does that fit in the budget?",
        "The count is proportional to r, so begin with the count at rank 1, in all blocks. `//` is "
        "the division that rounds down.",
    )
)
def largest_rank(yours: Yours) -> str:
    square = {"q_proj": (128, 128), "k_proj": (128, 32), "o_proj": (128, 128)}
    for shapes, n_layer, targets, ranks, spare in (
        (_BLOCK, 2, ["q_proj", "v_proj"], 4, -1),
        (_BLOCK, 2, ["q_proj", "v_proj"], 5, 0),
        (_BLOCK, 2, ["q_proj", "v_proj"], 1, -1),
        (_BLOCK, 3, ["up_proj", "k_proj", "q_proj"], 7, 100),
        (_BLOCK, 5, ["v_proj"], _any(20, 40), 250),
        (square, 3, ["q_proj", "o_proj"], _any(70, 90), 40),
    ):
        sides = [sum(shapes[name]) for name in targets]
        step = n_layer * sum(sides)  # numbers for each further rank
        budget = ranks * step + spare
        expected = budget // step
        frozen = sum(math.prod(shapes[name]) for name in targets)
        mistakes = {
            "no rank fits, and then the answer is 0": max(1, expected),
            "that is over the budget: round down": -(-budget // step),
            "a rank is a whole number": budget / step,
            "an adapter that needs exactly the budget is within it": (budget - 1) // step,
            "that forgets that every block has its adapters": budget // sum(sides),
            "that is the first target alone; all of them need the rank": budget
            // (n_layer * sides[0]),
            "that is how often the matrices themselves fit, and they are frozen": budget
            // (n_layer * frozen),
        }
        got = yours(dict(shapes), n_layer, list(targets), budget)
        what = f"rank for budget={budget:,} at {step} numbers per rank"
        yours.compare(what, got, expected, mistakes)
    return "Fewer targets leave room for a higher rank, as in Table 5 of the paper."


@exercise(
    hints=(
        "Three parts: weights of everything, gradients and optimizer of what trains.",
        "A frozen number takes `frozen_bits / 8` bytes. How many does one that trains take, with "
        "its gradient and both moments?",
    )
)
def training_gigabytes(yours: Yours) -> str:
    for frozen, trained, bits in (
        (7e9, 1e9, 16),
        (0, 7e9, 16),
        (7e9, 2e9, 4),
        (3e9, 4e9, 8),
        (1_234_567_890, 37_000_000, 4),
        (1e9 * _any(10, 70), 1e8 * _any(11, 90), 4),
    ):
        weights = frozen * bits / 8
        mistakes = {
            "frozen numbers have no gradient and no moments": weights + 10 * frozen + 12 * trained,
            "the frozen weights must be in memory too": 12 * trained,
            "the numbers that train must be in memory too, with all that belongs to them": weights,
            "it lacks AdamW's two moments of 4 bytes each": weights + 4 * trained,
            "AdamW keeps two moments of 4 bytes each, 8 in all": weights + 8 * trained,
            "frozen_bits are bits, and a byte has 8": frozen * bits + 12 * trained,
            "10 bytes for each that trains, but its weight, gradient and moments take 12": weights
            + 10 * trained,
            "that counts a 32-bit copy of the weights too, 16 bytes, and this recipe has none": (
                weights + 16 * trained
            ),
            "the frozen numbers take frozen_bits each, not 16": 2 * frozen + 12 * trained,
            "a number that trains takes 2 bytes for itself, whatever frozen_bits is": weights
            + (bits / 8 + 10) * trained,
        }
        in_gb = {why: value / 1e9 for why, value in mistakes.items()}
        in_gb["that is bytes; a GB is 10^9 of them"] = weights + 12 * trained
        in_gb["a GB is 10^9 bytes; 2^30 bytes are a GiB"] = (weights + 12 * trained) / 2**30
        got = yours(frozen, trained, bits)
        yours.compare(f"GB for {yours.inputs}", got, (weights + 12 * trained) / 1e9, in_gb)
    return "A trained number costs 12 bytes; a frozen one 2, or half a byte in 4 bits."


@exercise(
    hints=(
        "What is left after the reserve and the frozen weights? Each rank takes 12 bytes a number.",
        "`(gpu - reserve) * 1e9` bytes are for the model. Take the frozen weights off; how often "
        "does one rank fit into what is left, and what if that is negative?",
    )
)
def rank_for_gpu(yours: Yours) -> str:
    for frozen, per_rank, gpu, reserve, bits in (
        (4_000_000_000, 1_000_000, 16, 4, 16),
        (4_000_000_000, 1_000_000, 16, 4, 4),
        (7_000_000_000, 1_000_000, 16, 4, 16),
        (13_000_000_000, 3_000_000, 24, 5.5, 8),
        (1_000_000_000, 70_000_000, 10, 7.9, 16),
        (90_500_000, 1_000_000, 4, 1, 16),
        (1_000_000 * _any(7_000, 8_000), 2_500_000, 12, 3, 4),
    ):
        weights, cost = frozen * bits / 8, 12 * per_rank
        room = (gpu - reserve) * 1e9
        mistakes = {
            "nothing is left for an adapter, and then the answer is 0": (room - weights) // cost,
            "no rank fits, and then the answer is 0": max(1, (room - weights) // cost),
        }
        left = {
            "the reserve is not for weights: take it off first": gpu * 1e9 - weights,
            "the frozen weights take their place first": room,
            "the frozen numbers take frozen_bits each, not 16": room - 2 * frozen,
            "frozen_bits are bits, and a byte has 8": room - frozen * bits,
        }
        mistakes |= {why: max(0, bytes_left // cost) for why, bytes_left in left.items()}
        mistakes |= {
            "a trained number takes 12 bytes: weight, gradient, two moments": max(
                0, (room - weights) // (2 * per_rank)
            ),
            "its moments take 8 bytes, but weight and gradient 4 more": max(
                0, (room - weights) // (8 * per_rank)
            ),
            "a rank is a whole number: round down": max(0, (room - weights) / cost),
            "that does not fit any more: round down": max(0, -((weights - room) // cost)),
        }
        got = yours(frozen, per_rank, gpu, reserve, bits)
        expected = max(0, int((room - weights) // cost))
        yours.compare(f"rank for {yours.inputs}", got, expected, mistakes)
    return "What decides is whether the frozen weights fit; the adapter hardly counts."
