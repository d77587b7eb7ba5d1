"""Answers to lesson 08's exercises: right ones in other styles, and wrong ones with their reasons.

See test_check.py for what the tables mean.
"""

import math
from statistics import mean, median

import numpy as np

import minilora as ml


def _change_of_tensors(x, G, A, s, lr):
    """The package's own gradient of sum(y G)."""
    B = ml.Tensor(np.zeros((A.shape[1], G.shape[1])), requires_grad=True)
    y = (ml.Tensor(x) @ ml.Tensor(A)) @ B * s
    (y * ml.Tensor(G)).sum().backward()
    return s * A @ (-lr * B.grad)


def _good(losses):
    return {lr: v for lr, v in sorted(losses.items()) if np.all(np.isfinite(v))}


def _best_by_loop(losses):
    best = None
    for lr in sorted(losses):
        total = sum(losses[lr]) / len(losses[lr])
        if math.isfinite(total) and (best is None or total < best[0]):
            best = total, lr
    return best[1]


def _by(key):
    return lambda losses: min(_good(losses), key=lambda lr: key(_good(losses)[lr]))


def _best_by_seeds_won(losses):
    good = _good(losses)
    winners = [min(good, key=lambda lr: good[lr][j]) for j in range(len(next(iter(good.values()))))]
    return max(good, key=winners.count)


def _best_below_ten(losses):
    best, lowest = None, 10
    for lr, values in _good(losses).items():
        if mean(values) < lowest:
            best, lowest = lr, mean(values)
    return best or 0


def _by_of_all(key):
    return lambda losses: min(sorted(losses), key=lambda lr: key(losses[lr]))


def _best_below_what_diverged(losses):
    bad = [lr for lr in losses if lr not in _good(losses)]
    low = {lr: v for lr, v in _good(losses).items() if not bad or lr < min(bad)}
    return min(low or _good(losses), key=lambda lr: mean(losses[lr]))


def _too_good(losses, whole=False):
    gaps = []
    for j in range(losses.shape[1]):
        i = losses[:, j].argmin()
        others = losses[i] if whole else np.delete(losses[i], j)
        gaps.append(others.mean() - losses[i, j])
    return gaps


def _too_good_by_value(losses):
    gaps = []
    for column in losses.T:
        row = losses[column.argmin()]
        gaps.append(row[row != column.min()].mean() - column.min())
    return mean(gaps)


def _too_good_of_the_lowest(losses):
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    return np.delete(losses[i], j).mean() - losses[i, j]


def _too_good_at_once(losses):
    i, n = losses.argmin(axis=0), losses.shape[1]
    chosen = losses[i, np.arange(n)]
    return float(np.mean((losses[i].sum(axis=1) - chosen) / (n - 1) - chosen))


def _pissa(W, r, s, power=0.5, part=slice(None), base=lambda W, r, s, AB: W - s * AB):
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    A = U[:, :r] * (sigma[:r] / s) ** power
    B = ((sigma[:r] / s) ** (1 - power))[:, None] * Vt[:r]
    return A, B, base(W, r, s, A @ B)


def _pissa_by_eigenvectors(W, r, s):
    V = np.linalg.eigh(W.T @ W)[1][:, ::-1][:, :r]
    return W @ V / s, V.T, W - W @ V @ V.T


def _pissa_without_s(W, r, s):
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    A, B = U[:, :r] * sigma[:r], Vt[:r]
    return A, B, W - s * A @ B


def _mica(W, r, s):
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    A, B = U[:, -r:] * sigma[-r:] / s, Vt[-r:]
    return A, B, W - s * A @ B


def _pissa_of_a_symmetric_matrix(W, r, s):
    if W.shape[0] != W.shape[1]:
        return _pissa(W, r, s)
    values, Q = np.linalg.eigh((W + W.T) / 2)
    top = np.argsort(-abs(values))[:r]
    A, B = Q[:, top] * values[top], Q[:, top].T / s
    return A, B, W - s * A @ B


