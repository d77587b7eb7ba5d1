"""The checkers of lesson 09, Where to adapt, and the alternatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilora.learn.exercises import Yours, exercise, require, unpack

_SHAPES = {
    "q_proj": (48, 40), "k_proj": (48, 40), "v_proj": (48, 24), "cross_v_proj": (60, 24),
    "up_proj": (48, 190), "down_proj": (190, 48),
}  # fmt: skip


def _short(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random numbers of one decimal, so that a message can show them, and none of them 0."""
    return rng.choice([-1, 1], shape) * rng.integers(1, 40, shape) / 10


def _nearest(budget: int, step: int) -> int:
    below, rest = divmod(budget, step)
    return max(1, below + (2 * rest > step))


@exercise(
    hints=(
        "What does one rank cost, in all blocks? Which two ranks are on either side of the budget?",
        "`budget // per_rank` is the rank below, call it r. Compare how far `r * per_rank` and "
        "`(r + 1) * per_rank` are from the budget, and think of a budget below one rank.",
    )
)
def nearest_rank(yours: Yours) -> str:
    rng = np.random.default_rng()
    for n_layer, targets, r, part in (
        (2, ["q_proj", "v_proj"], 4, 0.75),
        (3, ["up_proj", "down_proj"], 6, 0.25),
        (5, ["v_proj"], 3, 0.5),
        (5, ["q_proj"], 8, 0.5),
        (2, ["down_proj"], 0, 0.25),
        (2, ["v_proj", "q_proj", "up_proj"], 7, 0.0),
        (2, ["q_proj", "k_proj"], 5, 0.6),
        (4, ["v_proj"], 1, 0.45),  # of 1 and 2 the nearer one by the ratio is 2
        (3, ["up_proj", "q_proj"], 2, 0.501),  # one number above the middle
        (4, ["v_proj", "down_proj"], int(rng.integers(70, 95)), 0.8),
    ):
        sides = [sum(_SHAPES[name]) for name in targets]
        step = n_layer * sum(sides)
        budget = r * step + round(part * step)
        expected = _nearest(budget, step)
        mistakes = {
            "of two ranks that are equally near, take the lower one": max(1, r + (part >= 0.5)),
            "round() takes the even one of two that are equally near; take the lower one": max(
                1, round(r + part)
            ),
            "the rank that is nearest may be above the budget": max(1, r),
            "the rank that is nearest may be below the budget": r + (part > 0),
            "a rank is at least 1": r + (part > 0.5),
            "near is meant as a difference, not as a ratio": max(
                1, r + ((r + part) ** 2 > r * (r + 1))
            ),
            "a target is a whole name, not a part or an end of it": _nearest(
                budget,
                n_layer * sum(sum(_SHAPES[k]) for k in _SHAPES if k.endswith(tuple(targets))),
            ),
            "two matrices of one shape are two": _nearest(
                budget, n_layer * sum(map(sum, {_SHAPES[name] for name in targets}))
            ),
            "a rank is a whole number": budget / step,
            "every block has its adapters": _nearest(budget, sum(sides)),
            "all the targets need the rank, not the first alone": _nearest(
                budget, n_layer * sides[0]
            ),
        }
        got = yours(dict(_SHAPES), n_layer, list(targets), budget)
        what = f"rank for budget={budget:,} at {step:,} numbers a rank"
        yours.compare(what, got, expected, mistakes)
    return "So the study of where to adapt chose its ranks."


def _wins_each_seed(results: dict[str, list[float]], place: str) -> bool:
    """Whether a place is better than every other with each seed, in the order of the lists."""
    others = [errors for name, errors in results.items() if name != place]
    return all(a < b for errors in others for a, b in zip(results[place], errors, strict=False))


