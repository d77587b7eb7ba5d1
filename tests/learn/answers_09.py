"""Answers to the exercises of lesson 09, right and wrong ones (test_check.py says how they are
used)."""

import math

import numpy as np

import minilora as ml

NONE = "no difference shown"


def _step(shapes, n_layer, targets):
    return n_layer * sum(sum(shapes[name]) for name in targets)


def _rank_by_search(shapes, n_layer, targets, budget):
    best, off = 1, None
    for r in range(1, 200):
        count = 0
        for name in targets:
            d_in, d_out = shapes[name]
            count += n_layer * r * (d_in + d_out)
        if off is None or abs(count - budget) < off:
            best, off = r, abs(count - budget)
    return best


def _rank_by_lists(shapes, n_layer, targets, budget):
    step = _step(shapes, n_layer, targets)
    distances = [abs(r * step - budget) for r in range(1, 100)]
    return distances.index(min(distances)) + 1


def _in_halves(shapes, n_layer, targets, budget):
    step = _step(shapes, n_layer, targets)
    return max(1, (2 * budget + step - 1) // (2 * step))


def _place_by_loops(results):
    for place, errors in results.items():
        beaten = True
        for other, theirs in results.items():
            if other == place:
                continue
            for mine in errors:
                for their in theirs:
                    if mine >= their:
                        beaten = False
        if beaten:
            return place
    return NONE


def _place_by_sorting(results):
    seeds = sorted((error, place) for place, errors in results.items() for error in errors)
    first = seeds[0][1]
    n = len(results[first])
    if any(place != first for _, place in seeds[:n]) or seeds[n][0] == seeds[n - 1][0]:
        return NONE
    return first


def _place_with_arrays(results):
    lows = {place: np.min(errors) for place, errors in results.items()}
    highs = {place: np.max(errors) for place, errors in results.items()}
    for place in results:
        if all(highs[place] < low for other, low in lows.items() if other != place):
            return np.str_(place.upper())
    return "No difference shown "


def _mean_of(errors):
    return sum(errors) / len(errors)


def _by_mean(results):
    return min(results, key=lambda place: _mean_of(results[place]))


def _by_worst(results):
    return min(results, key=lambda place: max(results[place]))


def _against_the_second(results):
    first, second, *_ = sorted(results, key=lambda place: _mean_of(results[place]))
    return first if max(results[first]) < min(results[second]) else NONE


def _touching_counts(results):
    best = _by_worst(results)
    others = [e for place in results if place != best for e in results[place]]
    return best if max(results[best]) <= min(others) else NONE


def _gap_of_means(results):
    first, second, *_ = sorted(_mean_of(errors) for errors in results.values())
    return _by_mean(results) if second - first > 0.1 else NONE


def _two_deviations(results):
    best = _by_mean(results)
    edge = _mean_of(results[best]) + np.std(results[best])
    others = [_mean_of(e) - np.std(e) for place, e in results.items() if place != best]
    return best if edge < min(others) else NONE


def _by_pairs(results):
    for place, errors in results.items():
        others = [results[other] for other in results if other != place]
        if all(a < b for theirs in others for a, b in zip(errors, theirs, strict=False)):
            return place
    return NONE


def _unlike_the_others(results):
    best = _by_worst(results)
    others = [e for errors in results.values() if errors != results[best] for e in errors]
    return best if max(results[best]) < min(others) else NONE


def _most_pairs(results):
    """As a test of ranks would (Mann and Whitney): nine of ten pairs are enough."""
    for place, errors in results.items():
        others = [e for other in results if other != place for e in results[other]]
        if np.mean([a < b for a in errors for b in others]) > 0.9:
            return place
    return NONE


def _names_by_loop(names):
    found = []
    for name in names:
        parts = name.split(".")
        if parts[len(parts) - 1] == "bias":
            found += [name]
    return found


def _names_backwards(names):
    return tuple(reversed([name for name in names if name.endswith(".bias")]))


def _bottleneck_by_rows(y, D, c, U, e):
    rows = []
    for row in y:
        h = [max(0.0, sum(a * b for a, b in zip(row, column, strict=True)) + bias)
             for column, bias in zip(D.T, c, strict=True)]  # fmt: skip
        rows.append([row[i] + sum(h[j] * U[j, i] for j in range(len(h))) + e[i]
                     for i in range(len(e))])  # fmt: skip
    return rows


def _bottleneck_of_tensors(y, D, c, U, e):
    y, D, c, U, e = (ml.Tensor(a) for a in (y, D, c, U, e))
    z = y @ D + c
    return y + (z * ml.Tensor((z.data > 0).astype(float))) @ U + e


class _Bottleneck:
    def __call__(self, y, D, c, U, e):
        h = np.einsum("nc,cm->nm", y, D) + c[None]
        h[h < 0] = 0
        return np.einsum("nm,mc->nc", h, U) + (y + e)


def _ia3_with_diagonals(W, b, l, where):
    if where == "inputs":
        return [np.diag(l) @ W, b]
    return [W @ np.diag(l), np.diag(l) @ b]


def _ia3_by_probing(W, b, l, where):
    def layer(x):
        return (x @ W + b) * l if where == "outputs" else (x * l) @ W + b

    new_b = layer(np.zeros(len(W)))
    return np.array([layer(row) - new_b for row in np.eye(len(W))]), new_b


def _ia3_by_loops(W, b, factors, where):
    new = W.copy()
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            new[i, j] *= factors[i] if where == "inputs" else factors[j]
    return new.tolist(), b if where == "inputs" else [
        p * q for p, q in zip(b, factors, strict=True)
    ]


def _vera_merged(x, W, A, B, d, b):
    return x @ (W + (A * d) @ (B * b))


def _vera_by_pieces(x, W, A, B, d, b):
    y = x @ W
    for i in range(len(d)):
        y = y + d[i] * np.outer(x @ A[:, i], B[i] * b)
    return y


def _vera_of_tensors(x, W, A, B, d, b):
    x, W, A, B, d, b = (ml.Tensor(a) for a in (x, W, A, B, d, b))
    return x @ W + ((x @ A) * d) @ B * b


def _counts(method, d_in, d_out, r, **other):
    lora = r * (d_in + d_out)
    return {
        "lora": lora, "lora-fa": r * d_out, "vera": r + d_out, "lora-xs": r**2,
        "dora": lora + d_out, "ia3": d_out, "bitfit": d_out,
        "bottleneck": (2 * r + 1) * d_out + r, "prefix": 2 * r * d_out,
    }[method] if method not in other else other[method](d_in, d_out, r)  # fmt: skip


def _but(name, count):
    """An answer that counts one method in another way."""
    return lambda method, d_in, d_out, r: _counts(method, d_in, d_out, r, **{name: count})


_ARRAYS = {
    "lora": [("d_in", "r"), ("r", "d_out")], "lora-fa": [("r", "d_out")],
    "vera": [("r",), ("d_out",)], "lora-xs": [("r", "r")],
    "dora": [("d_in", "r"), ("r", "d_out"), ("d_out",)], "ia3": [("d_out",)],
    "bitfit": [("d_out",)],
    "bottleneck": [("d_out", "r"), ("r",), ("r", "d_out"), ("d_out",)],
    "prefix": [("r", "d_out"), ("r", "d_out")],
}  # fmt: skip


def _by_arrays(method, d_in, d_out, r):
    sizes = {"d_in": d_in, "d_out": d_out, "r": r}
    return sum(np.zeros([sizes[side] for side in shape]).size for shape in _ARRAYS[method])


def _by_branches(method, d_in, d_out, r):
    if method in ("bitfit", "ia3"):
        return float(d_out)
    if method == "lora-xs":
        return r * r
    if method == "vera":
        return d_out + r
    if method in ("lora-fa", "prefix"):
        return r * d_out * (1 if method == "lora-fa" else 2)
    if method == "bottleneck":
        return r * (d_out + 1) + d_out * (r + 1)
    return r * d_in + r * d_out + (d_out if method == "dora" else 0)


def _advantages_by_loop(rewards):
    rows = []
    for row in rewards:
        expected = sum(row) / len(row)
        rows.append([float(reward - expected) for reward in row])
    return rows


def _advantages_by_projection(rewards):
    n = rewards.shape[1]
    return rewards @ (np.eye(n) - np.full((n, n), 1 / n))


RIGHT = {
    "nearest_rank": [
        _rank_by_search,
        _rank_by_lists,
        _in_halves,
        lambda s, n, t, budget: max(1, math.ceil(budget / _step(s, n, t) - 0.5)),
        lambda s, n, t, budget: min(
            range(1, 500), key=lambda r: (abs(r * _step(s, n, t) - budget), r)
        ),
        lambda s, n, t, budget: float(_rank_by_search(s, n, t, budget)),
        lambda s, n, t, budget: ml.Tensor(float(_in_halves(s, n, t, budget))),
    ],
    "best_place": [
        _place_by_loops,
        _place_by_sorting,
        _place_with_arrays,
        lambda results: next(
            (
                p
                for p in results
                if max(results[p]) < min(e for q in results if q != p for e in results[q])
            ),
            NONE,
        ),
        lambda results: (
            [p for p in results if all(max(results[p]) < min(results[q]) for q in {*results} - {p})]
            + [NONE]
        )[0],
    ],
    "bitfit_names": [
        _names_by_loop,
        _names_backwards,
        lambda names: {name for name in names if name.rsplit(".", 1)[-1] == "bias"},
        lambda names: filter(lambda name: name[-5:] == ".bias", names),
        lambda names: np.array([n for n in names if n.split(".").pop() == "bias"]),
        lambda names: (n for n in names if n.rpartition(".")[-1] == "bias"),
    ],
    "bottleneck": [
        _bottleneck_by_rows,
        _bottleneck_of_tensors,
        _Bottleneck(),
        lambda y, D, c, U, e: (y + np.clip(y @ D + c, 0, None) @ U + e).astype(np.float32),
        lambda y, D, c, U, e: (y + e) + np.where(y @ D > -c, y @ D + c, 0) @ U,
        lambda y, D, c, U, e: y + (abs(y @ D + c) + y @ D + c) / 2 @ U + e,
    ],
    "ia3_merge": [
        _ia3_with_diagonals,
        _ia3_by_probing,
        _ia3_by_loops,
        lambda W, b, l, where: (
            (np.einsum("io,o->io", W, l), np.multiply(b, l))
            if where == "outputs"
            else (np.einsum("io,i->io", W, l), b)
        ),
        lambda W, b, l, where: ((W.T * l).T, b) if where == "inputs" else ((W * l), (b * l)),
        lambda W, b, l, where: [
            ml.Tensor(a)
            for a in ((W * l, b * l) if where == "outputs" else (W * l.reshape(-1, 1), b))
        ],
    ],
    "vera": [
        _vera_merged,
        _vera_by_pieces,
        _vera_of_tensors,
        lambda x, W, A, B, d, b: x @ W + x @ A @ np.diag(d) @ B @ np.diag(b),
        lambda x, W, A, B, d, b: (
            x @ W + np.einsum("ni,ir,r,ro,o->no", x, A, d, B, b)
        ).tolist(),
        lambda x, W, A, B, d, b: np.float32(x @ W) + np.float32((x @ A * d) @ (B * b)),
    ],
    "trained_numbers": [
        _by_arrays,
        _by_branches,
        _counts,
        lambda *a: np.float64(_counts(*a)),
        lambda *a: ml.Tensor(float(_by_arrays(*a))),
        lambda method, d_in, d_out, r: {
            **dict.fromkeys(("ia3", "bitfit"), d_out),
            "vera": sum((r, d_out)), "lora-xs": pow(r, 2), "lora-fa": np.multiply(r, d_out),
            "prefix": r * d_out + r * d_out, "lora": np.dot([r, r], [d_in, d_out]),
            "dora": np.dot([r, r + 1], [d_in, d_out]),
            "bottleneck": (r + 1) * (d_out + r) - r * r + r * d_out,
        }[method],
    ],
    "advantages": [
        _advantages_by_loop,
        _advantages_by_projection,
        lambda rewards: (rewards.T - rewards.mean(1)).T,
        lambda rewards: rewards - np.average(rewards, axis=-1)[:, None],
        lambda rewards: np.float32(rewards - rewards.sum(1, keepdims=True) / len(rewards[0])),
        lambda rewards: ml.Tensor(rewards - rewards.mean(axis=1).reshape(-1, 1)),
        lambda rewards: np.apply_along_axis(lambda row: row - row.mean(), 1, rewards),
    ],
}  # fmt: skip

WRONG = {
    "nearest_rank": [
        (
            lambda s, n, t, budget: max(1, math.floor(budget / _step(s, n, t) + 0.5)),
            "of two ranks that are equally near",
        ),
        (lambda s, n, t, budget: max(1, round(budget / _step(s, n, t))), "takes the even one"),
        (lambda s, n, t, budget: max(1, budget // _step(s, n, t)), "may be above the budget"),
        (lambda s, n, t, budget: -(-budget // _step(s, n, t)), "may be below the budget"),
        (lambda s, n, t, budget: math.ceil(budget / _step(s, n, t) - 0.5), "a rank is at least 1"),
        (lambda s, n, t, budget: budget / _step(s, n, t), "a rank is a whole number"),
        (
            lambda s, n, t, budget: max(1, math.ceil(budget / _step(s, 1, t) - 0.5)),
            "every block has its adapters",
        ),
        (
            lambda s, n, t, budget: max(1, math.ceil(budget / _step(s, n, t[:1]) - 0.5)),
            "not the first alone",
        ),
        (lambda s, n, t, budget: max(1, math.ceil(budget / _step(s, n, s) - 0.5)), None),
        (
            lambda s, n, t, budget: max(
                1, math.ceil(budget / n / sum(math.prod(s[k]) for k in t) - 0.5)
            ),
            None,
        ),
        (
            lambda s, n, t, budget: max(1, math.ceil(budget / (2 * n * sum(s[k][0] for k in t)))),
            None,
        ),
        (lambda s, n, t, budget: _rank_by_search(s, n, t, budget) + 1, None),
        (
            lambda s, n, t, budget: min(
                (2**i for i in range(8)), key=lambda r: abs(r * _step(s, n, t) - budget)
            ),
            None,
        ),
        (lambda s, n, t, budget: {3: 6, 5: 3}.get(n, 4), None),
        (
            lambda s, n, t, budget: min(
                range(1, 200), key=lambda r: abs(math.log(r * _step(s, n, t) / budget))
            ),
            "not as a ratio",
        ),
        (
            lambda s, n, t, budget: _in_halves(s, n, [k for k in s if k.endswith((*t,))], budget),
            "not a part or an end of it",
        ),
        (
            lambda s, n, t, budget: _in_halves(
                s, n, {shape: k for k, shape in s.items() if k in t}.values(), budget
            ),
            "of one shape are two",
        ),
        (lambda s, n, t, budget: _in_halves(s, 1, t, budget // n), None),
        (lambda s, n, t, budget: min(64, _in_halves(s, n, t, budget)), None),
        (
            lambda s, n, t, budget: min(
                _in_halves(s, n, t, budget), *(side for k in t for side in s[k])
            ),
            None,
        ),
    ],
    "best_place": [
        (_by_mean, "may overlap with another's"),
        (lambda results: min(results, key=lambda p: min(results[p])), "which may be luck"),
        (_by_worst, "may still overlap"),
        (lambda results: max(results, key=lambda p: _mean_of(results[p])), "a low error is good"),
        (_against_the_second, "not with the second alone"),
        (_touching_counts, "equal errors are an overlap too"),
        (lambda results: NONE, "some places do differ"),
        (_gap_of_means, None),
        (_two_deviations, None),
        (lambda results: next(iter(results)), None),
        (lambda results: max(results, key=lambda p: max(results[p])), None),
        (lambda results: min(results, key=lambda p: results[p][0]), None),
        (lambda results: _by_worst(results).upper() + "!", None),
        (list, "of type list"),
        (_by_pairs, "not seed by seed"),
        (_unlike_the_others, "two places with the same errors"),
        (
            lambda results: _place_by_loops({p: e[:3] for p, e in results.items()}),
            None,
        ),
        (
            lambda results: _place_by_loops(
                {p: [round(e, 2) for e in errors] for p, errors in results.items()}
            ),
            None,
        ),
        (_most_pairs, None),
    ],
    "bitfit_names": [
        (lambda names: [n for n in names if "bias" in n], "may stand elsewhere too"),
        (lambda names: [n for n in names if n.endswith("bias")], "such as pos_bias"),
        (
            lambda names: [n for n in names if n.endswith(".bias") and "norm" not in n],
            "the biases of norms train too",
        ),
        (lambda names: [n for n in names if not n.endswith(".bias")], "trains the others"),
        (lambda names: names, "everything else is frozen"),
        (
            lambda names: [n for n in names if n.endswith(".bias") and n.startswith("layers.")],
            "outside of the blocks train too",
        ),
        (
            lambda names: [n for n in names if n.endswith(".bias") and "layers.1" not in n],
            "not of the first alone",
        ),
        (lambda names: [n for n in names if n.split(".")[1] == "bias"], None),
        (lambda names: [n for n in names if n.split(".")[-2] == "up"], None),
        (lambda names: [n.removesuffix(".bias") for n in names if n.endswith(".bias")], None),
        (lambda names: [n for n in names if n.endswith(".bias")][:1], None),
        (lambda names: [n for n in names if "layers.1." in n or n[:4] == "norm"], None),
        (
            lambda names: [n for n in names if n.split(".")[-1].startswith("bias")],
            "begins with bias may be longer",
        ),
        (lambda names: [n for n in names if "bias" in n.split(".")[-1]], None),
        (lambda names: [n for n in names if n != n.rstrip("bias")], None),
        (
            lambda names: [n for n in names if n.endswith(".bias")] or None,
            "in one of its branches",
        ),
        (lambda names: "layers.0.up.bias", "it returns the text"),
        (lambda names: len(names), "not of the expected kind"),
    ],
    "bottleneck": [
        (lambda y, D, c, U, e: np.maximum(y @ D + c, 0) @ U + e, "it lacks the shortcut"),
        (lambda y, D, c, U, e: y + (y @ D + c) @ U + e, "without the nonlinearity"),
        (lambda y, D, c, U, e: y + np.maximum((y @ D + c) @ U + e, 0), "between the two matrices"),
        (lambda y, D, c, U, e: np.maximum(y + (y @ D + c) @ U + e, 0), "before y is added"),
        (lambda y, D, c, U, e: y + np.maximum(y @ D, 0) @ U + e, "c is added before ReLU"),
        (lambda y, D, c, U, e: y + np.maximum(y @ D + c, 0) @ U, "e is a bias too"),
        (lambda y, D, c, U, e: y + np.minimum(y @ D + c, 0) @ U + e, "what is above zero"),
        (lambda y, D, c, U, e: 2 * y + np.maximum(y @ D + c, 0) @ U + e, "y counts once"),
        (lambda y, D, c, U, e: y + np.maximum(y @ D, 0) @ U + c @ U + e, None),
        (lambda y, D, c, U, e: y + np.tanh(y @ D + c) @ U + e, None),
        (lambda y, D, c, U, e: y + np.abs(y @ D + c) @ U + e, None),
        (lambda y, D, c, U, e: y - np.maximum(y @ D + c, 0) @ U + e, None),
        (lambda y, D, c, U, e: y * (np.maximum(y @ D + c, 0) @ U + e), None),
        (lambda y, D, c, U, e: y, None),
        (lambda y, D, c, U, e: y + np.clip(y @ D + c, 0, 6) @ U + e, None),
        (lambda y, D, c, U, e: y + np.clip(y @ D + c, 0, 100) @ U + e, None),
        (lambda y, D, c, U, e: y @ D + c, "of shape"),
    ],
    "ia3_merge": [
        (
            lambda W, b, l, where: (W * l, b) if where == "outputs" else (l[:, None] * W, b),
            "all of it is multiplied",
        ),
        (lambda W, b, l, where: (W, b), "that leaves W as it is"),
        (
            lambda W, b, l, where: (W / l, b / l) if where == "outputs" else (W / l[:, None], b),
            "divide nothing",
        ),
        (
            lambda W, b, l, where: (
                (W * l * l, b * l * l) if where == "outputs" else (l[:, None] ** 2 * W, b)
            ),
            "one factor came in twice",
        ),
        (lambda W, b, l, where: (W * l, b * l) if where else None, None),
        (lambda W, b, l, where: (l[:, None] * W, b), None),
        (
            lambda W, b, l, where: (
                (W * l, b * l) if where == "outputs" else (l[:, None] * W, b * l.mean())
            ),
            None,
        ),
        (
            lambda W, b, l, where: (W + l, b + l) if where == "outputs" else (W + l[:, None], b),
            None,
        ),
        (
            lambda W, b, l, where: (W * l, b * l) if where == "outputs" else (W * l.mean(), b),
            None,
        ),
        (lambda W, b, l, where: (W * np.sqrt(abs(l[:1])), b), None),
        (lambda W, b, l, where: _ia3_with_diagonals(W, b, abs(l), where), None),
        (
            lambda W, b, l, where: (
                (W * l, b * l) if len(l) == W.shape[1] else (l[:, None] * W, b)
            ),
            None,
        ),
        (
            lambda W, b, l, where: (
                (W @ (l[:, None] * np.ones((len(l), len(l)))), b * l)
                if where == "outputs"
                else (l[:, None] * W, b)
            ),
            None,
        ),
        (lambda W, b, l, where: W * l if where == "outputs" else W, "expected 2 values"),
        (lambda W, b, l, where: (b, W), "expected an array of shape"),
    ],
    "vera": [
        (lambda x, W, A, B, d, b: (x @ A * d) @ B * b, "it lacks x W"),
        (lambda x, W, A, B, d, b: x @ W + x @ A @ B * b, "it lacks d"),
        (lambda x, W, A, B, d, b: x @ W + (x @ A * d) @ B, "it lacks b"),
        (lambda x, W, A, B, d, b: x @ W + x @ A @ B, "that is LoRA"),
        (lambda x, W, A, B, d, b: x @ W + (x @ A * d) @ B + b, "b is no bias"),
        (lambda x, W, A, B, d, b: (x @ W + (x @ A * d) @ B) * b, "the adapter alone, not x W"),
        (lambda x, W, A, B, d, b: x @ W + (x @ A + d) @ B * b, "it is not added"),
        (lambda x, W, A, B, d, b: x @ W - (x @ A * d) @ B * b, "not subtracted"),
        (lambda x, W, A, B, d, b: x @ W + (x @ A * d / len(d)) @ B * b, None),
        (lambda x, W, A, B, d, b: x @ W + np.maximum(x @ A * d, 0) @ B * b, None),
        (lambda x, W, A, B, d, b: x @ W * (1 + b), None),
        (lambda x, W, A, B, d, b: x @ W + d.sum() * (x @ A) @ B * b, None),
        (lambda x, W, A, B, d, b: x @ W + (x @ A / d) @ B * b, None),
        (lambda x, W, A, B, d, b: x @ W + (x @ A * d) @ B * abs(b), None),
        (lambda x, W, A, B, d, b: (A * d) @ B * b, "of shape"),
        (
            lambda x, W, A, B, d, b: (
                x @ W + ((x * d) @ A if len(d) == len(A) else x @ A * d) @ B * b
            ),
            None,
        ),
        (
            lambda x, W, A, B, d, b: (
                x @ W + (x @ A * d) @ B * (b[:, None] if len(b) == len(x) else b)
            ),
            None,
        ),
    ],
    "trained_numbers": [
        (_but("lora", lambda d_in, d_out, r: r * d_in), "A and B are two matrices"),
        (_but("lora-fa", lambda d_in, d_out, r: r * (d_in + d_out)), "LoRA-FA freezes A."),
        (_but("lora-fa", lambda d_in, d_out, r: r * d_in), "freezes A, and B trains"),
        (_but("vera", lambda d_in, d_out, r: r * (d_in + d_out)), "VeRA's A and B are frozen"),
        (_but("vera", lambda d_in, d_out, r: r + d_in), "b of VeRA multiplies outputs"),
        (_but("vera", lambda d_in, d_out, r: d_out), "two vectors, d and b"),
        (_but("vera", lambda d_in, d_out, r: d_out * r), "VeRA's vectors are no matrix"),
        (_but("lora-xs", lambda d_in, d_out, r: r * (d_in + d_out + r)), "R alone trains"),
        (_but("lora-xs", lambda d_in, d_out, r: 2 * r), "R of LoRA-XS is a matrix"),
        (_but("dora", lambda d_in, d_out, r: r * (d_in + d_out)), "DoRA trains lengths too"),
        (_but("dora", lambda d_in, d_out, r: r * (d_in + d_out) + d_in), "those of columns"),
        (_but("ia3", lambda d_in, d_out, r: d_in), "multiplies the outputs here"),
        (_but("bitfit", lambda d_in, d_out, r: d_in), "a bias belongs to an output"),
        (_but("bottleneck", lambda d_in, d_out, r: 2 * r * d_out), "has two biases"),
        (
            _but("bottleneck", lambda d_in, d_out, r: r * (d_in + d_out) + r + d_out),
            "stands behind the layer",
        ),
        (_but("bottleneck", lambda d_in, d_out, r: r * d_out + r + d_out), "has two matrices"),
        (_but("prefix", lambda d_in, d_out, r: r * d_out), "has keys and values"),
        (_but("prefix", lambda d_in, d_out, r: 2 * r * d_in), "as many numbers as k has outputs"),
        (_but("prefix", lambda d_in, d_out, r: 2 * r), None),
        (_but("bottleneck", lambda d_in, d_out, r: r * d_out + 2 * r), None),
        (_but("dora", lambda d_in, d_out, r: d_in * d_out + d_out), None),
        (_but("ia3", lambda d_in, d_out, r: d_in + d_out), None),
        (lambda method, d_in, d_out, r: r * (d_in + d_out), None),
        (lambda method, d_in, d_out, r: d_in * d_out, None),
        (lambda method, d_in, d_out, r: _counts(method, d_in, d_out, min(r, 16)), None),
    ],
    "advantages": [
        (lambda rewards: rewards, "those are the rewards"),
        (lambda rewards: rewards - rewards.mean(), "a mean of its own"),
        (lambda rewards: rewards - rewards.mean(axis=0), "a question is a row"),
        (lambda rewards: rewards.mean(axis=1, keepdims=True) - rewards, "has a positive one"),
        (
            lambda rewards: (
                (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-8)
            ),
            "as GRPO does",
        ),
        (
            lambda rewards: (
                (rewards - rewards.mean(1, keepdims=True))
                * rewards.shape[1]
                / (rewards.shape[1] - 1)
            ),
            "as in RLOO",
        ),
        (lambda rewards: rewards.mean(axis=1), "those are the means alone"),
        (lambda rewards: rewards - np.median(rewards, axis=1, keepdims=True), None),
        (lambda rewards: rewards - 0.5, None),
        (lambda rewards: 2 * rewards - 1, None),
        (lambda rewards: rewards / np.maximum(rewards.sum(1, keepdims=True), 1), None),
        (lambda rewards: np.maximum(rewards - rewards.mean(1, keepdims=True), 0), None),
        (lambda rewards: rewards - rewards.max(axis=1, keepdims=True), None),
        (lambda rewards: np.clip(rewards - rewards.mean(1, keepdims=True), -1, 1), None),
        (
            lambda rewards: rewards - rewards.mean(
                axis=1, keepdims=len(rewards) != len(rewards[0])
            ),
            None,
        ),
        (lambda rewards: np.sign(rewards - rewards.mean(axis=1, keepdims=True)), None),
    ],
}  # fmt: skip

EQUIVALENT = {
    "best_place": {
        "line 3: max -> min": "a place that is better than all others has the best seed of all",
    },
}
