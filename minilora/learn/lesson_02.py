"""The checkers of lesson 02, A transformer from scratch."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minilora.hub.models import load_model
from minilora.learn.exercises import Wrong, Yours, as_array, exercise, in_words, require
from minilora.text.alphabet import encode

Arrays = Mapping[str, np.ndarray]
_EPS = 1e-5


def _softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _array_of(got: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The learner's result as numbers. Raises Wrong for another shape."""
    array = as_array(got)
    if array is None or array.dtype.kind == "U":
        raise Wrong(f"{what} is of type {type(got).__name__}; expected {in_words(shape)}")
    found = f"{what} is {in_words(array.shape)}; expected {in_words(shape)}"
    require(array.shape == shape, found)
    return np.asarray(array, float)


@exercise(
    hints=(
        "Exponentials first, then divide by their sum; over which axis, and how do you keep it, so "
        "that the division fits?",
        "Take the largest entry of each row off first: `x - x.max(axis=-1, keepdims=True)`. It "
        "cancels out in the fraction, and no exponential exceeds 1.",
    )
)
def softmax(yours: Yours) -> str:
    rng = np.random.default_rng()
    cases = [rng.uniform(-2, 2, shape) for shape in ((4,), (2, 3), (3, 2, 4))]
    cases.append(np.array([[0.5, -np.inf, 1.0], [2.0, -1.0, -np.inf]]))
    cases.append(np.array([[-3000.0, -3001.0, -np.inf], [0.5, -np.inf, -2.0]]))
    cases.append(np.array([[1000.0, 1001.0, 999.0], [-2000.0, -2001.0, -2000.5]]))
    for x in cases:
        huge = np.abs(x[np.isfinite(x)]).max() > 100
        with np.errstate(all="ignore"):
            got = yours(x)
        array = _array_of(got, x.shape, f"your softmax of {yours.inputs}")
        if huge and not np.isfinite(array).all():
            raise Wrong(
                "it overflows: exp(1000) is infinite, and exp(-2000) is 0 in every entry; take the "
                "largest of each row off first"
            )
        shifted = np.exp(x - x.max())
        mistakes = {"its rows are divided by the sum of all entries": shifted / shifted.sum()}
        if np.isfinite(x).all() and not huge:
            e = np.exp(x)
            share = x / x.sum(axis=-1, keepdims=True)
            mistakes["the entries themselves are divided by their sum; exp is missing"] = share
            mistakes["that is the logarithm of the softmax"] = np.log(_softmax(x))
            mistakes["the exponentials are not divided by their sum"] = e
            mistakes["that is to the base 2, not e"] = _softmax(x * math.log(2))
        if x.ndim > 1:
            mistakes["that sums over the first axis; the last one is meant"] = _softmax(x, 0)
        yours.compare(f"softmax of {yours.inputs}", got, _softmax(x), mistakes)
    return "Its rows sum to 1, however large the numbers are."


@exercise(
    hints=(
        "Entry [i, j] says how much position i looks at position j. For which j must it be "
        "minus infinity?",
        "`np.tri(T, dtype=bool)` is True where j <= i; `np.where(condition, scores, -np.inf)` "
        "keeps the scores there.",
    )
)
def mask_later(yours: Yours) -> str:
    rng = np.random.default_rng()
    for shape in ((4, 4), (1, 1), (2, 3, 3), (2, 2, 5, 5)):
        scores = rng.uniform(-1, 1, shape)
        T = shape[-1]
        scores[..., T - 1, 0] = 0.0
        visible = np.tri(T, dtype=bool)
        got = _array_of(yours(scores), shape, f"your result for scores {shape}")
        hidden = np.broadcast_to(~visible, shape)
        require(not np.isnan(got).any(), "there is nan in it, as 0 * inf gives; np.where is safe")
        require(not (got == np.inf).any(), "there is plus infinity in it; minus infinity is needed")
        found = (got < -1e6).astype(int)
        mistakes = {
            "that hides the earlier positions; the later ones must be hidden": ~visible.T,
            "that hides a position from itself, which it may see": ~visible | np.eye(T, dtype=bool),
            "nothing is hidden": np.zeros((T, T), bool),
        }
        seen_as = {why: np.broadcast_to(m, shape).astype(int) for why, m in mistakes.items()}
        if T > 1:
            is_zero = np.where(hidden, 0.0, scores)
            if np.allclose(got, is_zero):
                raise Wrong(
                    "the later positions have the score 0, and exp(0) is 1: they would still be "
                    "seen; minus infinity is needed"
                )
        what = f"mask of scores {shape} (1 where it hides)"
        yours.compare(what, found, hidden.astype(int), seen_as)
        kept = np.where(hidden | (found == 1), scores, got)
        yours.compare("scores, where nothing is hidden,", kept, scores)
    return "The first position sees only itself."