@exercise(
    hints=(
        "Look at every error of a place, not at the mean alone. When is even its worst seed better "
        "than all others?",
        "The candidate is the place whose `max(errors)` is the lowest. Compare that number with "
        "the lowest error among all the other places.",
    )
)
def best_place(yours: Yours) -> str:
    none = "no difference shown"
    for results in (
        {"q": [0.92, 0.95, 0.97], "MLP": [0.31, 0.35, 0.28], "v": [0.55, 0.5, 0.61]},
        {"k": [0.44, 0.39, 0.46], "o": [0.40, 0.41, 0.43], "all": [0.9, 0.95, 0.97]},
        {"v": [0.71, 0.74, 0.75], "q,v": [0.62, 0.6, 0.63], "all": [0.59, 0.95, 0.99]},
        {"MLP": [1.8, 1.7], "q": [2.5, 2.9, 2.6, 2.7], "all": [1.4, 1.69, 1.1]},
        {"q": [0.6, 0.1, 0.2], "v": [0.4, 0.45, 0.42]},
        {"o": [0.5, 0.25], "v": [0.75, 0.5]},
        {"k": [0.1, 0.1, 0.1, 0.5], "up": [0.9, 0.48, 0.9]},
        {"o": [0.5, 0.3, 0.7], "v": [0.6, 0.4, 0.8], "q": [0.9, 0.8, 0.9]},
        {"q": [0.2, 0.3], "k": [0.2, 0.3], "v": [0.5, 0.6]},
        {"o": [2.004, 2.003], "up": [2.001, 2.002]},
        {"up": [0.3, 0.1, 0.2], "down": [0.6, 0.5, 0.4], "q": [0.35, 0.7, 0.8]},
    ):
        mean = {place: sum(e) / len(e) for place, e in results.items()}
        by_mean = sorted(mean, key=lambda place: mean[place])
        by_worst = min(results, key=lambda place: max(results[place]))
        by_best = min(results, key=lambda place: min(results[place]))
        others = [e for place in results if place != by_worst for e in results[place]]
        shown = max(results[by_worst]) < min(others)
        runner_up = min(results[by_mean[1]])
        touches = max(results[by_worst]) <= min(others)
        unlike = [e for errors in results.values() if errors != results[by_worst] for e in errors]
        mistakes = {
            "that has the best mean, and its seeds may overlap with another's": by_mean[0],
            "that has the best single seed, which may be luck": by_best,
            "that has the best worst seed, which may still overlap": by_worst,
            "a low error is good": by_mean[-1],
            "compare with all other places, not with the second alone": (
                by_mean[0] if max(results[by_mean[0]]) < runner_up else none
            ),
            "equal errors are an overlap too": by_worst if touches else none,
            "two places with the same errors are two, and neither is better": (
                by_worst if max(results[by_worst]) < min(unlike) else none
            ),
            "the worst seed is compared with every seed of the others, not seed by seed": next(
                (place for place in results if _wins_each_seed(results, place)), none
            ),
            "some places do differ: those whose ranges are apart": none,
        }
        got = yours({place: list(errors) for place, errors in results.items()})
        yours.compare(f"answer for {results}", got, by_worst if shown else none, mistakes)
    return "With three seeds of each, no more than that can be said."


