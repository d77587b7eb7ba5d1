"""The checkers of lesson 08, Learning rate, alpha, initialization."""

from __future__ import annotations

from math import isfinite, sqrt
from statistics import mean, median

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack


@exercise(
    hints=(
        "LoRA divides alpha by r, rsLoRA by the root of r. What tells you which one is meant?",
        "`rule` is the text `lora` or `rslora`: divide by `r` or by `r**0.5`.",
    )
)
def scale_of(yours: Yours) -> str:
    for rule, alpha, r in (("lora", 8, 16), ("rslora", 8, 16), ("lora", 3.0, 2), ("rslora", 5, 2)):
        plain, root = alpha / r, alpha / sqrt(r)
        expected = plain if rule == "lora" else root
        mistakes = {
            "rsLoRA divides by the root of r, not by r": plain,
            "that is rsLoRA's rule for both; LoRA divides by r": root,
            "the two rules are exchanged": root if rule == "lora" else plain,
            "only r is under the root": plain if rule == "lora" else sqrt(alpha / r),
            "divide by r, or by its root; do not multiply": alpha
            * (r if rule == "lora" else r**0.5),
            "that is upside down: alpha is divided": 1 / expected,
            "that drops what is behind the point: / divides, // cuts off": expected // 1,
        }
        got = yours(rule, alpha, r)
        yours.compare(f"s for {yours.inputs}", got, expected, mistakes)
    return "With LoRA's rule four times the rank is a quarter of s, with rsLoRA's half of it."


@exercise(
    hints=(
        "With B = 0 the gradient of A is zero, so A stays. What is the gradient of B if "
        "y = x W + s (x A) B and the gradient of y is G?",
        "B becomes `-lr * s * (x @ A).T @ G`, and the change is `s * A @ B`.",
    )
)
def first_change(yours: Yours) -> str:
    rng = np.random.default_rng(8)
    for n, d_in, d_out, r, s, lr in ((5, 4, 3, 2, 2.0, 0.1), (3, 6, 7, 1, 0.5, 0.02)):
        x, G = rng.standard_normal((n, d_in)), rng.standard_normal((n, d_out))
        A = rng.standard_normal((d_in, r))
        B = -lr * s * (x @ A).T @ G
        change = s * A @ B
        mistakes = {
            "s comes in twice: in the gradient of B, and in s A B": change / s,
            "s comes in twice, and here it is missing": change / s**2,
            "a step goes against the gradient": -change,
            "the rate lr is missing": change / lr,
            "that is the step of full fine-tuning; here it goes through A": -lr * x.T @ G,
            "sum over the examples, as the gradient does; G is divided by n already": change / n,
            "A has not moved, but the change is s A B: multiply B by s A": B,
        }
        got = yours(x, G, A, s, lr)
        yours.compare(f"change for {yours.inputs}", got, change, mistakes)
    return "With SGD twice the alpha makes it four times as long."


_GRIDS: tuple[dict[float, list[float]], ...] = (
    {1e-2: [1.90, 1.93, 1.91], 1e-3: [2.0, 2.1, 2.05], 3e-2: [1.70, 1.75, 2.9]},
    {0.04: [1.1, float("nan"), 1.2], 0.02: [1.6, 1.5, 1.4], 0.01: [1.7, 1.8, 1.55]},
    {0.5: [float("inf"), 0.25], 0.25: [3.0, 2.0], 0.125: [2.25, 2.25], 1.0: [float("nan")] * 2},
    {0.02: [float("nan"), 1.0], 0.04: [1.5, 2.0], 0.01: [3.0, 3.0]},  # a higher rate may be good
    {0.005: [float("nan"), 1.0], 0.02: [1.5, 2.0], 0.01: [2.0, 2.5]},  # min() keeps a first NaN
    {0.2: [1.5, 1.5], 0.4: [1.75, 1.25], 0.1: [1.0, 2.0], 0.3: [1.25, 1.75], 0.05: [2.0, 3.0]},
    {1e-3: [2.5, 2.5], 1e-4: [2.0, 3.0], 1e-5: [3.0, 2.0], 5e-4: [2.25, 2.75]},  # equal, as texts
    {0.003: [2.0, 2.004], 0.03: [2.002, 1.996]},  # nearly equal
    {0.5: [12e3, 2e3], 0.25: [9e3, 9e3], 0.75: [float("nan"), 5.0]},  # high is not diverged
    {0.02: [1.0, 9.0, 3.0], 0.01: [2.0, 2.0, 4.0]},  # the first is lower in more seeds, twice
    {0.02: [9.0, 1.0, 1.0], 0.01: [2.0, 2.0, 2.0]},
    {0.02: [1.0, 4.0, 1.0], 0.01: [2.0, 2.25, 2.125]},  # spread is no fault, twice
    {0.02: [1.0, 1.0, 3.0, 1.0, 1.0], 0.01: [2.25, 2.25, 2.25, 2.25, 2.25]},
    {0.02: [1.0, 2.0, 1.0, 6.0, 6.0], 0.01: [2.5, 2.5, 2.5, 2.5, 2.5]},  # median, not trimmed mean
)