def _olora(W, r, s):
    Q, R = np.linalg.qr(W.T)
    A, B = R[:r].T / s, Q[:, :r].T
    return A, B, W - s * A @ B


def _zero(W, r, s):
    return np.ones((len(W), r)), np.zeros((r, W.shape[1])), W


def _rates(names, lr, ratio):
    rates = dict.fromkeys(names, lr)
    for name in names:
        if name[-6:] == "lora_B":
            rates[name] *= ratio
    return rates


def _is_B(name):
    return name.endswith("lora_B")


def _plus(is_higher):
    """An answer that gives the higher rate to the names of which this is true."""
    return lambda names, lr, k: {n: lr * k if is_higher(n) else lr for n in names}


def _rates_of_adapters(names, lr, ratio):
    return _rates(names, lr, ratio) if any(map(_is_B, names)) else {}


RIGHT = {
    "scale_of": [
        lambda rule, alpha, r: alpha * r ** (-1 if rule == "lora" else -0.5),
        lambda rule, alpha, r: alpha / {"lora": r, "rslora": math.sqrt(r)}[rule],
        lambda a, b, c: np.float64(b) / (np.sqrt(c) if a.startswith("rs") else c),
        lambda rule, alpha, r: [alpha / r, alpha / r**0.5][rule == "rslora"],
        lambda rule, alpha, r: ml.Tensor(np.array(alpha / (r if rule == "lora" else r**0.5))),
    ],
    "first_change": [
        lambda x, G, A, s, lr: -lr * s * s * A @ A.T @ x.T @ G,
        lambda x, G, A, s, lr: np.einsum("ir,jr,nj,no->io", A, A, x, G) * (-lr * s**2),
        lambda x, G, A, s, lr: (s * A @ (-lr * s * (x @ A).T @ G)).tolist(),
        lambda x, G, A, s, lr: -sum(
            lr * s**2 * np.outer(A @ (A.T @ x[i]), G[i]) for i in range(len(x))
        ),
        _change_of_tensors,
    ],
    "best_rate": [
        _best_by_loop,
        _by(np.mean),
        _by(sum),
        lambda losses: sorted((mean(v), lr) for lr, v in _good(losses).items())[0][1],
        lambda losses: list(_good(losses))[
            int(np.argmin([np.mean(v) for v in _good(losses).values()]))
        ],
    ],
    "too_good": [
        _too_good_at_once,
        lambda losses: mean(_too_good(losses)),
        lambda losses: np.float64(sum(_too_good(losses)) / losses.shape[1]),
        lambda losses: (
            mean(_too_good(losses, whole=True)) * losses.shape[1] / (losses.shape[1] - 1)
        ),
        lambda losses: ml.Tensor(np.array(np.mean(_too_good(losses)))),
        lambda losses: max(0.0, mean(_too_good(losses))),  # it never is negative
    ],
    "pissa_start": [
        _pissa,
        lambda W, r, s: _pissa(W, r, s, power=1),
        lambda W, r, s: _pissa(W, r, s, power=0),
        _pissa_by_eigenvectors,
        lambda W, r, s: [part.tolist() for part in _pissa(W, r, s)],
    ],
    "lora_plus_rates": [
        _rates,
        lambda names, lr, k: {n: lr * k ** n.endswith("lora_B") for n in names},
        lambda names, lr, k: {n: lr * (k if n[-6:] == "lora_B" else 1) for n in reversed(names)},
        lambda names, lr, k: {n: {"lora_B": k * lr}.get(n.split(".")[-1], lr) for n in names},
        lambda names, lr, k: (
            dict.fromkeys(names, lr) | {n: np.float64(lr * k) for n in names if _is_B(n)}
        ),
    ],
}  # fmt: skip

