"""Answers to lesson 10's exercises: right ones in other styles, wrong ones with their reasons, and
changed solutions that compute the same."""

import bisect
from itertools import pairwise

import numpy as np

import minilora as ml


def _delta(adapter):
    A, B, s = adapter
    return s * A @ B


def _by_loops(A, B):
    rows, r, columns = len(A), len(B), len(B[0])
    return [
        [sum(float(A[i][k]) * float(B[k][j]) for k in range(r)) for j in range(columns)]
        for i in range(rows)
    ]


def _in_turn_by_putting_back(W, adapters):
    weight, out = W.copy(), []
    for A, B, s in adapters:
        weight += s * A @ B
        out.append(weight.copy())
        weight = W.copy()
    return (*out, weight)


def _in_turn_by_subtracting(W, adapters):
    weight, out = W, []
    for one in adapters:
        weight = weight + _delta(one)
        out.append(weight)
        weight = weight - _delta(one)
    return [*out, weight]


def _in_turn_piled_up(W, adapters):
    weight, out = W, []
    for one in adapters:
        weight = weight + _delta(one)
        out.append(weight)
    return [*out, W]


def _in_turn_in_place(W, adapters):
    kept, out = W, []
    for one in adapters:
        W += _delta(one)
        out.append(W.copy())
        W = kept
    return [*out, kept]


def _in_turn_in_one_array(W, adapters):
    weight, out = W.copy(), []
    for one in adapters:
        weight[...] = W + _delta(one)
        out.append(weight)
    weight[...] = W
    return [*out, weight]


def _concatenated(adapters, shares, in_A=lambda c, s: c * s, in_B=lambda c, s: 1):
    together = list(zip(adapters, shares, strict=True))
    A = np.concatenate([in_A(c, s) * A for (A, _, s), c in together], axis=1)
    B = np.concatenate([in_B(c, s) * B for (_, B, s), c in together])
    return A, B


def _concatenated_in_zeros(adapters, shares):
    ranks = [len(B) for _, B, _ in adapters]
    A = np.zeros((len(adapters[0][0]), sum(ranks)))
    B = np.zeros((sum(ranks), adapters[0][1].shape[1]))
    start = 0
    for (a, b, s), c, r in zip(adapters, shares, ranks, strict=True):
        A[:, start : start + r] = a
        B[start : start + r] = c * s * b
        start += r
    return A, B


def _summed_factors(adapters, shares):
    A, B = _concatenated(adapters, shares)
    return A, B[::-1]


def _cut_total(adapters, shares):
    """The SVD of the sum, cut at the sum of the ranks: too few if the matrix is smaller."""
    A, B = _concatenated(adapters, shares)
    U, S, Vt = np.linalg.svd(A @ B, full_matrices=False)
    return U[:, : len(B)] * S[: len(B)], Vt[: len(B)]


def _padded_total(adapters, shares):
    A, B = _concatenated(adapters, shares)
    U, S, Vt = np.linalg.svd(A @ B, full_matrices=False)
    short = max(0, len(B) - len(S))
    A = np.pad(U * S, ((0, 0), (0, short)))[:, : len(B)]
    return A, np.pad(Vt, ((0, short), (0, 0)))[: len(B)]


def _where_share(adapters, shares):
    kept = [(one, c) for one, c in zip(adapters, shares, strict=True) if c]
    return _concatenated([one for one, _ in kept], [c for _, c in kept])


def _averaged(A1, B1, A2, B2):
    return (A1 + A2) @ (B1 + B2) / 4


def _svd(A, B):
    return np.linalg.svd(A @ B, full_matrices=False)


def _compress_roots(A, B, k):
    U, S, Vt = _svd(A, B)
    return U[:, :k] * np.sqrt(S[:k]), np.sqrt(S[:k])[:, None] * Vt[:k]


def _compress_by_qr(A, B, k):
    Q, R = np.linalg.qr(A.astype(float))
    P, T = np.linalg.qr(B.T.astype(float))
    U, S, Vt = np.linalg.svd(R @ T.T)
    return Q @ (U[:, :k] * S[:k]), Vt[:k] @ P.T