def _best_in_most_seeds(losses: dict[float, list[float]]) -> float:
    rates = sorted(losses)
    winners = [min(rates, key=lambda lr: losses[lr][j]) for j in range(len(losses[rates[0]]))]
    return max(rates, key=winners.count)


@exercise(
    hints=(
        "Leave out a rate if any of its seeds is NaN or infinite. What do you compare of the "
        "others, and what if two are equal?",
        "`math.isfinite` tells. With the rates in rising order, `min` takes the first of those "
        "that are equal: `min(sorted(good), key=lambda lr: mean(losses[lr]))`.",
    )
)
def best_rate(yours: Yours) -> str:
    for grid in _GRIDS:
        good = [lr for lr in grid if all(isfinite(loss) for loss in grid[lr])]
        kept = {lr: [v for v in grid[lr] if isfinite(v)] for lr in grid}
        some = [lr for lr in grid if kept[lr]]
        rising = sorted(good)
        equal = [lr for lr in good if mean(grid[lr]) == min(mean(grid[lr]) for lr in good)]
        mistakes = {
            "a rate with a seed that diverged is not good, however good its others are": min(
                sorted(some), key=lambda lr: mean(kept[lr])
            ),
            "nan is neither lower nor higher than a number: leave such rates out first": min(
                sorted(grid), key=lambda lr: mean(grid[lr])
            ),
            "that has the best single seed; compare the means": min(
                rising, key=lambda lr: min(grid[lr])
            ),
            "compare the means, not the first seed": min(rising, key=lambda lr: grid[lr][0]),
            "compare the means, not the medians": min(rising, key=lambda lr: median(grid[lr])),
            "compare the means, not the worst seeds": min(rising, key=lambda lr: max(grid[lr])),
            "compare the means, not in how many seeds a rate is best": _best_in_most_seeds(
                {lr: grid[lr] for lr in good}
            ),
            "means that differ a little are not equal": min(
                rising, key=lambda lr: round(mean(grid[lr]), 2)
            ),
            "that is the highest of several rates that are equally good": max(equal),
            "the lowest of equally good rates is asked for, not the first of them": equal[0],
            "the lowest of equally good rates is asked for, not the last of them": equal[-1],
            "as a text 1e-05 comes after 0.0001: sort the numbers": min(equal, key=str),
            "these are losses: the lowest is best": max(rising, key=lambda lr: mean(grid[lr])),
        }
        got = yours({lr: list(values) for lr, values in grid.items()})
        tried = "; ".join(f"{lr:g}: {values}" for lr, values in grid.items())
        yours.compare(f"rate for the losses {tried}", got, min(equal), mistakes)
    return "One lucky seed does not choose it, and a rate that sometimes fails is out."


@exercise(
    hints=(
        "Take one seed at a time: which setting would it choose, and what do the *other* seeds "
        "say about that setting?",
        "For seed j: `i = np.argmin(losses[:, j])`. The others are "
        "`np.delete(losses[i], j).mean()`. Subtract `losses[i, j]`; then the mean over all j.",
    )
)
def too_good(yours: Yours) -> str:
    fixed, tables = np.random.default_rng(88), []
    for k, n, rng in ((4, 3, fixed), (6, 5, fixed), (3, 4, np.random.default_rng())):
        losses = 9 + rng.standard_normal((k, n))
        losses[0, 0] -= 6  # not all seeds choose the same, which would give exactly 0
        losses[1, 1] -= 5
        tables.append(losses)
    for losses in (*tables, np.array([[3.0, 1.0, 1.0], [2.0, 3.0, 4.0]])):
        n = losses.shape[1]
        chosen, others, whole, unlike = [], [], [], []
        for j in range(n):
            i = int(np.argmin(losses[:, j]))
            chosen.append(losses[i, j])
            others.append(np.delete(losses[i], j).mean())
            whole.append(losses[i].mean())
            unlike.append(losses[i, losses[i] != losses[i, j]].mean())
        expected = mean(others) - mean(chosen)
        mistakes = {
            "the seed that chose is among those that judge: leave it out": mean(whole)
            - mean(chosen),
            "a seed with the same loss is another seed, and judges": mean(unlike) - mean(chosen),
            "that is negative where the chosen loss is too low: turn it round": -expected,
            "that is the sum over the seeds; take the mean": n * expected,
            "every seed should choose once, not only the first": others[0] - chosen[0],
            "compare with the chosen setting's other seeds, not with all settings": losses.mean()
            - mean(chosen),
            "compare with the chosen setting, not with the best mean": losses.mean(axis=1).min()
            - mean(chosen),
        }
        got = yours(losses)
        yours.compare(f"result for losses {losses.shape}", got, expected, mistakes)
    return "By so much a chosen score flatters."


