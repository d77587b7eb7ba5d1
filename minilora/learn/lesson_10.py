"""The checkers of lesson 10, Shipping adapters."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack
from minilora.quantization.nf4 import nf4_levels

_W_FIRST = "W comes last, not first"
Factors = tuple[np.ndarray, np.ndarray, float]  # A (d_in, r), B (r, d_out), s


def _normal(*shape: int) -> np.ndarray:
    """Numbers that nobody knows before the check runs."""
    return np.random.default_rng().standard_normal(shape).astype(np.float32)


def _matrices(got: list[Any]) -> list[np.ndarray]:
    arrays = [array for array in map(as_array, got) if array is not None]
    require(len(arrays) == len(got), "A and B should be arrays of numbers")
    return arrays


def _adapter(d_in: int, d_out: int, r: int, s: float) -> Factors:
    return _normal(d_in, r), _normal(r, d_out), s


@exercise(
    hints=(
        "Each weight is computed from W itself, not from the one before it. What must you have "
        "kept for the last entry?",
        "`[W + s * A @ B for A, B, s in adapters]`, and W after these. Do not get W by "
        "subtracting: that rounds.",
    )
)
def serve_in_turn(yours: Yours) -> str:
    for d_in, d_out, ranks, scales in (
        (24, 17, (3, 2), (0.5, 3.0)),
        (15, 31, (2, 4, 2), (1.5, -2.0, 1.5)),
        (40, 9, (2,), (0.5,)),
    ):
        W = _normal(d_in, d_out)
        adapters = [_adapter(d_in, d_out, r, s) for r, s in zip(ranks, scales, strict=True)]
        deltas = [s * A @ B for A, B, s in adapters]
        got = yours(W.copy(), list(adapters))
        n = len(adapters)
        found = len(got) if isinstance(got, list | tuple | np.ndarray) else "no list"
        require(
            found == n + 1,
            f"for {n} adapters expected a list of {n + 1} weights, W the last, got {found}",
        )
        for i, delta in enumerate(deltas):
            A, B, s = adapters[i]
            mistakes = {
                "it holds the adapters before it too: begin each time with W": W
                + sum(deltas[: i + 1]),
                "the scale s of the adapter is missing": W + A @ B,
                "s counts twice": W + s * delta,
                "s is the scale already: it is not divided by r": W + delta / len(B),
                "a negative s subtracts; its sign was lost": W + abs(s) * A @ B,
                _W_FIRST: W if i == 0 else W + deltas[i - 1],
                "are all entries one array, in which W stands at the end? put in copies": W,
                "that is the change alone; the weight is W plus it": delta,
                "that is W less the change; a merge adds it": W - delta,
                "it holds all adapters together: one at a time": W + sum(deltas),
            }
            yours.compare(f"weight {i} of {n + 1}", got[i], W + delta, mistakes)
        first, last = as_array(got[0]), as_array(got[n])
        is_like_W = last is not None and last.shape == W.shape
        require(is_like_W, f"the last entry should be W again, of shape {W.shape}")
        assert last is not None
        changed = int(np.sum(last != W))
        if np.allclose(last, W, rtol=1e-3, atol=1e-3):
            why = "it is nearly W; what is rounded, as sums are, does not come back: keep W itself"
        elif first is not None and np.array_equal(first, W):
            why = _W_FIRST
        else:
            why = "the last entry is not W"
        yours.compare(
            "number of entries of W that are not what they were, at the end,",
            changed,
            0,
            {why: changed},
        )
    return "A copy of W, or W itself in an array that nobody writes to, is the only exact way back."


@exercise(
    hints=(
        "Put the A side by side, `np.hstack`, and the B below each other, `np.vstack`. Where do "
        "the shares and scales go?",
        "Multiply each A by its own `c * s` before you put them together; the B stay as they are.",
    )
)
def concatenate(yours: Yours) -> str:
    for d_in, d_out, ranks, scales, shares in (
        (9, 7, (2, 3), (2.0, 0.5), (0.75, 1.5)),
        (8, 11, (3, 1, 2), (1.5, 4.0, 1.5), (1.0, -0.5, 1.0)),
        (10, 6, (4,), (3.0,), (0.75,)),
        (6, 10, (2,), (1.5,), (1.0,)),
        (7, 12, (2, 1, 2), (2.0, 1.5, 2.5), (0.5, 0.0, -1.25)),
        (5, 4, (3, 3), (0.5, 2.0), (2.0, 0.75)),
    ):
        adapters = [_adapter(d_in, d_out, r, s) for r, s in zip(ranks, scales, strict=True)]
        parts = [(c, *one) for c, one in zip(shares, adapters, strict=True)]
        expected = sum(c * s * A @ B for c, A, B, s in parts)
        got = unpack(yours(list(adapters), list(shares)), "A, B")
        A, B = _matrices(got)
        what = f"for ranks {ranks}, scales {scales} and shares {shares}"
        shapes = f"{np.shape(A)} and {np.shape(B)}"
        wanted = (d_in, sum(ranks)), (sum(ranks), d_out)
        require(
            (np.shape(A), np.shape(B)) == wanted,
            f"A and B have the shapes {shapes}; expected {wanted[0]} and {wanted[1]} {what}",
        )
        mistakes = {
            "the scales s are missing": sum(c * A @ B for c, A, B, _ in parts),
            "the shares are missing": sum(s * A @ B for _, A, B, s in parts),
            "shares and scales are missing": sum(A @ B for _, A, B, _ in parts),
            "shares and scales went into A and into B, so that they count twice": sum(
                (c * s) ** 2 * A @ B for c, A, B, s in parts
            ),
            "the shares went into A and into B, so that they count twice": sum(
                c**2 * s * A @ B for c, A, B, s in parts
            ),
            "the scales went into A and into B, so that they count twice": sum(
                c * s**2 * A @ B for c, A, B, s in parts
            ),
            "that is the mean; expected the sum, the shares are given": expected / len(parts),
            "the shares need not add up to 1; take them as they are": expected / sum(shares),
            "s is the scale already: it is not divided by r": sum(
                c * s / len(B) * A @ B for c, A, B, s in parts
            ),
            "a negative share subtracts; its sign was lost": sum(
                abs(c) * s * A @ B for c, A, B, s in parts
            ),
        }
        yours.compare(f"product A B {what}", A @ B, expected, mistakes)
    return "One adapter with share 1 is that adapter, and the ranks add up."


@exercise(
    hints=(
        "Two matrices: what the product of the means is, and what the mean of the products is.",
        "`(A1 + A2) / 2 @ (B1 + B2) / 2` minus half of `A1 @ B1 + A2 @ B2`.",
    )
)
def averaging_error(yours: Yours) -> str:
    for d_in, d_out, r, shared in ((7, 9, 2, False), (11, 5, 3, False), (6, 8, 4, True)):
        A1, B1, _ = _adapter(d_in, d_out, r, 1)
        A2, B2, _ = _adapter(d_in, d_out, r, 1)
        A2 = 2 * A1 if shared else A2
        both, cross = A1 @ B1 + A2 @ B2, A1 @ B2 + A2 @ B1
        product = (both + cross) / 4
        expected = product - both / 2
        mistakes = {
            "that is the product of the means; subtract the mean of the products": product,
            "that is the mean of the products; it is to be subtracted": both / 2,
            "that is the other way round: first the product of the means": -expected,
            "that is the sum of A times the sum of B; take half of each": both + cross - both / 2,
            "that is the cross terms alone, but the own terms count a quarter, not a half": cross
            / 4,
            "that is the cross terms alone, and not even a quarter of them": cross,
            "the products are summed, not averaged": product - both,
            "each mean has a half of its own, so that the product has a quarter": (both + cross) / 2
            - both / 2,
            "only the first product was subtracted": product - A1 @ B1,
        }
        got = yours(A1, B1, A2, B2)
        yours.compare(f"error for {yours.inputs}", got, expected, mistakes)
    return "It is -(A1 - A2)(B1 - B2) / 4: zero only where the two have one A or one B in common."


@exercise(
    hints=(
        "Which matrix of rank k is nearest to A B? Lesson 07 finds it by an SVD.",
        "`U, S, Vt = np.linalg.svd(A @ B, full_matrices=False)`; A takes k columns of U and the "
        "singular values, B takes k rows of Vt.",
    )
)
def compress(yours: Yours) -> str:
    for d_in, d_out, r, k in ((12, 9, 5, 2), (8, 15, 4, 3), (20, 7, 6, 1)):
        A, B, _ = _adapter(d_in, d_out, r, 1)
        A = A * np.geomspace(100, 1, r, dtype=np.float32)  # so that directions differ in strength
        A, B = A[:, ::-1].copy(), B[::-1].copy()
        U, S, Vt = np.linalg.svd(A @ B, full_matrices=False)
        best = (U[:, :k] * S[:k]) @ Vt[:k]
        got = unpack(yours(A.copy(), B.copy(), k), "A, B")
        new_A, new_B = _matrices(got)
        what = f"for A {A.shape}, B {B.shape}, k={k}"
        shapes = np.shape(new_A), np.shape(new_B)
        require(
            shapes == ((d_in, k), (k, d_out)),
            f"A and B have the shapes {shapes[0]} and {shapes[1]}; expected {(d_in, k)} and "
            f"{(k, d_out)} {what}",
        )
        UA, SA, VA = np.linalg.svd(A, full_matrices=False)
        mistakes = {
            "the columns of A are in no order of strength: use the SVD of A @ B": A[:, :k] @ B[:k],
            "the singular values are missing": U[:, :k] @ Vt[:k],
            "the singular values went into both factors; the product then has their squares": (
                U[:, :k] * S[:k] ** 2
            )
            @ Vt[:k],
            "those are the weakest directions; the SVD has the strongest first": (
                U[:, r - k : r] * S[r - k : r]
            )
            @ Vt[r - k : r],
            "that is the SVD of A alone; B matters too": (UA[:, :k] * SA[:k]) @ (VA[:k] @ B),
            "only square roots of the singular values: both factors need one": (
                U[:, :k] * np.sqrt(S[:k])
            )
            @ Vt[:k],
        }
        yours.compare(f"product A B {what}", new_A @ new_B, best, mistakes, tolerance=1e-4)
    return "No other matrix of rank k is nearer (Eckart and Young 1936)."


@exercise(
    hints=(
        "x W is common to all rows. Which A and B does row i need? An array of numbers picks "
        "several at once.",
        "`A[which]` has the shape (n, d_in, r), and `@` multiplies row by row: "
        "`x @ W + s * (x @ A[which]) @ B[which]`.",
    )
)
def per_row(yours: Yours) -> str:
    for n, T, d_in, d_out, r, customers, which in (
        (4, 3, 6, 8, 2, 3, [2, 0, 0, 1]),
        (3, 5, 7, 4, 3, 4, [1, 3, 1]),
        (2, 1, 9, 5, 1, 2, [1, 0]),
    ):
        x, W, s = _normal(n, T, d_in), _normal(d_in, d_out), 1.75
        A, B, chosen = _normal(customers, d_in, r), _normal(customers, r, d_out), np.array(which)
        deltas = A @ B
        expected = x @ W + s * (x @ A[chosen]) @ B[chosen]
        counted = np.arange(n) % customers
        mistakes = {
            "the scale s is missing": x @ W + x @ deltas[chosen],
            "x W is missing": s * x @ deltas[chosen],
            "every row has the first row's adapter": x @ W + s * x @ deltas[which[0]],
            "all adapters are in every row": x @ W + s * x @ deltas.sum(axis=0),
            "that is the mean of the adapters, for every row": x @ W + s * x @ deltas.mean(axis=0),
            "row i has adapter i, not adapter which[i]": x @ W + s * x @ deltas[counted],
            "s scales x W too; it belongs to the adapter alone": s * (x @ W + x @ deltas[chosen]),
            "each row has all the adapters of the batch": x @ W
            + s * x @ deltas[chosen].sum(axis=0),
        }
        got = yours(x, W, A, B, s, chosen)
        yours.compare(f"output for {yours.inputs}", got, expected, mistakes)
    return "One product with W for all rows, and thin ones for each: so one base serves everybody."


@exercise(
    hints=(
        "Which keys hold the module's A and B? Both arrays are the transposes of ours.",
        "Keys are `base_model.model.` + module + `.lora_A.weight`, and B the same. Transpose both; "
        "s is `lora_alpha / r`, or `lora_alpha / np.sqrt(r)`.",
    )
)
def delta_from_files(yours: Yours) -> str:
    modules = tuple(f"transformer.h.{i}.mlp.c_fc" for i in range(3))
    # of another model in the same file, with paths that end like two of those
    first_of_all, last_of_all = f"draft.{modules[0]}", f"draft.{modules[2]}"
    for which, r, alpha, rslora in ((0, 3, 6, False), (1, 5, 10, True), (2, 5, 7, False)):
        d_in, d_out = (8, 8) if which == 1 else (6, 11)
        tensors, factors = {}, {}
        for module in (first_of_all, *modules, last_of_all):
            A, B, _ = _adapter(d_in, d_out, r, 1)
            factors[module] = A, B
            key = f"base_model.model.{module}"
            tensors[f"{key}.lora_A.weight"] = A.T.copy()
            tensors[f"{key}.lora_B.weight"] = B.T.copy()
        config = {"peft_type": "LORA", "r": r, "lora_alpha": alpha, "use_rslora": rslora}
        config |= {"fan_in_fan_out": True, "lora_dropout": 0.0}
        A, B = factors[modules[which]]
        first, last = factors[first_of_all], factors[last_of_all]
        s = alpha / (np.sqrt(r) if rslora else r)
        product = A @ B
        mistakes = {
            "that is its transpose, the file's layout; ours is (d_in, d_out)": s * product.T,
            "the scale is missing": product,
            "the scale is lora_alpha / r, or with use_rslora lora_alpha / sqrt(r)": alpha * product,
            "use_rslora was not looked at": alpha / r * product,
            "use_rslora was taken as true": alpha / np.sqrt(r) * product,
            "use_rslora was taken the wrong way round": alpha
            / (r if rslora else np.sqrt(r))
            * product,
            "that is the first module of the file, not the one asked for": s * first[0] @ first[1],
            "that is the last module of the file, not the one asked for": s * last[0] @ last[1],
            "the scale is upside down": product / s,
            "the scale went into A and into B, so that it counts twice": s * s * product,
        }
        if d_in == d_out:
            mistakes["a square matrix too is to be transposed"] = s * product.T
        ends_so = "of two modules whose paths end so; the key has the whole path"
        if which == 0:
            mistakes[f"that is the first {ends_so}"] = s * first[0] @ first[1]
        if which == 2:
            mistakes[f"that is the last {ends_so}"] = s * last[0] @ last[1]
        module = modules[which]
        got = yours(dict(config), dict(tensors), module)
        what = f"delta W of {module}, with r={r}, lora_alpha={alpha}, use_rslora={rslora},"
        yours.compare(what, got, s * product, mistakes)
    return "Two transposes and one scale: that is all there is to the format."


@exercise(
    hints=(
        "Divide by the largest absolute value. Which level is nearest to each share? And what if "
        "the largest absolute value is zero?",
        "`np.abs(shares[:, None] - levels).argmin(axis=1)` finds all nearest levels at once.",
    )
)
def to_nf4(yours: Yours) -> str:
    nf4, seven = nf4_levels().astype(float), np.array([-1, -0.6, -0.35, -0.2, 0, 0.55, 1])
    blocks = (
        (0.02 * _away_from_middles(nf4, 64, largest=-1), nf4),
        (3.5 * _away_from_middles(nf4, 150), nf4),
        (0.4 * _away_from_middles(seven, 20), seven),
        (np.zeros(64), nf4),
        (np.zeros(20), seven),
        (1.7 * _away_from_middles(seven, 33, largest=-1), seven),
        (3e-9 * _away_from_middles(nf4, 64), nf4),
    )
    for block, levels in blocks:
        block = block.astype(np.float32)
        scale = np.abs(block).max()
        shares = block / scale if scale > 0 else block
        codes = _nearest(shares, levels)
        got = unpack(yours(block, levels.copy()), "codes, scale")
        # the mistakes in codes come with the scale that they would have
        largest, n = block.max(), len(levels)
        spread = np.sqrt(np.mean(block.astype(float) ** 2))
        middle = np.abs(levels).argmin()
        top = levels[np.maximum(np.searchsorted(levels, shares, side="right") - 1, 0)]
        wrong_codes = {
            "the scale is the largest absolute value, also of negative numbers": _by(
                block, largest, levels
            ),
            "divide by the scale first: the levels are shares of it": _nearest(block, levels),
            "the scale is the largest absolute value, not a standard deviation": _by(
                block, spread, levels
            ),
            "that is the level below; expected the nearest": _nearest(top, levels),
            "that is the level above; expected the nearest": np.minimum(
                np.searchsorted(levels, shares), n - 1
            ),
            "those levels are evenly spaced; expected the nearest of `levels`": np.rint(
                (shares + 1) / 2 * (n - 1)
            ).astype(int),
            "codes count from 0": codes + 1,
            "those are levels; a code is the number of a level": levels[codes],
            "those are the restored weights; a code is the number of a level": levels[codes]
            * scale,
            "codes count from the lowest level, not from that of zero": codes - middle,
            "that is the level farthest away": np.abs(shares[:, None] - levels).argmax(axis=1),
            "a block of zeros has all codes at level 0.0": codes if scale else np.zeros(len(block)),
        }
        if not scale:
            why = "level 0.0 need not be in the middle, and a block of zeros has its number"
            wrong_codes[why] = np.full(len(block), n // 2)
        if 0 < scale < 1e-6:
            why = "small weights are no zeros: they have a scale and codes as all others"
            wrong_codes[why] = np.full(len(block), middle)
            why = "nothing is added to the scale: it is as small as small weights"
            wrong_codes[why] = _by(block, scale + 1e-8, levels)
        wrong_scales = {
            "the scale is the largest absolute value, also of negative numbers": largest,
            "the scale is the largest absolute value, not a standard deviation": spread,
            "a block of zeros has the scale 0": scale if scale else 1.0,
            "that divides by the scale; return the scale itself": 1 / scale if scale else scale,
        }
        what = f"for a block of {len(block)} with {n} levels, its largest weight {scale:.3g},"
        if not scale:
            what = f"for a block of zeros with {n} levels"
        yours.compare(f"scale {what}", got[1], np.float64(scale), wrong_scales)
        yours.compare(f"array of codes {what}", got[0], codes, wrong_codes)
    return "Sixteen levels for 64 weights, and one scale: 4.5 bits each."


def _nearest(shares: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.abs(shares[:, None] - levels).argmin(axis=1)


def _by(block: np.ndarray, scale: float, levels: np.ndarray) -> np.ndarray:
    return _nearest(block / scale if scale > 0 else block, levels)


def _away_from_middles(levels: np.ndarray, n: int, largest: int = 1) -> np.ndarray:
    """n shares, the first of them 0 and the last, the largest, 1 or -1, none of which is nearly as
    near to a second level."""
    rng = np.random.default_rng()
    codes = rng.permutation(np.resize(np.arange(len(levels) - 1), n - 1))
    gaps = np.diff(levels)
    shares = levels[codes] + gaps[codes] * rng.choice([0.1, 0.35, 0.65, 0.9], n - 1)
    return np.concatenate([[0.0], shares[1:], [largest]])