def _compress_by_projection(A, B, k):
    M = A.astype(float) @ B
    U = np.linalg.eigh(M @ M.T)[1][:, ::-1][:, :k]
    return [U, U.T @ M]


def _compress_by_powers(A, B, k):
    M = A.astype(float) @ B
    V = np.random.default_rng(0).standard_normal((M.shape[1], k))
    for _ in range(4000):
        V = np.linalg.qr(M.T @ (M @ V))[0]
    return M @ V, V.T


def _rows_by_loops(x, W, A, B, s, which):
    return [x[i] @ (W + s * A[j] @ B[j]) for i, j in enumerate(which)]


def _rows_by_customer(x, W, A, B, s, which):
    y = x @ W
    for customer in np.unique(which):
        rows = which == customer
        y[rows] += s * (x[rows] @ A[customer] @ B[customer])
    return y


def _read(config, tensors, module):
    found = {}
    for key, array in tensors.items():
        path, _, factor = key.removeprefix("base_model.model.").partition(".lora_")
        if path == module:
            found[factor[0]] = array
    r, alpha = config["r"], config["lora_alpha"]
    s = alpha / r**0.5 if config["use_rslora"] else alpha / r
    return s * (found["B"] @ found["A"]).T


def _found(tensors, module, which):
    """A and B by the first (0) or last (-1) key that ends like this one's."""
    return (
        [array.T for key, array in tensors.items() if key.endswith(f"{module}.lora_{one}.weight")][
            which
        ]
        for one in "AB"
    )


def _scaled_product(config, A, B):
    return _scale(config) * A @ B


def _factors(tensors, module):
    return (tensors[f"base_model.model.{module}.lora_{one}.weight"].T for one in "AB")


def _plain(config, tensors, module, s=1.0):
    A, B = _factors(tensors, module)
    return s * A @ B


def _scale(config):
    return config["lora_alpha"] / (config["r"] ** (0.5 if config["use_rslora"] else 1))


def _nf4(block, levels, scale=None, nearest=None):
    scale = max(abs(block)) if scale is None else scale
    shares = block / scale if scale else block
    codes = abs(shares[:, None] - levels).argmin(1) if nearest is None else nearest(shares, levels)
    return codes, max(abs(block))


def _nf4_by_loops(block, levels):
    scale = max(abs(float(w)) for w in block)
    codes = []
    for w in block:
        share = float(w) / scale if scale else 0.0
        codes.append(min(range(len(levels)), key=lambda i: abs(levels[i] - share)))
    return codes, scale


def _nf4_by_bisection(block, levels):
    scale = float(np.abs(block).max())
    if scale == 0:
        return [list(levels).index(0)] * len(block), 0.0
    middles = [(a + b) / 2 for a, b in pairwise(levels)]
    return [bisect.bisect(middles, w / scale) for w in block.tolist()], scale


def _nf4_by_search(block, levels):
    scale = np.linalg.norm(block, np.inf)
    middles = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(middles * scale, block) if scale else _nf4(block, levels)[0], scale


def _nf4_of_weights(block, levels):
    scale = np.abs(block).max()
    return np.argmin((block[:, None] - scale * levels) ** 2, 1) if scale else _nf4(
        block, levels
    )[0].astype(float), scale  # fmt: skip


def _evenly(shares, levels):
    return np.rint((shares + 1) / 2 * (len(levels) - 1)).astype(int)


def _of_A_alone(A, B, k):
    U, S, Vt = np.linalg.svd(A, full_matrices=False)
    return U[:, :k] * S[:k], Vt[:k] @ B


def _above_a_share(A, B, k):
    """Of the k singular values only those above a share of the largest."""
    U, S, Vt = _svd(A, B)
    return U[:, :k] * np.where(0.3 * S[0] < S, S, 0)[:k], Vt[:k]


def _best_pairs(A, B, k):
    """The k columns of A, with their rows of B, whose products are the longest."""
    lengths = np.linalg.norm(A, axis=0) * np.linalg.norm(B, axis=1)
    chosen = np.argsort(lengths)[::-1][:k]
    return A[:, chosen], B[chosen]