def _one_head(q: np.ndarray, k: np.ndarray, v: np.ndarray, mistake: str = "") -> np.ndarray:
    T, D = q.shape
    visible = np.tri(T, dtype=bool)
    scores = (k @ q.T if mistake == "transposed" else q @ k.T) / {
        "unscaled": 1.0, "D": D, "T": math.sqrt(T),
    }.get(mistake, math.sqrt(D))  # fmt: skip
    if mistake not in ("unmasked", "late"):
        scores = np.where(visible, scores, -1e30)
    p = _softmax(scores, 0 if mistake == "axis" else -1)
    if mistake == "late":
        p = np.where(visible, p, 0.0)
    return p @ v


@exercise(
    hints=(
        "Four steps: compare every query with every key, scale, hide the later ones, softmax. "
        "Then mix the values with the result.",
        "`scores = q @ k.T / np.sqrt(D)`, where D is the length of a query; then "
        "`softmax(mask_later(scores)) @ v`.",
    )
)
def one_head(yours: Yours) -> str:
    rng = np.random.default_rng()
    for T, D, Dv in ((5, 3, 2), (3, 4, 4), (6, 2, 3)):
        q, k, v = (1.5 * rng.standard_normal(s) for s in ((T, D), (T, D), (T, Dv)))
        known = {
            "the scores are not divided by the root of D": "unscaled",
            "the scores are divided by D, and not by its root": "D",
            "the scores are divided by the root of T; D, the length of a query, is meant": "T",
            "a position sees later ones": "unmasked",
            "the mask comes after the softmax, so the shares no longer sum to 1": "late",
            "the softmax runs down the columns; each query's row must sum to 1": "axis",
            "the scores are transposed: rows belong to queries, columns to keys": "transposed",
        }
        mistakes = {why: _one_head(q, k, v, how) for why, how in known.items()}
        what = f"attention with T = {T} and D = {D}"
        got = yours(q, k, v)
        array = as_array(got)
        finite = array is None or np.all(np.isfinite(array))
        require(finite, f"{what} has nan or infinity in it: does the mask come after the softmax?")
        yours.compare(what, got, _one_head(q, k, v), mistakes)
    return "The first row of the result is the first value: there is nothing else to look at."


@exercise(
    hints=(
        "One axis of C becomes two, heads and D, in this order. Then which axes must change "
        "places?",
        "`x.reshape(T, n_head, C // n_head)` cuts each row into its heads; `.swapaxes(0, 1)` puts "
        "the heads in front.",
    )
)
def split_heads(yours: Yours) -> str:
    rng = np.random.default_rng()
    for T, H, D in ((4, 3, 2), (2, 2, 2), (3, 1, 4), (5, 4, 3)):
        x = rng.standard_normal((T, H * D))
        expected = x.reshape(T, H, D).swapaxes(0, 1)
        mistakes = {
            "that cuts across the rows: reshape to (T, H, D) first, then swap": x.reshape(H, T, D),
            "a head has D channels that stand beside each other": x.reshape(T, D, H).transpose(
                2, 0, 1
            ),
            "the positions come first; the heads should": x.reshape(T, H, D),
            "the last two axes are the wrong way round": expected.swapaxes(1, 2),
        }
        got = yours(x, H)
        yours.compare(f"result for {yours.inputs}", got, expected, mistakes)
    return "Now one product can serve all heads at once: NumPy multiplies the last two axes."


def _layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, mistake: str = ""
) -> np.ndarray:
    axis = 0 if mistake == "axis" else -1
    mean = 0 if mistake == "mean" else x.mean(axis=axis, keepdims=True)
    centred = x - mean
    spread = (centred * centred).mean(axis=axis, keepdims=True)
    if mistake == "n - 1":
        spread = spread * x.shape[-1] / (x.shape[-1] - 1)
    if mistake == "variance":
        normed = centred / (spread + _EPS)
    elif mistake == "eps":
        normed = centred / np.sqrt(spread)
    elif mistake == "outside":
        normed = centred / (np.sqrt(spread) + _EPS)
    else:
        normed = centred / np.sqrt(spread + _EPS)
    return normed * (1 if mistake == "weight" else weight) + (0 if mistake == "bias" else bias)


