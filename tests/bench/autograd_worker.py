"""The benchmark's full step in HIPS autograd: the same model in autograd's own NumPy."""

import math

import autograd.numpy as np
import numpy
from autograd import value_and_grad
from shapes import ADAMW, Shape, base_weights, batch


def layer_norm(x, weight, bias):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def make_loss(s: Shape):
    ids, targets = batch(s)
    mask = numpy.triu(numpy.full((s.T, s.T), -1e9, numpy.float32), 1)
    one_hot = numpy.eye(s.V, dtype=numpy.float32)[targets]
    scale = numpy.float32(1 / math.sqrt(s.C // s.heads))

    def linear(x, w, name):
        return np.dot(x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def split(x):
        return np.transpose(np.reshape(x, (s.B, s.T, s.heads, s.C // s.heads)), (0, 2, 1, 3))

    def loss(w):
        x = w["tok_embed.weight"][ids] + w["pos_embed.weight"]
        for i in range(s.layers):
            layer = f"layers.{i}"
            h = layer_norm(x, w[f"{layer}.attn_norm.weight"], w[f"{layer}.attn_norm.bias"])
            q, k, v = (split(linear(h, w, f"{layer}.attn.{p}_proj")) for p in "qkv")
            scores = np.matmul(q, np.transpose(k, (0, 1, 3, 2))) * scale + mask
            scores = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
            y = np.matmul(scores / np.sum(scores, axis=-1, keepdims=True), v)
            y = np.reshape(np.transpose(y, (0, 2, 1, 3)), (s.B, s.T, s.C))
            x = x + linear(y, w, f"{layer}.attn.o_proj")
            h = layer_norm(x, w[f"{layer}.mlp_norm.weight"], w[f"{layer}.mlp_norm.bias"])
            h = gelu(linear(h, w, f"{layer}.mlp.up_proj"))
            x = x + linear(h, w, f"{layer}.mlp.down_proj")
        logits = np.dot(layer_norm(x, w["norm.weight"], w["norm.bias"]), w["head.weight"])
        shifted = logits - np.max(logits, axis=-1, keepdims=True)
        log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
        return -np.sum(log_p * one_hot) / (s.B * s.T)

    return loss


def gradients(s: Shape) -> dict[str, numpy.ndarray]:
    """loss, and d(loss)/d(parameter) by name, before any update."""
    value, found = value_and_grad(make_loss(s))(base_weights(s))
    return {"loss": value, **found}


def make_step(s: Shape):
    w, both = base_weights(s), value_and_grad(make_loss(s))
    m = {name: numpy.zeros_like(p) for name, p in w.items()}
    v = {name: numpy.zeros_like(p) for name, p in w.items()}
    (beta1, beta2), lr, eps = ADAMW["betas"], ADAMW["lr"], ADAMW["eps"]
    t = 0

    def step() -> float:
        nonlocal t
        t += 1
        loss, found = both(w)
        for name, g in found.items():
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            size = numpy.sqrt(v[name] / (1 - beta2**t)) + eps
            w[name] = (w[name] - lr / (1 - beta1**t) * m[name] / size).astype(numpy.float32)
        return float(loss)

    return step
