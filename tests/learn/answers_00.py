"""Wrong solutions of lesson 00's exercises, with words of the diagnosis that each must get."""

from collections.abc import Callable
from typing import Any

import numpy as np

Answer = tuple[Callable[..., Any], str]


def _sum(shapes):
    return sum(d_in + d_out for d_in, d_out in shapes)


def _merge_in_place(W, A, B, s):
    W += s * (A @ B)
    return W


def _gradients(x, A, B, s, G):
    return s * x.T @ (G @ B.T), s * (x @ A).T @ G


def _changed(index, factor):
    """The right gradients, with one of them multiplied by factor(arguments)."""

    def gradients(*arguments):
        pair = list(_gradients(*arguments))
        pair[index] = pair[index] * factor(*arguments)
        return tuple(pair)

    return gradients


def _train(change=lambda grad_A, grad_B: (grad_A, grad_B), over=len, in_y=lambda s: s, more=0):
    def train(x, target, W, A, B, s, lr, steps):
        for _ in range(steps + more):
            G = (x @ W + in_y(s) * (x @ A) @ B - target) / over(x)
            grad_A, grad_B = change(*_gradients(x, A, B, s, G))
            A, B = A - lr * grad_A, B - lr * grad_B
        return A, B

    return train


def _in_turn(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        G = (x @ W + s * (x @ A) @ B - target) / len(x)
        A = A - lr * _gradients(x, A, B, s, G)[0]
        B = B - lr * _gradients(x, A, B, s, G)[1]
    return A, B


def _stale(x, target, W, A, B, s, lr, steps):
    G = (x @ W + s * (x @ A) @ B - target) / len(x)
    for _ in range(steps):
        grad_A, grad_B = _gradients(x, A, B, s, G)
        A, B = A - lr * grad_A, B - lr * grad_B
    return A, B


def _once(x, target, W, A, B, s, lr, steps):
    return _train()(x, target, W, A, B, s, lr, 1)


def _in_place(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        G = (x @ W + s * (x @ A) @ B - target) / len(x)
        grad_A, grad_B = _gradients(x, A, B, s, G)
        A -= lr * grad_A
        B -= lr * grad_B
    return A, B


def _trains_W(x, target, W, A, B, s, lr, steps):
    W -= lr * x.T @ (x @ W - target)
    return _train()(x, target, W, A, B, s, lr, steps)


WRONG: dict[str, list[Answer]] = {
    "lora_forward": [
        (lambda x, W, A, B, alpha, r: alpha / r * (x @ A) @ B, "the detour alone"),
        (lambda x, W, A, B, alpha, r: x @ W, "that is x W alone"),
        (lambda x, W, A, B, alpha, r: x @ W + x @ A @ B, "must be multiplied by s"),
        (lambda x, W, A, B, alpha, r: x @ W + alpha * (x @ A) @ B, "alpha / r, not alpha"),
        (lambda x, W, A, B, alpha, r: x @ W + r / alpha * (x @ A) @ B, "with r / alpha"),
        (lambda x, W, A, B, alpha, r: x @ W + alpha / r**0.5 * (x @ A) @ B, "as in rsLoRA"),
        (lambda x, W, A, B, alpha, r: alpha / r * x @ (W + A @ B), "and not to W"),
        (
            lambda x, W, A, B, alpha, r: x @ W + (alpha / r * x @ A) @ (alpha / r * B),
            "must come in once",
        ),
        (
            lambda x, W, A, B, alpha, r: x @ W + np.float64(alpha / r) * (x @ A) @ B,
            "y is float64, and all arrays given are float32",
        ),
        (lambda x, W, A, B, alpha, r: x @ (W + B @ A), "raised ValueError"),
        (
            lambda x, W, A, B, alpha, r: (x @ (W + alpha / r * A @ B)).reshape(-1, 3),
            "is an array of shape (6, 3); expected an array of shape (2, 3, 3)",
        ),
    ],
    "delta_weight": [
        (lambda A, B, alpha, r: A @ B, "it lacks the factor"),
        (lambda A, B, alpha, r: alpha * (A @ B), "s is alpha / r, not alpha"),
        (lambda A, B, alpha, r: r / alpha * (A @ B), "with r / alpha"),
        (lambda A, B, alpha, r: alpha / np.sqrt(r) * (A @ B), "as in rsLoRA"),
        (lambda A, B, alpha, r: alpha // r * (A @ B), "rounds down"),
        (lambda A, B, alpha, r: alpha / r * (B.T @ A.T), "A comes first"),
        (lambda A, B, alpha, r: alpha / A.shape[0] * (A @ B), "is 25 at [0, 1]; expected 37.5."),
        (lambda A, B, alpha, r: alpha / r * (B @ A), "raised ValueError"),
    ],
    "merge": [
        (lambda W, A, B, s: W + A @ B, "s is missing"),
        (lambda W, A, B, s: s * (A @ B), "that is s A B alone"),
        (lambda W, A, B, s: W - s * (A @ B), "which is unmerging"),
        (lambda W, A, B, s: s * (W + A @ B), "and not to W"),
        (lambda W, A, B, s: W.copy(), "nothing merged into it"),
        (_merge_in_place, "you changed the W you were given"),
        (lambda W, A, B, s: W + np.float64(s) * (A @ B), "merged W is float64"),
        (lambda W, A, B, s: (W + s * (A @ B)).T, "of shape (3, 6); expected an array of"),
    ],
    "trained_share": [
        (lambda total, shapes, r: r * _sum(shapes), "that is a count"),
        (lambda total, shapes, r: r * _sum(shapes) / total, "A and B are missing"),
        (
            lambda total, shapes, r: 100 * r * _sum(shapes) / (total + r * _sum(shapes)),
            "in per cent",
        ),
        (lambda total, shapes, r: total / (total + r * _sum(shapes)), "that is frozen"),
        (lambda total, shapes, r: _sum(shapes) / (total + _sum(shapes)), "that is for r = 1"),
        (lambda total, shapes, r: r * 256 / (total + r * 256), "that is one matrix"),
        (lambda total, shapes, r: (total + r * _sum(shapes)) / r / _sum(shapes), "upside down"),
    ],
    "lora_gradients": [
        (lambda *a: _gradients(*a)[::-1], "return grad_A, grad_B, in this order"),
        (_changed(0, lambda x, A, B, s, G: 1 / s), "missing: the gradient of x A is s"),
        (_changed(1, lambda x, A, B, s, G: 1 / s), "missing: what B multiplies"),
        (_changed(0, lambda x, A, B, s, G: s), "s came in twice"),
        (_changed(0, lambda x, A, B, s, G: 1 / len(x)), "divided by the number of rows"),
        (_changed(0, lambda x, A, B, s, G: -1), "the wrong sign"),
        (lambda *a: (_gradients(*a)[0].T, _gradients(*a)[1]), "x.T comes first"),
        (lambda *a: (_gradients(*a)[0], _gradients(*a)[1].T), "(x @ A).T comes first"),
        (lambda *a: _gradients(*a)[0], "it returns ndarray; expected two arrays"),
        (lambda x, A, B, s, G: (s * x.T @ G @ B, 0), "raised ValueError"),
    ],
    "train_lora": [
        (_train(lambda grad_A, grad_B: (-grad_A, -grad_B)), "goes up the slope"),
        (_train(over=lambda x: 1), "divided by the number of rows"),
        (_train(in_y=lambda s: 1), "lacks the factor s"),
        (_train(lambda grad_A, grad_B: (0, grad_B)), "A did not train"),
        (_train(more=1), "one step too many"),
        (_once, "one step only"),
        (_in_turn, "A moved before"),
        (_stale, "anew in every step"),
        (_in_place, "you changed the A you were given"),
        (_trains_W, "you changed the W you were given"),
        (lambda *a: _train()(*a)[1], "it returns ndarray; expected two arrays"),
    ],
}  # fmt: skip