@exercise(
    hints=(
        "`U, sigma, Vt = np.linalg.svd(W, full_matrices=False)`: put the r strongest pieces into "
        "A and B. What must be left in the base, so that nothing changes at the start?",
        "With `root = np.sqrt(sigma[:r] / s)`: A is `U[:, :r] * root`, B is `root[:, None] * "
        "Vt[:r]`, and the base is `W - s * A @ B`.",
    )
)
def pissa_start(yours: Yours) -> str:
    fixed = np.random.default_rng(80)
    for d_in, d_out, r, s, rng in (
        (6, 4, 2, 2.0, fixed),
        (5, 5, 2, 4.0, fixed),
        (4, 7, 3, 0.5, np.random.default_rng()),
    ):
        W = rng.standard_normal((d_in, d_out))
        U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
        top = (U[:, :r] * sigma[:r]) @ Vt[:r]
        weak = (U[:, -r:] * sigma[-r:]) @ Vt[-r:]
        A, B, base = map(as_array, unpack(yours(W.copy(), r, s), "A, B, base"))
        require(
            A is not None and B is not None and base is not None,
            "A, B and base should be matrices of numbers",
        )
        assert A is not None and B is not None and base is not None
        for name, got, shape in (
            ("A", A, (d_in, r)), ("B", B, (r, d_out)), ("base", base, (d_in, d_out))
        ):  # fmt: skip
            seen = f"your {name} has the shape {got.shape} for {yours.inputs}; expected {shape}"
            require(got.shape == shape, seen)
        yours.compare(
            f"s A B for {yours.inputs}",
            s * A @ B,
            top,
            {
                "A B is that part of W, but the layer adds s A B: divide by s": s * top,
                "s is divided out of both A and B; once is enough": top / s,
                "that has the weakest directions, as MiCA has; PiSSA takes the strongest": weak,
                "the singular values are missing": U[:, :r] @ Vt[:r],
                "each singular value comes in once, as its root in A and in B, say": (
                    U[:, :r] * sigma[:r] ** 2
                )
                @ Vt[:r],
                "that is LoRA's start, with B = 0": 0 * top,
            },
        )
        yours.compare(
            f"base + s A B for {yours.inputs}",
            base + s * A @ B,
            W,
            {
                "take s A B out of the base, or the model does not start as it was": W + top,
                "the layer adds s A B, so s A B must be taken out, not A B": W + (1 - 1 / s) * top,
            },
        )
    return "The model starts as the base, and trains what W does most."


_NAMES = (
    "layers.0.q_proj.lora_A",
    "layers.0.q_proj.lora_B",
    "layers.1.up_proj.lora_B",
    "layers.1.up_proj.lora_A",
    "lora_B_probe.weight",
    "layers.1.up_proj.vera_B",
    "head.bias",
)


@exercise(
    hints=(
        "Only the names that end in lora_B get the higher rate. What do the others get?",
        "`{name: lr * ratio if name.endswith('lora_B') else lr for name in names}`",
    )
)
def lora_plus_rates(yours: Yours) -> str:
    without = ("head.weight", "norm.bias")
    for names, lr, ratio in ((_NAMES, 1e-3, 16), (_NAMES[::-1], 0.5, 2.5), (without, 0.01, 8)):
        got = yours(list(names), lr, ratio)
        require(hasattr(got, "keys"), "it should return a dictionary, from each name to its rate")
        require(set(got) == set(names), "the dictionary should have just the names it was given")
        for name in names:
            is_A, is_B = name.endswith("lora_A"), name.endswith("lora_B")
            mistakes = {
                "it is B that learns faster, not A": lr * ratio if is_A else lr,
                "A keeps its rate: B alone gets the higher one": lr * ratio if is_A or is_B else lr,
                "a name that has lora_B elsewhere is not B: look at its end": (
                    lr * ratio if "lora_B" in name else lr
                ),
                "not all that ends in B is LoRA's": lr * ratio if name[-1] == "B" else lr,
                "multiply B's rate by the ratio; do not divide": lr / ratio if is_B else lr,
                "A keeps the rate lr; B's is the higher one": lr if is_B else lr / ratio,
                "only B gets the higher rate": lr if is_A else lr * ratio,
                "all have the same rate here": lr,
            }
            case = f"rate of {name} for lr={lr:g}, ratio={ratio:g}"
            yours.compare(case, got[name], lr * ratio if is_B else lr, mistakes)
    return "That is all there is to LoRA+: the file it saves is a plain adapter."
