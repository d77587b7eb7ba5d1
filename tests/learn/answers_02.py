"""Answers to lesson 02's exercises: right ones in other styles, and wrong ones with the words of
the reason that each must get (None: no reason may be named)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilora import Tensor, cross_entropy, functional, reference

Answer = tuple[Callable[..., Any], str | None]


def _softmax(x, axis=-1):
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(axis=axis, keepdims=True)


def _softmax_by_rows(x):
    if x.ndim > 1:
        return [_softmax_by_rows(row) for row in x]
    top = max(x)
    e = [math.exp(value - top) for value in x]
    return [value / sum(e) for value in e]


def _softmax_by_log(x):
    top = x.max(-1, keepdims=True)
    return np.exp(x - top - np.log(np.exp(x - top).sum(-1, keepdims=True)))


def _softmax_clipped(x):
    return _softmax(np.clip(x, -80, 80))


def _softmax_by_ratios(x):
    with np.errstate(all="ignore"):
        gaps = x[..., None, :] - x[..., :, None]
        return np.where(np.isneginf(x), 0.0, 1 / np.exp(np.nan_to_num(gaps, nan=0.0)).sum(-1))


def _shift_by_mean(x):
    e = np.exp(x - x.mean(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _naive(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def _mask_by_loop(scores):
    out = np.array(scores)
    T = out.shape[-1]
    for i in range(T):
        for j in range(i + 1, T):
            out[..., i, j] = -np.inf
    return out


def _mask_by_adding(scores):
    T = scores.shape[-1]
    return scores + np.triu(np.full((T, T), -np.inf), 1)


def _masked_to_nan(q, k, v):
    weights = _softmax(q @ k.T / math.sqrt(q.shape[-1]))
    with np.errstate(invalid="ignore"):
        return _mask_by_adding(weights) @ v


def _mask_in_place(scores):
    T = scores.shape[-1]
    scores[..., np.triu(np.ones((T, T), bool), 1)] = -np.inf
    return scores


def _mask_where(condition, fill=-np.inf):
    def mask(scores):
        T = scores.shape[-1]
        i, j = np.arange(T)[:, None], np.arange(T)
        return np.where(condition(i, j), scores, fill)

    return mask


def _mask_times(scores):
    return scores * np.tri(scores.shape[-1])


def _head(
    scale=lambda q: math.sqrt(q.shape[-1]), mask=True, late=False, axis=-1, flip=False,
    mix=lambda p, v: p @ v,
):  # fmt: skip
    def head(q, k, v):
        scores = (k @ q.T if flip else q @ k.T) / scale(q)
        T = len(q)
        if mask and not late:
            scores = np.where(np.tri(T, dtype=bool), scores, -1e30)
        p = _softmax(scores, axis)
        return mix(p * np.tri(T) if late else p, v)

    return head


def _head_by_loops(q, k, v):
    rows = []
    for i in range(len(q)):
        weights = [math.exp(float(q[i] @ k[j]) / math.sqrt(len(q[i]))) for j in range(i + 1)]
        rows.append(sum(w * v[j] for j, w in enumerate(weights)) / sum(weights))
    return rows


def _head_einsum(q, k, v):
    scores = np.einsum("id,jd->ij", q, k) / q.shape[1] ** 0.5
    return np.einsum("ij,jd->id", _softmax(_mask_by_adding(scores)), v)


def _head_running(q, k, v):
    """One pass over the keys, with a running sum, as flash attention does it."""
    out = np.zeros((len(q), v.shape[1]))
    for i, query in enumerate(q):
        total, top = 0.0, -np.inf
        for j in range(i + 1):
            score = query @ k[j] / np.sqrt(len(query))
            new = max(top, score)
            out[i] = out[i] * np.exp(top - new) + v[j] * np.exp(score - new)
            total, top = total * np.exp(top - new) + np.exp(score - new), new
        out[i] /= total
    return out


def _head_textbook(q, k, v):
    D, Dv = q.shape[1], v.shape[1]
    wide = max(D, Dv)
    padded = [
        np.pad(a, ((0, 0), (0, wide - a.shape[1])))[None] for a in (q * (wide / D) ** 0.5, k, v)
    ]
    return reference.attention(*map(Tensor, padded), n_head=1).data[0][:, :Dv]


def _heads_by_slices(x, n_head):
    return np.split(x, n_head, axis=1)


def _heads_by_loop(x, n_head):
    D = x.shape[1] // n_head
    return [x[:, h * D : (h + 1) * D].tolist() for h in range(n_head)]


def _moments(x, w, b, axis=-1, eps=1e-5, root=np.sqrt, ddof=0):
    normed = (x - x.mean(axis=axis, keepdims=True)) / root(
        x.var(axis=axis, keepdims=True, ddof=ddof) + eps
    )
    return normed * w + b


def _norm_by_rows(x, w, b):
    rows = x.reshape(-1, x.shape[-1])
    out = [
        (r - sum(r) / len(r)) / (((r - r.mean()) ** 2).mean() + 1e-5) ** 0.5 * w + b for r in rows
    ]
    return np.reshape(out, x.shape)


def _gelu(x):
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _lin(x, w, name):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def _ln(x, w, name):
    return _moments(x, w[name + ".weight"], w[name + ".bias"])


_HEAD = _head()


def _attend(x, w, H, head=_HEAD, join=lambda heads: np.concatenate(heads, axis=1), o=True):
    q, k, v = (np.split(_lin(x, w, f"attn.{n}_proj"), H, axis=1) for n in "qkv")
    joined = join([head(*three) for three in zip(q, k, v, strict=True)])
    return _lin(joined, w, "attn.o_proj") if o else joined


def _one_block(
    attend=_attend, first=_ln, second=_ln, bend=_gelu, keep=1, keep_after=1, parallel=False,
    heads=lambda H: H,
):  # fmt: skip
    def block(x, w, n_head):
        start = x
        x = keep * x + attend(first(x, w, "attn_norm"), w, heads(n_head))
        read = second(start if parallel else x, w, "mlp_norm")
        return keep_after * x + _lin(bend(_lin(read, w, "mlp.up_proj")), w, "mlp.down_proj")

    return block


def _batched_attention(x, w, H):
    T, C = x.shape
    q, k, v = (_lin(x, w, f"attn.{n}_proj").reshape(T, H, -1).transpose(1, 0, 2) for n in "qkv")
    p = _softmax(_mask_by_adding(q @ k.transpose(0, 2, 1) / math.sqrt(C / H)))
    return _lin((p @ v).transpose(1, 0, 2).reshape(T, C), w, "attn.o_proj")


def _sum_of_heads(x, w, H):
    """o's rows belong to heads: each head adds its own part."""
    D = x.shape[1] // H
    q, k, v = (_lin(x, w, f"attn.{n}_proj") for n in "qkv")
    out = w["attn.o_proj.bias"]
    for h in range(H):
        part = slice(h * D, (h + 1) * D)
        out = out + _head()(q[:, part], k[:, part], v[:, part]) @ w["attn.o_proj.weight"][part]
    return out