@exercise(
    hints=(
        "A parameter is a bias by its own name. Which part of a path such as "
        "`layers.0.attn.q_proj.bias` is that?",
        'The last one: `name.split(".")` is a list of the parts.',
    )
)
def bitfit_names(yours: Yours) -> str:
    for names in (
        ["tok.weight", "layers.0.up.weight", "layers.0.up.bias", "norm.bias", "head.bias"],
        ["layers.0.bias_net.weight", "layers.0.bias_net.bias", "a.pos_bias", "norm.gamma"],
        ["layers.1.q.bias", "layers.10.q.bias", "layers.1.norm.bias", "bias.q.scale", "biases.w"],
        ["layers.1.q.bias_scale", "layers.1.q.weight"],
    ):
        biases = [name for name in names if name.rpartition(".")[2] == "bias"]
        groups = {
            "the word may stand elsewhere too; compare the last part alone": [
                name for name in names if "bias" in name
            ],
            "a name that ends in bias may be longer, such as pos_bias": [
                name for name in names if name.endswith("bias")
            ],
            "a name that begins with bias may be longer, such as bias_scale": [
                name for name in names if name.rpartition(".")[2].startswith("bias")
            ],
            "the biases of norms train too": [name for name in biases if "norm" not in name],
            "those are frozen: BitFit trains the others": [
                name for name in names if name not in biases
            ],
            "everything else is frozen": names,
            "the biases outside of the blocks train too": [
                name for name in biases if name.startswith("layers")
            ],
            "the biases of every block train, not of the first alone": [
                name for name in biases if "layers.1" not in name
            ],
        }
        got = yours(list(names))
        require(not isinstance(got, str), f"it returns the text {got!r}; expected a list of names")
        mistakes = {why: " ".join(sorted(wrong)) or "none" for why, wrong in groups.items()}
        found = " ".join(sorted(str(name) for name in got)) or "none"
        expected = " ".join(sorted(biases)) or "none"
        yours.compare(f"choice out of {names}", found, expected, mistakes)
    return "A Llama has no such names: there BitFit has nothing to train."


@exercise(
    hints=(
        "Four steps: down, the nonlinearity, up, and the shortcut around it all.",
        "`y @ D + c` has m numbers; `np.maximum(..., 0)` is ReLU; then `@ U + e`, and y is added.",
    )
)
def bottleneck(yours: Yours) -> str:
    rng = np.random.default_rng()
    for n, C, m, size in ((5, 4, 3, 1), (2, 6, 8, 1), (7, 3, 2, 100)):  # ReLU has no upper end
        y, D, U = size * _short(rng, n, C), _short(rng, C, m), _short(rng, m, C)
        c, e = _short(rng, m), _short(rng, C)
        z = y @ D + c
        h = np.maximum(z, 0)
        mistakes = {
            "it lacks the shortcut: y is added at the end": h @ U + e,
            "without the nonlinearity it would be a matrix, and could be merged": y + z @ U + e,
            "ReLU comes between the two matrices, not after them": y + np.maximum(z @ U + e, 0),
            "ReLU comes before y is added and not after": np.maximum(y + z @ U + e, 0),
            "c is added before ReLU": y + np.maximum(y @ D, 0) @ U + e,
            "e is a bias too": y + h @ U,
            "the nonlinearity here is ReLU, and keeps what is above zero": y
            + np.minimum(z, 0) @ U
            + e,
            "y counts once in the sum": 2 * y + h @ U + e,
        }
        got = yours(y, D, c, U, e)
        yours.compare(f"outputs for {yours.inputs}", got, y + h @ U + e, mistakes)
        U, e = np.zeros_like(U), np.zeros_like(e)
        start = {"it lacks the shortcut: y is added at the end": np.zeros_like(y)}
        start |= {"ReLU comes before y is added and not after": np.maximum(y, 0)}
        start |= {"y counts once in the sum": 2 * y}
        yours.compare("outputs with U = 0 and e = 0", yours(y, D, c, U, e), y, start)
    return "With U = 0 and e = 0 it changes nothing: so it starts."