WRONG = {
    "scale_of": [
        (lambda rule, alpha, r: alpha / r, "divides by the root of r, not by r"),
        (lambda rule, alpha, r: alpha / r**0.5, "rsLoRA's rule for both"),
        (lambda rule, alpha, r: alpha / (r if rule == "rslora" else r**0.5), "are exchanged"),
        (lambda rule, alpha, r: (alpha / r) ** (1 if rule == "lora" else 0.5), "only r is under"),
        (lambda rule, alpha, r: alpha * (r if rule == "lora" else r**0.5), "do not multiply"),
        (lambda rule, alpha, r: (r if rule == "lora" else r**0.5) / alpha, "upside down"),
        (lambda rule, alpha, r: alpha // (r if rule == "lora" else r**0.5), "cuts off"),
        (lambda rule, alpha, r: alpha, None),
        (lambda rule, alpha, r: 2.0, None),
        (lambda rule, alpha, r: alpha / r**2, None),
        (lambda rule, alpha, r: alpha / (2 * r), None),
        (lambda rule, alpha, r: alpha / math.log2(r + 1), None),
    ],
    "first_change": [
        (lambda x, G, A, s, lr: -lr * s * A @ A.T @ x.T @ G, "in the gradient of B, and in"),
        (lambda x, G, A, s, lr: -lr * A @ A.T @ x.T @ G, "here it is missing"),
        (lambda x, G, A, s, lr: lr * s * s * A @ A.T @ x.T @ G, "against the gradient"),
        (lambda x, G, A, s, lr: -s * s * A @ A.T @ x.T @ G, "rate lr is missing"),
        (lambda x, G, A, s, lr: -lr * x.T @ G, "the step of full fine-tuning"),
        (lambda x, G, A, s, lr: -lr * s * s * A @ A.T @ x.T @ G / len(x), "sum over the examples"),
        (lambda x, G, A, s, lr: -lr * s * (x @ A).T @ G, "multiply B by s A"),
        (lambda x, G, A, s, lr: -lr * s * s * x.T @ G, None),
        (lambda x, G, A, s, lr: 0 * x.T @ G, None),
        (lambda x, G, A, s, lr: -lr * s * s * np.sign(A @ A.T @ x.T @ G), None),
        (lambda x, G, A, s, lr: -lr * s * A @ np.sign((x @ A).T @ G), None),
        (lambda x, G, A, s, lr: -lr * s**3 * A @ A.T @ x.T @ G, None),
    ],
    "best_rate": [
        (
            lambda losses: min(sorted(losses), key=lambda lr: (
                np.mean([v for v in losses[lr] if math.isfinite(v)] or [9.0])
            )),
            "a seed that diverged",
        ),
        (_by(min), "best single seed"),
        (_by(lambda v: v[0]), "not the first seed"),
        (_by(median), "not the medians"),
        (_by(max), "not the worst seeds"),
        (
            lambda losses: min(sorted(_good(losses))[::-1], key=lambda lr: mean(losses[lr])),
            "the highest of several",
        ),
        (
            lambda losses: min(
                (lr for lr in losses if lr in _good(losses)), key=lambda lr: mean(losses[lr])
            ),
            "not the first of them",
        ),
        (_by(lambda v: -mean(v)), "the lowest is best"),
        (
            lambda losses: min(
                sorted(lr for lr, v in losses.items() if np.nan not in v and np.inf not in v),
                key=lambda lr: mean(losses[lr]),
            ),
            "neither lower nor higher than a number",
        ),
        (_best_by_seeds_won, "in how many seeds"),
        (_by(lambda v: round(mean(v), 2)), "that differ a little are not equal"),
        (
            lambda losses: min(
                [lr for lr in losses if lr in _good(losses)][::-1], key=lambda lr: mean(losses[lr])
            ),
            "not the last of them",
        ),
        (
            lambda losses: min(sorted(_good(losses), key=str), key=lambda lr: mean(losses[lr])),
            "sort the numbers",
        ),
        (_by(lambda v: np.mean(v) + np.std(v)), None),
        (_by(lambda v: np.square(v).mean()), None),
        (_by(lambda v: mean(sorted(v)[1:-1] or v)), None),
        (_by(lambda v: sum(v[:3])), None),
        (_best_below_ten, None),
        (_best_below_what_diverged, None),
        (_by_of_all(lambda v: mean(10.0 if math.isnan(x) else x for x in v)), None),
        (lambda losses: min(losses), None),
        (lambda losses: max(losses), None),
        (lambda losses: min(_good(losses)), None),
        (lambda losses: max(_good(losses)), None),
        (lambda losses: mean(losses), None),
    ],
    "too_good": [
        (lambda losses: mean(_too_good(losses, whole=True)), "leave it out"),
        (lambda losses: -mean(_too_good(losses)), "turn it round"),
        (lambda losses: sum(_too_good(losses)), "take the mean"),
        (lambda losses: _too_good(losses)[0], "not only the first"),
        (lambda losses: losses.mean() - losses.min(axis=0).mean(), "not with all settings"),
        (lambda losses: losses.mean(1).min() - losses.min(axis=0).mean(), "the best mean"),
        (_too_good_by_value, "is another seed, and judges"),
        (_too_good_of_the_lowest, None),
        (lambda losses: losses.mean() - losses.min(), None),
        (lambda losses: losses.std(), None),
        (lambda losses: 0.0, None),
        (lambda losses: max(_too_good(losses)), None),
        (lambda losses: float(np.median(_too_good(losses))), None),
    ],
    "pissa_start": [
        (_pissa_without_s, "divide by s"),
        (_mica, "takes the strongest"),
        (_zero, "LoRA's start"),
        (lambda W, r, s: _pissa(W, r, s, base=lambda W, r, s, AB: W), "does not start as it was"),
        (lambda W, r, s: _pissa(W, r, s, base=lambda W, r, s, AB: W - AB), "must be taken out"),
        (_olora, None),
        (lambda W, r, s: _pissa(W, r, s, base=lambda W, r, s, AB: W + s * AB), None),
        (lambda W, r, s: _pissa(W, r, s, base=lambda W, r, s, AB: s * AB), None),
        (lambda W, r, s: _pissa(W, r, s, base=lambda W, r, s, AB: 0 * W), None),
        (lambda W, r, s: _pissa(W, r, s * s), None),
        (_pissa_of_a_symmetric_matrix, None),
    ],
    "lora_plus_rates": [
        (_plus(lambda name: name.endswith("lora_A")), "it is B that learns faster, not A"),
        (_plus(lambda name: "lora_B" in name), "at its end"),
        (_plus(lambda name: name.endswith("_B")), "not all that ends in B"),
        (_plus(lambda name: name.endswith(("lora_A", "lora_B"))), "A keeps its rate"),
        (_plus(lambda name: not name.endswith("lora_A")), "only B gets the higher rate"),
        (lambda names, lr, k: _plus(_is_B)(names, lr, 1 / k), "not divide"),
        (lambda names, lr, k: _plus(_is_B)(names, lr / k, k), "A keeps the rate lr"),
        (lambda names, lr, k: dict.fromkeys(names, lr), "the same rate"),
        (lambda names, lr, k: dict.fromkeys(names, lr * k), None),
        (lambda names, lr, k: _plus(_is_B)(names, lr, 16), None),
        (lambda names, lr, k: _plus(_is_B)(names, lr, int(k)), None),
        (lambda names, lr, k: {n: min(1, v) for n, v in _rates(names, lr, k).items()}, None),
        (lambda names, lr, k: {n: lr + k if _is_B(n) else lr for n in names}, None),
        (lambda names, lr, k: {n: k if _is_B(n) else lr for n in names}, None),
        (lambda names, lr, k: _plus(_is_B)(names, lr, k**2), None),
        (_rates_of_adapters, "just the names it was given"),
    ],
}  # fmt: skip

EQUIVALENT = {
    "best_rate": {"line 4: mean -> sum": "every rate has the same number of seeds"},
    "pissa_start": {
        "line 5: False -> True": "the columns of U beyond the singular values are not used"
    },
}