RIGHT = {
    "serve_in_turn": [
        _in_turn_by_putting_back,
        lambda W, adapters: [*(W + _delta(one) for one in adapters), W],
        lambda W, adapters: [W + s * np.einsum("ir,ro->io", A, B) for A, B, s in adapters] + [W],
        lambda W, adapters: [(W + np.array(_by_loops(s * A, B))) for A, B, s in adapters] + [W],
        lambda W, adapters: [ml.Tensor(W + (s * A) @ B) for A, B, s in adapters] + [ml.Tensor(W)],
        lambda W, adapters: np.stack([W + _delta(one) for one in adapters] + [W]),
        lambda W, adapters: [(W + _delta(one)).tolist() for one in adapters] + [W.tolist()],
    ],
    "concatenate": [
        _concatenated,
        _concatenated_in_zeros,
        lambda adapters, shares: _concatenated(adapters, shares, lambda c, s: c, lambda c, s: s),
        lambda adapters, shares: [one.tolist() for one in _concatenated(adapters, shares)],
        lambda adapters, shares: tuple(ml.Tensor(one) for one in _concatenated(adapters, shares)),
        lambda adapters, shares: tuple(
            one.astype(np.float64) for one in _concatenated(adapters[::-1], list(shares)[::-1])
        ),
        _padded_total,
    ],
    "averaging_error": [
        lambda A1, B1, A2, B2: -(A1 - A2) @ (B1 - B2) / 4,
        lambda A1, B1, A2, B2: (A1 @ B2 + A2 @ B1 - A1 @ B1 - A2 @ B2) / 4,
        lambda A1, B1, A2, B2: (
            np.mean([A1, A2], axis=0) @ np.mean([B1, B2], axis=0)
            - np.mean([A1 @ B1, A2 @ B2], axis=0)
        ),
        lambda *a: (_averaged(*a) - np.einsum("nir,nro->io", a[::2], a[1::2]) / 2).tolist(),
        lambda a, b, c, d: ml.Tensor(_averaged(a, b, c, d) - (a @ b + c @ d) / 2),
        lambda a, b, c, d: _averaged(a, b, c, d) - np.array(_by_loops(a, b)) / 2 - c @ d / 2,
    ],
    "compress": [
        _compress_roots,
        _compress_by_qr,
        _compress_by_projection,
        _compress_by_powers,
        lambda A, B, k: (_svd(A, B)[0][:, :k], np.diag(_svd(A, B)[1][:k]) @ _svd(A, B)[2][:k]),
        lambda A, B, k: [one.tolist() for one in _compress_roots(A, B, k)],
        lambda A, B, k: tuple(ml.Tensor(one) for one in _compress_roots(A, B, k)),
    ],
    "per_row": [
        _rows_by_loops,
        _rows_by_customer,
        lambda x, W, A, B, s, which: x @ (W + s * A[which] @ B[which]),
        lambda x, W, A, B, s, w: x @ W + s * np.einsum("ntd,ndr,nro->nto", x, A[w], B[w]),
        lambda x, W, A, B, s, w: ml.Tensor(x @ W + (s * x @ A[w]) @ B[w]),
        lambda x, W, A, B, s, w: np.array(_rows_by_loops(x, W, A, B, s, w)).tolist(),
    ],
    "delta_from_files": [
        _read,
        lambda c, t, m: _plain(c, t, m, _scale(c)),
        lambda c, t, m: np.array(_by_loops(*_factors(t, m))) * _scale(c),
        lambda c, t, m: (_plain(c, t, m).astype(np.float64) * _scale(c)).tolist(),
        lambda c, t, m: ml.Tensor(_plain(c, t, m, np.float32(_scale(c)))),
        lambda c, t, m: np.einsum("ri,or->io", *(one.T for one in _factors(t, m))) * _scale(c),
    ],
    "to_nf4": [
        _nf4_by_loops,
        _nf4_by_bisection,
        _nf4_by_search,
        _nf4_of_weights,
        _nf4,
        lambda block, levels: [ml.Tensor(_nf4(block, levels)[0].astype(float)), abs(block).max()],
    ],
}