@exercise(
    hints=(
        "Which entries of W does one output read, and which does one input meet? Then what "
        "happens to b in either case?",
        "An output is a column: `W * l`, and its bias is multiplied as well. An input meets a row: "
        "`l[:, None] * W`, and b is added after it.",
    )
)
def ia3_merge(yours: Yours) -> str:
    rng = np.random.default_rng()
    cases = ((4, 4, "outputs"), (4, 4, "inputs"), (5, 3, "outputs"), (2, 6, "inputs"))
    for d_in, d_out, where in cases:
        W, b = _short(rng, d_in, d_out), _short(rng, d_out)
        l = np.round(rng.uniform(0.5, 2, d_out if where == "outputs" else d_in), 1)
        l[:2] = -0.4, 0.3  # training may turn a factor round
        square = d_in == d_out
        rows, columns = (l[:, None] * W, W * l) if square else (W, W)
        if where == "outputs":
            new_W, new_b, other_W, other_b = W * l, b * l, rows, b
            why_b = "an output is x W + b, and all of it is multiplied"
        else:
            new_W, new_b, other_W, other_b = l[:, None] * W, b, columns, b * l if square else b
            why_b = "b is added after the inputs were multiplied, so that it stays"
        wrong_W = {
            "that leaves W as it is": W,
            "divide nothing: the factors multiply": W / (l if where == "outputs" else l[:, None]),
            "one factor came in twice": new_W * (l if where == "outputs" else l[:, None]),
        }
        if square:
            swapped = {
                "inputs": "an input meets a row of W, and you multiplied the columns",
                "outputs": "an output is a column of W, and you multiplied the rows",
            }
            wrong_W[swapped[where]] = other_W
        got_W, got_b = unpack(yours(W, b, l, where), "W, b")
        case = f"for where={where!r}, W ({d_in}, {d_out})"
        yours.compare(f"W {case}", got_W, new_W, wrong_W)
        wrong_b = {why_b: other_b}
        if where == "outputs":
            wrong_b |= {"divide nothing: the factors multiply": b / l}
            wrong_b |= {"one factor came in twice": b * l * l}
            wrong_b |= {"that leaves W as it is": b}
        yours.compare(f"b {case}", got_b, new_b, wrong_b)
    return "Merged, IA³ costs nothing at inference, as LoRA."


@exercise(
    hints=(
        "Beside x W stands the adapter: x A, times d, times B, times b, from left to right.",
        "`x @ A` has r columns, and d multiplies each by its number. After `@ B` there are d_out, "
        "and b does the same.",
    )
)
def vera(yours: Yours) -> str:
    rng = np.random.default_rng()
    for n, d_in, d_out, r in ((3, 5, 4, 7), (6, 2, 8, 3), (3, 3, 3, 3)):
        x, W, A = _short(rng, n, d_in), _short(rng, d_in, d_out), _short(rng, d_in, r)
        B, d, b = _short(rng, r, d_out), _short(rng, r), _short(rng, d_out)
        inner = (x @ A * d) @ B
        mistakes = {
            "it lacks x W": inner * b,
            "it lacks d": x @ W + x @ A @ B * b,
            "it lacks b": x @ W + inner,
            "that is LoRA, with neither d nor b": x @ W + x @ A @ B,
            "b is no bias: it multiplies": x @ W + inner + b,
            "b multiplies the adapter alone, not x W": (x @ W + inner) * b,
            "d multiplies what A gives, it is not added": x @ W + (x @ A + d) @ B * b,
            "the adapter is added, not subtracted": x @ W - inner * b,
        }
        got = yours(x, W, A, B, d, b)
        yours.compare(f"outputs for {yours.inputs}", got, x @ W + inner * b, mistakes)
        zero = np.zeros_like(b)
        start: dict[str, Any] = {
            "it lacks x W": 0 * inner,
            "it lacks b": x @ W + inner,
            "that is LoRA, with neither d nor b": x @ W + x @ A @ B,
            "b is no bias: it multiplies": x @ W + inner,
            "b multiplies the adapter alone, not x W": 0 * inner,
        }
        yours.compare("outputs with b = 0", yours(x, W, A, B, d, zero), x @ W, start)
    return "With b = 0 it is the base: so VeRA starts."