def _block_by_the_package(x, w, n_head):
    t = {name: Tensor(a) for name, a in w.items()}

    def linear(y, name):
        return reference.linear(y, t[f"{name}.weight"], t[f"{name}.bias"])

    x = Tensor(x)
    read = reference.layer_norm(x, t["attn_norm.weight"], t["attn_norm.bias"])
    q, k, v = (linear(read, f"attn.{n}_proj").reshape(1, *x.shape) for n in "qkv")
    x = x + linear(functional.attention(q, k, v, n_head, n_head).reshape(*x.shape), "attn.o_proj")
    read = reference.layer_norm(x, t["mlp_norm.weight"], t["mlp_norm.bias"])
    return x + linear(reference.gelu(linear(read, "mlp.up_proj")), "mlp.down_proj")


def _part(w, i):
    return {n[len(f"layers.{i}.") :]: a for n, a in w.items() if n.startswith(f"layers.{i}.")}


_BLOCK = _one_block()


def _model(
    block=_BLOCK, positions=True, norm=_ln, layers=range, head=lambda x, E: x @ E.T,
    as_type=lambda w: w,
):  # fmt: skip
    def logits_of(ids, w, n_layer, n_head):
        w = as_type(w)
        x = w["tok_embed.weight"][ids]
        if positions:
            x = x + w["pos_embed.weight"][np.arange(len(ids))]
        for i in layers(n_layer):
            x = block(x, _part(w, i), n_head)
        return head(norm(x, w, "norm"), w["tok_embed.weight"])

    return logits_of