@exercise(
    hints=(
        "Mean and variance are of each row alone: over which axis, and how do you keep it?",
        "The variance is the mean of the squared distances from the mean. Divide by "
        "`np.sqrt(variance + 1e-5)`, then `* weight + bias`.",
    )
)
def layer_norm(yours: Yours) -> str:
    rng = np.random.default_rng()
    for shape, scale in (((4, 6), 1.0), ((3, 5), 0.01), ((2, 3, 4), 2.0)):
        x = scale * (rng.standard_normal(shape) + 3)
        weight, bias = rng.uniform(0.5, 2, shape[-1]), rng.standard_normal(shape[-1])
        known = {
            "mean and variance must be of each row, over the last axis": "axis",
            "the mean was not taken off (that is RMSNorm)": "mean",
            "the variance divides by C - 1; the mean of squares is meant": "n - 1",
            "that divides by the variance, not by its root": "variance",
            "1e-5 is missing, without which a row of equal numbers divides by zero": "eps",
            "1e-5 belongs under the root": "outside",
            "the result must be multiplied by weight": "weight",
            "bias must be added": "bias",
        }
        mistakes = {why: _layer_norm(x, weight, bias, how) for why, how in known.items()}
        got = yours(x, weight, bias)
        yours.compare(f"result for {yours.inputs}", got, _layer_norm(x, weight, bias), mistakes)
    return "Multiply x by 10 and the result stays nearly the same: only directions count."