@exercise(
    hints=(
        "For each method write down which arrays train and their shapes; a matrix or vector that "
        "is frozen does not count, however large it is.",
        "IA³ and BitFit have a vector of `d_out`. VeRA has one of r beside it, LoRA-XS a matrix "
        "r × r, LoRA-FA only B, DoRA one length a column beside A and B. A bottleneck stands "
        "behind the layer: two matrices between `d_out` and r, and a bias for each.",
    )
)
def trained_numbers(yours: Yours) -> str:
    rng = np.random.default_rng()
    unknown = tuple(int(rng.integers(*ends)) for ends in ((100, 200), (40, 90), (17, 30)))
    for d_in, d_out, r in ((128, 512, 5), (320, 48, 6), unknown):
        lora = r * (d_in + d_out)
        cases: dict[str, tuple[int, dict[str, int]]] = {
            "lora": (lora, {"A and B are two matrices": r * d_in}),
            "lora-fa": (
                r * d_out,
                {"LoRA-FA freezes A": lora, "LoRA-FA freezes A, and B trains": r * d_in},
            ),
            "vera": (
                r + d_out,
                {
                    "VeRA's A and B are frozen": lora,
                    "b of VeRA multiplies outputs": r + d_in,
                    "VeRA has two vectors, d and b": d_out,
                    "VeRA's vectors are no matrix": r * d_out,
                },
            ),
            "lora-xs": (
                r * r,
                {"in LoRA-XS R alone trains": lora + r * r, "R of LoRA-XS is a matrix": 2 * r},
            ),
            "dora": (
                lora + d_out,
                {
                    "DoRA trains lengths too": lora,
                    "DoRA's lengths are those of columns": lora + d_in,
                },
            ),
            "ia3": (d_out, {"IA³ multiplies the outputs here": d_in}),
            "bitfit": (d_out, {"a bias belongs to an output": d_in}),
            "bottleneck": (
                2 * r * d_out + r + d_out,
                {
                    "a bottleneck has two biases": 2 * r * d_out,
                    "a bottleneck stands behind the layer": lora + r + d_out,
                    "a bottleneck has two matrices": r * d_out + r + d_out,
                },
            ),
            "prefix": (
                2 * r * d_out,
                {
                    "a prefix has keys and values": r * d_out,
                    "a key has as many numbers as k has outputs": 2 * r * d_in,
                },
            ),
        }
        for method, (expected, mistakes) in cases.items():
            got = yours(method, d_in, d_out, r)
            yours.compare(f"count for {yours.inputs}", got, expected, mistakes)
    return "Only LoRA, DoRA and LoRA-FA's or a prefix's counts go with r times the width."


@exercise(
    hints=(
        "Compare an answer with the others to the same question, which stand in the same row.",
        "Subtract from each row its mean: `rewards.mean(axis=1, keepdims=True)`.",
    )
)
def advantages(yours: Yours) -> str:
    rng = np.random.default_rng()
    some = (rng.random((5, 7)) < 0.4).astype(float)
    some[0], some[1, :2] = 1, (0, 1)
    for rewards in (
        np.array([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]),
        np.array([[1.0, 1], [0, 1], [0, 0], [1, 0]]),
        np.array([[4.0, 0, 2], [0, 1, 0], [3, 0.5, 1]]),
        some,
    ):
        samples = rewards.shape[1]
        centred = rewards - rewards.mean(axis=1, keepdims=True)
        deviation = rewards.std(axis=1, keepdims=True)
        mistakes = {
            "those are the rewards; subtract the mean of their question": rewards,
            "each question has a mean of its own, and that is of all": rewards - rewards.mean(),
            "that is the mean over the questions; a question is a row": rewards
            - rewards.mean(axis=0),
            "an answer that was better than the mean has a positive one": -centred,
            "that divides by the deviation too, as GRPO does": centred / (deviation + 1e-8),
            "that is the mean of the other answers, as in RLOO": centred * samples / (samples - 1),
            "those are the means alone": rewards.mean(axis=1),
        }
        got = yours(rewards)
        yours.compare(f"result for {rewards.tolist()}", got, centred, mistakes)
    return "A question whose answers are all right, or all wrong, teaches nothing."