def _float32(w):
    return {name: a.astype(np.float32) for name, a in w.items()}


def _place_by_place(ids, w, n_layer, n_head):
    return [_model()(ids[: i + 1], w, n_layer, n_head)[-1].tolist() for i in range(len(ids))]


def _rotated(ids, w, n_layer, n_head):
    turned = dict(w, **{"pos_embed.weight": w["pos_embed.weight"][: len(ids)][::-1]})
    return _model()(ids, turned, n_layer, n_head)


def _not_masked(x, w, H):
    return _attend(x, w, H, _head(mask=False))


def _picked(logits, next_ids):
    return _softmax(logits)[np.arange(len(next_ids)), next_ids]


def _nats_by_loop(logits, next_ids):
    total = 0.0
    for row, i in zip(logits, next_ids, strict=True):
        total += math.log(sum(math.exp(value - row[i]) for value in row))
    return total / len(next_ids)


def _nats_by_logs(logits, next_ids):
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return np.mean(log_sum - logits[np.arange(len(logits)), next_ids])


def _one_hot(logits, next_ids):
    wanted = np.eye(logits.shape[1])[next_ids]
    return -np.sum(wanted * np.log(_softmax(logits))) / len(next_ids)


def _naive_nats(logits, next_ids):
    return -np.log(_naive(logits)[np.arange(len(next_ids)), next_ids]).mean()


def _writer(pick=np.argmax, row=-1, window=lambda ids, size: ids[-size:], more=0, give=None):
    def write(model, ids, n, block_size):
        text = list(ids)
        for _ in range(n + more):
            text.append(int(pick(model(np.array(window(text, block_size)))[row])))
        return give(text, ids) if give else text

    return write


def _write_recursively(model, ids, n, block_size):
    if n == 0:
        return ids
    new = int(model(np.array(ids[-block_size:]))[-1].argmax())
    return _write_recursively(model, [*ids, new], n - 1, block_size)


def _write_into_an_array(model, ids, n, block_size):
    text = np.zeros(len(ids) + n, int)
    text[: len(ids)] = ids
    for end in range(len(ids), len(text)):
        text[end] = np.argsort(model(text[max(0, end - block_size) : end])[-1])[-1]
    return text


def _write_with_while(model, ids, n, block_size):
    text = tuple(ids)
    while len(text) < len(ids) + n:
        row = list(np.asarray(model(np.asarray(text)[-block_size:])[-1]))
        text += (row.index(max(row)),)
    return text


def _write_at_once(model, ids, n, block_size):
    rows = model(np.array(ids[-block_size:]))
    return ids + [int(i) for i in np.argsort(-rows[-1])[:n]]


def _write_in_place(model, ids, n, block_size):
    for _ in range(n):
        ids.append(int(model(np.array(ids[-block_size:]))[-1].argmax()))
    return ids


def _p(logits, ids):
    return _softmax(logits)[np.arange(len(ids)), ids]