def _gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _linear(x: np.ndarray, w: Arrays, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def _norm(x: np.ndarray, w: Arrays, name: str) -> np.ndarray:
    return _layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _attention(x: np.ndarray, w: Arrays, n_head: int, mistake: str = "") -> np.ndarray:
    T, C = x.shape
    q, k, v = (
        _linear(x, w, f"attn.{name}_proj").reshape(T, n_head, C // n_head).swapaxes(0, 1)
        for name in "qkv"
    )
    heads = np.stack([_one_head(*of_head) for of_head in zip(q, k, v, strict=True)])
    joined = heads.reshape(T, C) if mistake == "joined" else heads.swapaxes(0, 1).reshape(T, C)
    return joined if mistake == "o" else _linear(joined, w, "attn.o_proj")


def _block(x: np.ndarray, w: Arrays, n_head: int, mistake: str = "") -> np.ndarray:
    if mistake == "one head":
        n_head = 1
    start = x
    read = x if mistake == "no norm" else _norm(x, w, "attn_norm")
    added = _attention(read, w, n_head, mistake)
    x = added if mistake == "attention alone" else x + added
    read = _norm(start if mistake == "parallel" else x, w, "mlp_norm")
    if mistake == "no second norm":
        read = x
    up = _linear(read, w, "mlp.up_proj")
    bent = {"no gelu": up, "relu": np.maximum(up, 0)}.get(mistake, _gelu(up))
    added = _linear(bent, w, "mlp.down_proj")
    return added if mistake == "mlp alone" else x + added


def _random_block(rng: np.random.Generator, C: int, hidden: int) -> dict[str, np.ndarray]:
    shapes = {
        **{f"attn.{name}_proj": (C, C) for name in "qkvo"},
        "mlp.up_proj": (C, hidden),
        "mlp.down_proj": (hidden, C),
    }
    w = {f"{name}.weight": rng.standard_normal(s) / math.sqrt(s[0]) for name, s in shapes.items()}
    w |= {f"{name}.bias": 0.3 * rng.standard_normal(s[1]) for name, s in shapes.items()}
    for name in ("attn_norm", "mlp_norm"):
        w |= {f"{name}.weight": rng.uniform(0.5, 2, C), f"{name}.bias": rng.standard_normal(C)}
    return w


@exercise(
    hints=(
        "Go along the picture: norm, q, k and v, their heads, attention in each, o, add; then "
        "norm, up, GELU, down, add. What does the second norm read?",
        "The heads' results (H, T, D) go back to (T, C) by `swapaxes(0, 1)`, then `reshape`. "
        "`x = x + ...` twice: the MLP reads the x to which attention has been added.",
    )
)
def block(yours: Yours) -> str:
    rng = np.random.default_rng()
    for T, C, hidden, n_head in ((5, 6, 10, 3), (4, 8, 12, 2)):
        x, w = rng.standard_normal((T, C)), _random_block(rng, C, hidden)
        known = {
            "attention's result must be added to x, not put in its place": "attention alone",
            "the MLP's result must be added to x, not put in its place": "mlp alone",
            "attention must read norm(x), not x": "no norm",
            "the MLP must read norm(x), not x": "no second norm",
            "the MLP must read x after attention was added": "parallel",
            "the activation function is missing between up and down": "no gelu",
            "that is with ReLU; docs-tiny has GELU": "relu",
            "o_proj is missing": "o",
            "that is one head over all channels": "one head",
            "the heads were put together wrongly: swap axes before you reshape": "joined",
        }
        mistakes = {why: _block(x, w, n_head, how) for why, how in known.items()}
        what = f"block with T = {T}, C = {C} and {n_head} heads"
        yours.compare(what, yours(x, w, n_head), _block(x, w, n_head), mistakes)
    return "Every large language model of this kind is some dozens of these, one after another."


def _logits(ids: np.ndarray, w: Arrays, n_layer: int, n_head: int, mistake: str = "") -> np.ndarray:
    table = w["tok_embed.weight"]
    x = table[ids]
    if mistake != "no positions":
        x = x + w["pos_embed.weight"][: len(ids)]
    for i in range(n_layer - (mistake == "one less")):
        layer = 0 if mistake == "first again" else i
        prefix = f"layers.{layer}."
        part = {name.removeprefix(prefix): a for name, a in w.items() if name.startswith(prefix)}
        x = _block(x, part, n_head)
    return (x if mistake == "no norm" else _norm(x, w, "norm")) @ table.T


@functools.lru_cache
def _docs_tiny() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Its weights in float64, the ids of a sentence, and minilora's logits for it."""
    model = load_model("docs-tiny")
    ids = encode("Return the name of a file.").astype(np.int64)
    weights = {name: p.data.astype(np.float64) for name, p in model.named_parameters()}
    return weights, ids, model(ids[None]).data[0]


@exercise(
    hints=(
        "x is the token's row plus the position's row. Then the blocks, in turn; then the last "
        "norm, and the product with the embedding table.",
        "The arrays of block i: `{name.removeprefix(f'layers.{i}.'): a for name, a in w.items() if "
        "name.startswith(f'layers.{i}.')}`. At the end `x @ w['tok_embed.weight'].T`.",
    )
)
def logits_of(yours: Yours) -> str:
    rng = np.random.default_rng()
    V, T, C, n_layer, n_head = 7, 4, 6, 11, 2
    w = {"tok_embed.weight": rng.standard_normal((V, C))}
    w["pos_embed.weight"] = rng.standard_normal((9, C))
    w |= {"norm.weight": rng.uniform(0.5, 2, C), "norm.bias": rng.standard_normal(C)}
    for i in range(n_layer):
        w |= {f"layers.{i}.{name}": a for name, a in _random_block(rng, C, 10).items()}
    docs, sentence, logits = _docs_tiny()
    cases = [(rng.integers(0, V, T), w, n_layer, n_head, None), (sentence, docs, 2, 4, logits)]
    known = {
        "the positions' rows are missing": "no positions",
        "the last norm is missing": "no norm",
        "a block is missing": "one less",
        "every block used the weights of the first one": "first again",
    }
    for ids, arrays, layers, heads, expected in cases:
        sizes = (arrays, layers, heads)
        right = _logits(ids, *sizes) if expected is None else expected
        mistakes = {why: _logits(ids, *sizes, how) for why, how in known.items()}
        name = "a small random model" if expected is None else "docs-tiny"
        got = yours(ids, *sizes)
        yours.compare(f"array of logits of {name}", got, right, mistakes, tolerance=1e-5)
    gap = np.abs(np.asarray(as_array(got), float) - logits).max()
    near = "1e-4" if gap < 1e-4 else f"{gap:.0e}"
    return f"On a sentence of {len(sentence)} characters yours and minilora's differ by < {near}."


@exercise(
    hints=(
        "From each row of logits one number is wanted: the probability of the character that "
        "really came next. Then its logarithm.",
        "`p = softmax(logits)`, and `p[np.arange(T), next_ids]` picks one entry of each row.",
    )
)
def nats(yours: Yours) -> str:
    rng = np.random.default_rng()
    for T, V, shift in ((5, 4, 0.0), (3, 6, 0.0), (4, 3, 900.0), (2, 5, -60.0)):
        logits = 2 * rng.standard_normal((T, V)) + max(shift, 0.0)
        next_ids = rng.integers(0, V, T)
        logits[np.arange(T), next_ids] += min(shift, 0.0)
        p = _softmax(logits)[np.arange(T), next_ids]
        right = -np.log(p).mean()
        with np.errstate(all="ignore"):
            got = yours(logits, next_ids)
        value = _array_of(got, (), "your loss")
        if shift > 0 and not np.isfinite(value):
            raise Wrong("it overflows for large logits; use the softmax of exercise 2.1")
        mistakes = {
            "that is the sum; the mean over the positions is meant": right * T,
            "the sign is missing": -right,
            "that is in bits, with the logarithm to the base 2; nats have the natural one": right
            / math.log(2),
            "that is the mean probability, without the logarithm": p.mean(),
            "that is the logarithm of the mean; the mean of the logarithms is meant": -np.log(
                p.mean()
            ),
            "that is the perplexity, exp of the loss": math.exp(right),
            "that takes the logits for probabilities": -logits[np.arange(T), next_ids].mean(),
        }
        yours.compare(f"loss for logits {logits.shape}", got, right, mistakes)
    return "A model that gives every one of 96 symbols the same probability has log(96) = 4.56."


class _Chain:
    """A stand-in for a model: which symbol comes next depends on the last two, and on how many
    it sees."""

    def __init__(self, V: int, block_size: int) -> None:
        self.V, self.block_size = V, block_size

    def __call__(self, ids: Any) -> np.ndarray:
        ids = np.asarray(ids)
        if ids.ndim != 1 or not ids.size:
            raise ValueError(f"ids of shape {ids.shape}; expected (T,)")
        if len(ids) > self.block_size:
            raise ValueError(f"{len(ids)} ids do not fit the block_size of {self.block_size}")
        before = np.concatenate([[0], ids[:-1]])
        best = (2 * ids + 3 * before + np.arange(len(ids))) % self.V
        return np.cos(2 * np.pi * (np.arange(self.V) - best[:, None]) / self.V) - 5


def _greedy(model: _Chain, ids: list[int], n: int, mistake: str = "") -> list[int]:
    ids, size = list(ids), model.block_size
    for _ in range(n):
        seen = ids[:size] if mistake == "start" else ids[-size:]
        row = model(seen)[0 if mistake == "first row" else -1]
        ids.append(int(row.argmin() if mistake == "least" else row.argmax()))
    return ids


@exercise(
    hints=(
        "One round: the logits for what the model may see, the last row of them, its largest "
        "entry, append. What may it see when the text is longer than block_size?",
        "`seen = ids[-block_size:]`, then `int(np.argmax(logits_of(np.array(seen))[-1]))`. Work on "
        "a copy: `ids = list(ids)`.",
    )
)
def write_greedily(yours: Yours) -> str:
    for V, block_size, prompt, n in ((11, 4, [3, 1], 7), (7, 5, [1, 2, 3, 4, 5, 6], 3),
                                     (13, 20, [5], 6)):  # fmt: skip
        model = _Chain(V, block_size)
        right = _greedy(model, prompt, n)
        mistakes = {
            "those are the new ids alone; the prompt belongs in front": right[len(prompt) :],
            "the last row of the logits says what comes next, not the first": _greedy(
                model, prompt, n, "first row"
            ),
            "that takes the least likely symbol": _greedy(model, prompt, n, "least"),
            "the model must see the last block_size ids, not the first": _greedy(
                model, prompt, n, "start"
            ),
            "that is one symbol too few": right[:-1],
            "that is one symbol too many": _greedy(model, prompt, n + 1),
        }
        got = yours(model, list(prompt), n, block_size)
        yours.compare(f"text for the prompt {prompt} and n = {n}", got, right, mistakes)
    return "With the logits of your own transformer it writes English of a kind: see below."