WRONG = {
    "serve_in_turn": [
        (_in_turn_by_subtracting, "it is nearly W"),
        (_in_turn_piled_up, "it holds the adapters before it too"),
        (_in_turn_in_place, "you changed the W"),
        (lambda W, adapters: [*(W + A @ B for A, B, s in adapters), W], "the scale s of the"),
        (lambda W, adapters: [*(_delta(one) for one in adapters), W], "that is the change alone"),
        (lambda W, adapters: [*(W - _delta(one) for one in adapters), W], "a merge adds it"),
        (lambda W, adapters: [W + _delta(one) for one in adapters], "W the last, got 2"),
        (lambda W, adapters: (W + sum(map(_delta, adapters))).sum(), "got no list"),
        (
            lambda W, adapters: [*(W + _delta(one) for one in adapters), W + _delta(adapters[0])],
            "the last entry is not W",
        ),
        (
            lambda W, adapters: [W + sum(map(_delta, adapters)) for _ in adapters] + [W],
            "it holds all adapters together",
        ),
        (lambda W, adapters: [W + _delta(adapters[0])] * len(adapters) + [W], None),
        (lambda W, adapters: [W + _delta(one) for one in adapters[::-1]] + [W], None),
        (lambda W, adapters: [W + _delta(one) * 2 for one in adapters] + [W], None),
        (lambda W, adapters: [W, *(W + _delta(one) for one in adapters)], "last, not first"),
        (_in_turn_in_one_array, "are all entries one array"),
        (
            lambda W, adapters: [*(W + _delta((A, B, abs(s))) for A, B, s in adapters), W],
            "a negative s subtracts",
        ),
        (
            lambda W, adapters: [*(W + _delta(one) / len(one[1]) for one in adapters), W],
            "it is not divided by r",
        ),
        (lambda W, adapters: [*{s: W + s * A @ B for A, B, s in adapters}.values(), W], None),
        (lambda W, adapters: [W + _delta(one) for one in adapters if one[2] > 0] + [W], None),
        (lambda W, adapters: [W / 2 + _delta(one) for one in adapters] + [W], None),
        (
            lambda W, adapters: [W + one[2] ** 2 * one[0] @ one[1] for one in adapters] + [W],
            "s counts twice",
        ),
    ],
    "concatenate": [
        (lambda a, c: _concatenated(a, c, lambda c, s: c), "the scales s are missing"),
        (lambda a, c: _concatenated(a, c, lambda c, s: s), "the shares are missing"),
        (lambda a, c: _concatenated(a, c, lambda c, s: 1), "shares and scales are missing"),
        (
            lambda a, c: _concatenated(a, c, lambda c, s: c * s, lambda c, s: c * s),
            "shares and scales went into A and into B",
        ),
        (
            lambda a, c: _concatenated(a, c, lambda c, s: c * s, lambda c, s: c),
            "the shares went into A and into B",
        ),
        (
            lambda a, c: _concatenated(a, c, lambda c, s: c * s, lambda c, s: s),
            "the scales went into A and into B",
        ),
        (lambda a, c: _concatenated(a, c, lambda c, s: c * s / len(a)), "that is the mean"),
        (lambda a, c: _concatenated(a, c, lambda c, s: abs(c) * s), "its sign was lost"),
        (_summed_factors, None),
        (_cut_total, "the shapes (5, 4) and (4, 4)"),
        (
            lambda a, c: _concatenated(a, c if len(c) > 1 else [1.0]),
            None,
        ),
        (
            lambda a, c: _concatenated(
                list({w: one for one, w in zip(a, c, strict=True)}.values()), list(dict.fromkeys(c))
            ),
            "the shapes (8, 3) and (3, 11)",
        ),
        (_where_share, "the shapes (7, 4) and (4, 12)"),
        (
            lambda a, c: _concatenated(a, c, lambda w, s: s * w / sum(c)),
            "the shares need not add up to 1",
        ),
        (
            lambda a, c: _concatenated([(A, B, s / len(B)) for A, B, s in a], c),
            "it is not divided by r",
        ),
        (lambda a, c: _concatenated(a, c, lambda c, s: max(c, 0) * s), None),
        (lambda a, c: _concatenated(a, c, lambda c, s: c / s), None),
        (lambda a, c: _concatenated(a, c, lambda c, s: c + s), None),
        (lambda a, c: _concatenated(a, c, lambda c, s: c * a[0][2]), None),
        (lambda a, c: _concatenated(a, c, lambda w, s: s * w / sum(map(abs, c))), None),
        (
            lambda a, c: (
                sum(w * s * A[:, :1] for (A, _, s), w in zip(a, c, strict=True)),
                a[0][1][:1],
            ),
            "the shapes (9, 1) and (1, 7)",
        ),
        (lambda a, c: np.hstack([A for A, _, _ in a]), "expected 2 values"),
    ],
    "averaging_error": [
        (_averaged, "that is the product of the means"),
        (lambda A1, B1, A2, B2: (A1 @ B1 + A2 @ B2) / 2, "that is the mean of the products"),
        (lambda a, b, c, d: (a - c) @ (b - d) / 4, "the other way round"),
        (
            lambda a, b, c, d: (a + c) @ (b + d) - (a @ b + c @ d) / 2,
            "the sum of A times the sum of B",
        ),
        (lambda a, b, c, d: (a @ d + c @ b) / 4, "the own terms count a quarter"),
        (lambda a, b, c, d: a @ d + c @ b, "not even a quarter"),
        (lambda a, b, c, d: _averaged(a, b, c, d) - a @ b - c @ d, "the products are summed"),
        (
            lambda a, b, c, d: (a + c) @ (b + d) / 2 - (a @ b + c @ d) / 2,
            "each mean has a half of its own",
        ),
        (lambda a, b, c, d: _averaged(a, b, c, d) - a @ b, "only the first product"),
        (lambda a, b, c, d: np.zeros((len(a), d.shape[1])), None),
        (lambda a, b, c, d: (a - c) @ (b + d) / 4, None),
        (lambda a, b, c, d: np.abs((a - c) @ (b - d)) / 4, None),
        (lambda a, b, c, d: -(a - c) @ (b - d) / 2, None),
        (lambda a, b, c, d: (a @ d - c @ b) / 4, None),
        (lambda a, b, c, d: np.linalg.norm((a - c) @ (b - d) / 4), "expected an array of shape"),
    ],
    "compress": [
        (lambda A, B, k: (A[:, :k], B[:k]), "in no order of strength"),
        (lambda A, B, k: (_svd(A, B)[0][:, :k], _svd(A, B)[2][:k]), "values are missing"),
        (
            lambda A, B, k: (
                _svd(A, B)[0][:, :k] * _svd(A, B)[1][:k],
                _svd(A, B)[1][:k, None] * _svd(A, B)[2][:k],
            ),
            "went into both factors",
        ),
        (
            lambda A, B, k: (
                (_svd(A, B)[0] * _svd(A, B)[1])[:, len(B) - k : len(B)],
                _svd(A, B)[2][len(B) - k : len(B)],
            ),
            "the weakest directions",
        ),
        (lambda A, B, k: _of_A_alone(A, B, k), "the SVD of A alone"),
        (
            lambda A, B, k: (_svd(A, B)[0][:, :k] * np.sqrt(_svd(A, B)[1][:k]), _svd(A, B)[2][:k]),
            "both factors need one",
        ),
        (lambda A, B, k: (A[:, -k:], B[-k:]), None),
        (lambda A, B, k: _above_a_share(A, B, k), None),
        (lambda A, B, k: _best_pairs(A, B, k), None),
        (lambda A, B, k: (np.linalg.qr(A)[0][:, :k], np.linalg.qr(A)[0][:, :k].T @ A @ B), None),
        (lambda A, B, k: _of_A_alone(A[:, ::-1], B[::-1] * 2, k), None),
        (lambda A, B, k: (np.zeros((len(A), k)), B[:k]), None),
        (lambda A, B, k: (A, B), "A and B have the shapes"),
        (lambda A, B, k: A @ B, "expected 2 values"),
    ],
    "per_row": [
        (lambda x, W, A, B, s, w: x @ W + (x @ A[w]) @ B[w], "the scale s is missing"),
        (lambda x, W, A, B, s, w: s * (x @ A[w]) @ B[w], "x W is missing"),
        (lambda x, W, A, B, s, w: x @ (W + s * A[w[0]] @ B[w[0]]), "the first row's adapter"),
        (lambda x, W, A, B, s, w: x @ (W + s * (A @ B).sum(0)), "all adapters are in every row"),
        (lambda x, W, A, B, s, w: x @ (W + s * (A @ B).mean(0)), "the mean of the adapters"),
        (
            lambda x, W, A, B, s, w: x @ (W + s * (A @ B)[np.arange(len(x)) % len(A)]),
            "row i has adapter i",
        ),
        (lambda x, W, A, B, s, w: s * x @ (W + A[w] @ B[w]), "s scales x W too"),
        (lambda x, W, A, B, s, w: x @ (W + s * (A[w] @ B[w]).sum(0)), "all the adapters of the"),
        (lambda x, W, A, B, s, w: x @ W, None),
        (lambda x, W, A, B, s, w: x @ W + s * x @ A[w].mean(0) @ B[w].mean(0), None),
        (lambda x, W, A, B, s, w: x @ W + s * x @ A[w] @ B[w[::-1]], None),
        (lambda x, W, A, B, s, w: x @ (W + s * A[max(w)] @ B[max(w)]), None),
        (lambda x, W, A, B, s, w: x @ W + s * (x @ A[w] @ B[w]).mean(1, keepdims=True), None),
        (lambda x, W, A, B, s, w: (x @ W)[:, 0], "expected an array of shape"),
    ],
    "delta_from_files": [
        (lambda c, t, m: _plain(c, t, m, _scale(c)).T, "that is its transpose"),
        (_plain, "the scale is missing"),
        (lambda c, t, m: _plain(c, t, m, c["lora_alpha"]), "the scale is lora_alpha / r, or with"),
        (lambda c, t, m: _plain(c, t, m, c["lora_alpha"] / c["r"]), "was not looked at"),
        (lambda c, t, m: _plain(c, t, m, c["lora_alpha"] / c["r"] ** 0.5), "was taken as true"),
        (
            lambda c, t, m: _plain(
                c, t, m, c["lora_alpha"] / c["r"] ** (1 if c["use_rslora"] else 0.5)
            ),
            "the wrong way round",
        ),
        (
            lambda c, t, m: _scaled_product(c, *(v.T for v in list(t.values())[:2])),
            "the first module",
        ),
        (
            lambda c, t, m: _scaled_product(c, *(v.T for v in list(t.values())[-2:])),
            "the last module",
        ),
        (
            lambda c, t, m: _scaled_product(c, *_found(t, m, 0)),
            "the first of two modules whose paths end so",
        ),
        (
            lambda c, t, m: _scaled_product(c, *_found(t, m, -1)),
            "the last of two modules whose paths end so",
        ),
        (
            lambda c, t, m: (
                _plain(c, t, m, _scale(c)).T
                if np.ptp(_plain(c, t, m).shape) == 0
                else _plain(c, t, m, _scale(c))
            ),
            "a square matrix too is to be transposed",
        ),
        (lambda c, t, m: _plain(c, t, m, _scale(c) ** 2), "so that it counts twice"),
        (
            lambda c, t, m: _plain(
                c,
                t,
                m,
                c["lora_alpha"] / (int(c["r"] ** 0.5) if c["use_rslora"] else c["r"]),
            ),
            None,
        ),
        (lambda c, t, m: _plain(c, t, "transformer.h.0.mlp.c_fc", _scale(c)), None),
        (lambda c, t, m: _plain(c, t, m, 1 / _scale(c)), "the scale is upside down"),
        (lambda c, t, m: _plain(c, t, m, c["lora_alpha"] / c["r"] ** 2), None),
        (lambda c, t, m: _plain(c, t, m, c["r"] / c["lora_alpha"] ** 0.5), None),
        (lambda c, t, m: np.abs(_plain(c, t, m, _scale(c))), None),
        (lambda c, t, m: _plain(c, t, m, _scale(c)) * 2, None),
        (lambda c, t, m: sum(_plain(c, t, f"transformer.h.{i}.mlp.c_fc") for i in range(3)), None),
        (lambda c, t, m: t[f"{m}.lora_A.weight"], "raised KeyError"),
        (lambda c, t, m: t[f"base_model.model.{m}.lora_A.weight"].T, None),
    ],
    "to_nf4": [
        (
            lambda b, levels: (_nf4(b, levels, b.max())[0], b.max()),
            "also of negative numbers",
        ),
        (lambda b, levels: _nf4(b, levels, 1), "divide by the scale first"),
        (
            lambda b, levels: (_nf4(b, levels, np.sqrt(np.mean(b**2)))[0], np.sqrt(np.mean(b**2))),
            "not a standard deviation",
        ),
        (
            lambda b, levels: _nf4(
                b, levels, nearest=lambda x, y: np.searchsorted(y, x, "right") - 1
            ),
            "that is the level below",
        ),
        (
            lambda b, levels: _nf4(b, levels, nearest=lambda x, y: np.searchsorted(y, x)),
            "that is the level above",
        ),
        (lambda b, levels: _nf4(b, levels, nearest=_evenly), "evenly spaced"),
        (lambda b, levels: (_nf4(b, levels)[0] + 1, abs(b).max()), "codes count from 0"),
        (lambda b, levels: (levels[_nf4(b, levels)[0]], abs(b).max()), "those are levels"),
        (
            lambda b, levels: (levels[_nf4(b, levels)[0]] * abs(b).max(), abs(b).max()),
            "those are the restored weights",
        ),
        (
            lambda b, levels: (_nf4(b, levels)[0] - abs(levels).argmin(), abs(b).max()),
            "not from that of zero",
        ),
        (
            lambda b, levels: _nf4(b, levels, nearest=lambda x, y: abs(x[:, None] - y).argmax(1)),
            "the level farthest away",
        ),
        (
            lambda b, levels: _nf4(b, levels) if b.any() else (np.zeros(len(b)), 0.0),
            "a block of zeros has all codes",
        ),
        (
            lambda b, levels: _nf4(b, levels) if b.any() else (_nf4(b, levels)[0], 1.0),
            "a block of zeros has the scale 0",
        ),
        (
            lambda b, levels: (_nf4(b, levels)[0], 1 / abs(b).max() if b.any() else 0.0),
            "return the scale itself",
        ),
        (lambda b, levels: (len(levels) - 1 - _nf4(b, levels)[0], abs(b).max()), None),
        (
            lambda b, levels: (
                np.where(b.any(), _nf4(b, levels)[0], len(levels) // 2),
                abs(b).max(),
            ),
            "level 0.0 need not be in the middle",
        ),
        (lambda b, levels: _nf4(b, levels) if b.any() else (np.full(len(b), 7), 0), None),
        (
            lambda b, levels: (
                np.where(b == 0, len(levels) // 2 - 1, _nf4(b, levels)[0]),
                abs(b).max(),
            ),
            None,
        ),
        (
            lambda b, levels: (_nf4(b, levels, abs(b).max() + 1e-8)[0], abs(b).max()),
            "nothing is added to the scale",
        ),
        (
            lambda b, levels: _nf4(b if abs(b).max() > 1e-6 else 0 * b, levels),
            None,
        ),
        (
            lambda b, levels: (
                _nf4(b if abs(b).max() > 1e-6 else 0 * b, levels)[0],
                abs(b).max(),
            ),
            "small weights are no zeros",
        ),
        (lambda b, levels: _nf4(b[:64], levels), None),
        (lambda b, levels: (np.sort(_nf4(b, levels)[0]), abs(b).max()), None),
        (lambda b, levels: (_nf4(b, levels, abs(b).mean() * 2)[0], abs(b).mean() * 2), None),
        (lambda b, levels: (_nf4(abs(b), levels)[0], abs(b).max()), None),
        (lambda b, levels: (_nf4(b, levels, b.max() - b.min())[0], b.max() - b.min()), None),
        (lambda b, levels: _nf4(b, levels)[0], "expected 2 values"),
    ],
}

EQUIVALENT = {
    "concatenate": {"line 5: True -> False": "as many shares as adapters"},
    "compress": {"line 3: False -> True": "only the first k columns and rows are taken"},
}