def _layers_by_number(ids, w, n_layer, n_head):
    """ "layers.1" is also the start of "layers.10"."""
    mixed = dict(w)
    for i in range(n_layer):
        for name, array in w.items():
            if name.startswith(f"layers.{i}"):
                mixed[f"layers.{i}.{name.split('.', 2)[2]}"] = array
    return _model()(ids, mixed, n_layer, n_head)


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "softmax": [
        _softmax, _softmax_by_rows, _softmax_by_log, lambda z: functional.softmax(Tensor(z), -1),
        lambda x: np.apply_along_axis(_softmax, -1, x), lambda x: _softmax(x).astype(np.float32),
    ],
    "mask_later": [
        _mask_by_loop, _mask_by_adding, _mask_where(lambda i, j: j <= i),
        _mask_where(lambda i, j: j <= i, -1e9), lambda s: _mask_by_loop(s).tolist(),
        lambda s: Tensor(_mask_by_adding(s)),
    ],
    "one_head": [
        _head(), _head_by_loops, _head_einsum, _head_running, _head_textbook,
        lambda queries, keys, values: Tensor(_head()(queries, keys, values)),
    ],
    "split_heads": [
        _heads_by_slices, _heads_by_loop,
        lambda x, n_head: x.reshape(len(x), n_head, -1).transpose(1, 0, 2),
        lambda x, H: np.einsum("thd->htd", x.reshape(len(x), H, x.shape[1] // H)),
        lambda x, H: np.moveaxis(np.reshape(x, (x.shape[0], H, -1)), 1, 0),
        lambda x, H: Tensor(x).reshape(len(x), H, x.shape[1] // H).swapaxes(0, 1),
    ],
    "layer_norm": [
        _moments, _norm_by_rows,
        lambda x, w, b: functional.layer_norm(Tensor(x), Tensor(w), Tensor(b), 1e-5),
        lambda x, w, b: (x - x.mean(-1)[..., None])
        / ((x**2).mean(-1) - x.mean(-1) ** 2 + 1e-5)[..., None] ** 0.5 * w + b,
        lambda x, gamma, beta: beta + gamma * _moments(x, 1, 0),
    ],
    "block": [
        _one_block(), _one_block(_batched_attention), _one_block(_sum_of_heads),
        _block_by_the_package, lambda *a: _one_block()(*a).tolist(),
        lambda *a: _one_block()(*a).astype(np.float32),
    ],
    "logits_of": [
        _model(), _model(_one_block(_batched_attention)), _model(as_type=_float32),
        _place_by_place, _model(lambda *a: _block_by_the_package(*a).data),
        lambda *a: Tensor(_model()(*a)),
    ],
    "nats": [
        _nats_by_loop, _nats_by_logs, _one_hot,
        lambda logits, ids: cross_entropy(Tensor(logits), ids),
        lambda logits, ids: -sum(math.log(p) for p in _picked(logits, ids)) / len(ids),
        lambda logits, ids: np.array(_nats_by_logs(logits, ids)),
    ],
    "write_greedily": [
        _writer(), _write_recursively, _write_into_an_array, _write_with_while,
        _writer(window=lambda ids, size: ids[max(0, len(ids) - size) :]),
        _writer(give=lambda text, ids: Tensor(np.array(text))),
    ],
}  # fmt: skip


WRONG: dict[str, list[Answer]] = {
    "softmax": [
        (lambda x: _softmax(np.where(np.isneginf(x), -1e3, x)), None),
        (_naive, "it overflows"),
        (lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(), "the sum of all entries"),
        (lambda x: _softmax(x, 0), "over the first axis"),
        (lambda x: np.exp(x), None),
        (lambda x: x / x.sum(axis=-1, keepdims=True), None),
        (lambda x: np.log(_softmax(x)), None),
        (lambda x: _softmax(x * math.log(2)), None),
        (lambda x: (x == x.max(axis=-1, keepdims=True)) * 1.0, None),
        (_softmax_clipped, None),
        (lambda x: _softmax(np.abs(x)), None),
        (lambda x: _softmax(-x), None),
        (lambda x: math.exp(x), "raised TypeError"),
        (lambda x: _softmax(x).sum(axis=-1), "is a number; expected an array"),
        (_shift_by_mean, None),
    ],
    "mask_later": [
        (lambda s: np.where(np.tril(s) != 0, s, -np.inf), None),
        (_mask_where(lambda i, j: j >= i), "that hides the earlier positions"),
        (_mask_where(lambda i, j: j < i), "hides a position from itself"),
        (lambda scores: scores.copy(), "nothing is hidden"),
        (_mask_times, "the later positions have the score 0"),
        (_mask_in_place, "you changed the scores"),
        (lambda scores: np.tri(scores.shape[-1]), None),
        (_mask_where(lambda i, j: (i - j) % 2 == 0), None),
        (_mask_where(lambda i, j: abs(i - j) < 2), None),
        (_mask_where(lambda i, j: j <= i + 1), None),
        (lambda scores: _mask_by_adding(2 * scores), None),
        (lambda scores: _mask_by_adding(np.swapaxes(scores, -1, -2)), None),
        (lambda scores: np.where(scores > 0, scores, -np.inf), None),
    ],
    "one_head": [
        (_head(scale=lambda q: 1), "not divided by the root"),
        (_head(scale=lambda q: q.shape[-1]), "divided by D, and"),
        (_head(scale=lambda q: math.sqrt(len(q))), "by the root of T"),
        (_head(mask=False), "a position sees later ones"),
        (_head(late=True), "the mask comes after the softmax"),
        (_masked_to_nan, "does the mask come after the softmax?"),
        (_head(axis=0), "runs down the columns"),
        (_head(flip=True), "the scores are transposed"),
        (_head(mix=lambda p, v: p), "is an array of shape (5, 5)"),
        (_head(mix=lambda p, v: v), None),
        (_head(mix=lambda p, v: v[p.argmax(axis=-1)]), None),
        (_head(mix=lambda p, v: np.cumsum(v, axis=0) / np.arange(1, len(v) + 1)[:, None]), None),
        (_head(mix=lambda p, v: p @ v + v), None),
        (_head(scale=lambda q: -math.sqrt(q.shape[-1])), None),
        (_head(scale=lambda q: math.sqrt(q.shape[-1]) / 2), None),
    ],
    "split_heads": [
        (lambda x, H: x.reshape(H, len(x), -1), "that cuts across the rows"),
        (lambda x, H: x.reshape(len(x), -1, H).transpose(2, 0, 1), "stand beside each other"),
        (lambda x, H: x.reshape(len(x), H, -1), "the positions come first"),
        (lambda x, H: x.reshape(len(x), H, -1).transpose(1, 2, 0), "the wrong way round"),
        (lambda x, H: np.split(x, H, axis=0), "raised ValueError"),
        (lambda x, H: x, "is an array of shape (4, 6)"),
        (lambda x, H: np.stack([x[:, : x.shape[1] // H]] * H), None),
        (lambda x, H: _heads_by_slices(x, H)[::-1], None),
        (lambda x, H: np.sort(np.array(_heads_by_slices(x, H)), axis=-1), None),
        (lambda x, H: np.array(_heads_by_slices(x, H))[:, ::-1], None),
        (lambda x, H: np.array(_heads_by_slices(x, H)) / H, None),
    ],
    "layer_norm": [
        (lambda x, w, b: _moments(x, w, b, axis=0), "must be of each row"),
        (lambda x, w, b: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w + b, "is RMSNorm"),
        (lambda x, w, b: _moments(x, w, b, ddof=1), "C - 1"),
        (lambda x, w, b: _moments(x, w, b, root=lambda v: v), "divides by the variance"),
        (lambda x, w, b: _moments(x, w, b, eps=0), "1e-5 is missing"),
        (lambda x, w, b: _moments(x, w, b, eps=0, root=lambda v: np.sqrt(v) + 1e-5),
         "belongs under the root"),
        (lambda x, w, b: _moments(x, 1, b), "multiplied by weight"),
        (lambda x, w, b: _moments(x, w, 0), "bias must be added"),
        (lambda x, w, b: _moments(x, w, b, eps=1e-3), None),
        (lambda x, w, b: w * (_moments(x, 1, 0) + b), None),
        (lambda x, w, b: _moments(x, w, b, root=np.cbrt), None),
        (lambda x, w, b: (x - x.mean(-1, keepdims=True))
         / np.abs(x - x.mean(-1, keepdims=True)).mean(-1, keepdims=True) * w + b, None),
        (lambda x, w, b: _moments(x, w, b, axis=None), None),
        (lambda x, w, b: _moments(x, b, w), None),
    ],
    "block": [
        (_one_block(keep=0), "attention's result must be added"),
        (_one_block(keep_after=0), "the MLP's result must be added"),
        (_one_block(first=lambda x, w, name: x), "attention must read norm(x)"),
        (_one_block(second=lambda x, w, name: x), "the MLP must read norm(x)"),
        (_one_block(parallel=True), "after attention was added"),
        (_one_block(bend=lambda x: x), "the activation function is missing"),
        (_one_block(bend=lambda x: np.maximum(x, 0)), "that is with ReLU"),
        (_one_block(lambda x, w, H: _attend(x, w, H, o=False)), "o_proj is missing"),
        (_one_block(heads=lambda H: 1), "one head over all channels"),
        (_one_block(lambda x, w, H: _attend(
            x, w, H, join=lambda heads: np.array(heads).reshape(x.shape))), "put together wrongly"),
        (_one_block(first=lambda x, w, name: _ln(x, w, "mlp_norm")), None),
        (_one_block(_not_masked), None),
        (_one_block(bend=np.tanh), None),
        (_one_block(keep=2), None),
        (lambda x, w, H: _ln(_one_block()(x, w, H), w, "mlp_norm"), None),
        (lambda x, w, H: _one_block()(x, w, H) - x, None),
    ],
    "logits_of": [
        (_layers_by_number, None),
        (_model(positions=False), "the positions' rows are missing"),
        (_model(norm=lambda x, w, name: x), "the last norm is missing"),
        (_model(layers=lambda n: range(n - 1)), "a block is missing"),
        (_model(layers=lambda n: [0] * n), "the weights of the first one"),
        (_model(head=lambda x, E: x), "is an array of shape (4, 6)"),
        (_model(head=lambda x, E: x @ E), "raised ValueError"),
        (_model(head=lambda x, E: _softmax(x @ E.T)), None),
        (_model(_one_block(_not_masked)), None),
        (_model(layers=lambda n: range(n)[::-1]), None),
        (_model(_one_block(bend=lambda x: np.maximum(x, 0))), None),
        (_rotated, None),
        (_model(norm=lambda x, w, name: _moments(x, 1, 0)), None),
    ],
    "nats": [
        (lambda logits, ids: -np.log(_p(logits, ids) + 1e-9).mean(), None),
        (lambda logits, ids: -np.log(np.maximum(_p(logits, ids), 1e-12)).mean(), None),
        (lambda logits, ids: -np.log(_picked(logits, ids)).sum(), "that is the sum"),
        (lambda logits, ids: np.log(_picked(logits, ids)).mean(), "the sign is missing"),
        (lambda logits, ids: -np.log2(_picked(logits, ids)).mean(), "that is in bits"),
        (lambda logits, ids: _picked(logits, ids).mean(), "that is the mean probability"),
        (lambda logits, ids: -np.log(_picked(logits, ids).mean()), "the logarithm of the mean"),
        (lambda logits, ids: np.exp(_nats_by_logs(logits, ids)), "that is the perplexity"),
        (lambda logits, ids: -logits[np.arange(len(ids)), ids].mean(), "logits for probabilities"),
        (_naive_nats, "it overflows for large logits"),
        (lambda logits, ids: -np.log(_picked(logits, ids)), "is an array of shape (5,)"),
        (lambda logits, ids: -np.log(_softmax(logits).max(axis=1)).mean(), None),
        (lambda logits, ids: (logits.argmax(axis=1) != ids).mean(), None),
        (lambda logits, ids: -np.log(_softmax(logits)).mean(), None),
        (lambda logits, ids: -np.log(_softmax(logits)[:, ids]).mean(), None),
        (lambda logits, ids: np.median(-np.log(_picked(logits, ids))), None),
        (lambda logits, ids: ((1 - _picked(logits, ids)) ** 2).mean(), None),
    ],
    "write_greedily": [
        (_writer(give=lambda text, ids: text[len(ids) :]), "the new ids alone"),
        (_writer(row=0), "says what comes next, not the first"),
        (_writer(pick=np.argmin), "the least likely"),
        (_writer(window=lambda ids, size: ids[:size]), "the last block_size ids"),
        (_writer(more=-1), "one symbol too few"),
        (_writer(more=1), "one symbol too many"),
        (_writer(window=lambda ids, size: ids), "do not fit the block_size"),
        (_write_in_place, "you changed the ids"),
        (_write_at_once, None),
        (_writer(window=lambda ids, size: ids[-1:]), None),
        (_writer(window=lambda ids, size: ids[-max(1, size // 2) :]), None),
        (_writer(pick=lambda row: np.argsort(row)[-2]), None),
        (_writer(pick=lambda row: round(float(np.max(row)))), None),
        (_writer(give=lambda text, ids: sorted(text)), None),
    ],
}  # fmt: skip

EQUIVALENT: dict[str, dict[str, str]] = {
    "mask_later": {"line 3: 1 -> 2": "scores are square: both axes have T entries"},
    "one_head": {"line 3: -1 -> 1": "of two axes, 1 is the last"},
    "block": {"line 16: -1 -> 1": "of two axes, 1 is the last"},
}
