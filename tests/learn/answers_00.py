"""Answers to lesson 00's exercises: right ones in other styles, wrong ones with their reasons, and
changed solutions that compute the same."""

import numpy as np

import minilora as ml
from minilora import reference
from minilora.nn import Linear


def _sum(shapes):
    return sum(d_in + d_out for d_in, d_out in shapes)


def _share(total, shapes, r):
    return r * _sum(shapes) / (total + r * _sum(shapes))


def _delta_by_loops(A, B, alpha, r):
    rows, columns = len(A), len(B[0])
    delta = [[0.0] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            for k in range(r):
                delta[i][j] += A[i][k] * B[k][j] * alpha / r
    return delta


def _forward_by_rows(x, W, A, B, alpha, r):
    flat = np.reshape(x, (-1, len(W)))
    rows = [row @ W + alpha / r * ((row @ A) @ B) for row in flat]
    return np.reshape(rows, (*np.shape(x)[:-1], W.shape[1]))


def _forward_by_a_layer(x, W, A, B, alpha, r):
    x, W, A, B = (np.asarray(one, np.float32) for one in (x, W, A, B))
    linear = Linear(*W.shape, rng=np.random.default_rng(0), bias=False)
    linear.weight.data = W
    linear.requires_grad_(False)
    layer = ml.LoraLinear(linear)
    layer.adapters["default"] = ml.lora.LowRank(A, B, alpha / r)
    layer.active = "default"
    return layer(ml.Tensor(x))


def _merge_by_columns(W, A, B, s):
    new = np.empty_like(W)
    for j in range(W.shape[1]):
        new[:, j] = W[:, j] + s * (A @ B[:, j])
    return new


def _merge_by_adding_to_a_copy(W, A, B, s):
    W = W.copy()
    W += s * A @ B
    return W


def _merge_in_place(W, A, B, s):
    W += s * (A @ B)
    return W


def _gradients(x, A, B, s, G):
    return s * x.T @ (G @ B.T), s * (x @ A).T @ G


def _gradients_by_differences(x, A, B, s, G):
    """The loss sum(y G) is linear in each entry, so that any step will do."""

    def loss(A, B):
        return (s * (x @ A) @ B * G).sum()

    grads = []
    for which, M in enumerate((A, B)):
        grad = np.zeros_like(M)
        for at in np.ndindex(M.shape):
            moved = M.copy()
            moved[at] += 1e-3
            new = (moved, B) if which == 0 else (A, moved)
            grad[at] = (loss(*new) - loss(A, B)) / 1e-3
        grads.append(grad)
    return grads


def _gradients_by_autograd(x, A, B, s, G):
    A, B = (ml.Tensor(M, requires_grad=True) for M in (A, B))
    y = s * ((ml.Tensor(x) @ A) @ B)
    (y * ml.Tensor(G)).sum().backward()
    return A.grad, B.grad


def _gradients_from_that_of_W(x, A, B, s, G):
    dW = x.T @ G
    return (s * dW @ B.T).tolist(), (s * A.T @ dW).tolist()


def _changed(index, factor):
    """The right gradients, with one of them multiplied by factor(arguments)."""

    def gradients(*arguments):
        pair = list(_gradients(*arguments))
        pair[index] = pair[index] * factor(*arguments)
        return tuple(pair)

    return gradients


def _both(factor):
    def gradients(*arguments):
        return tuple(one * factor(*arguments) for one in _gradients(*arguments))

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


def _b_before_a(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        G = (x @ W + s * (x @ A) @ B - target) / len(x)
        B = B - lr * _gradients(x, A, B, s, G)[1]
        A = A - lr * _gradients(x, A, B, s, G)[0]
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


def _trains_a_copy_of_W_too(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        G = (x @ W + s * (x @ A) @ B - target) / len(x)
        grad_A, grad_B = _gradients(x, A, B, s, G)
        W, A, B = W - lr * x.T @ G, A - lr * grad_A, B - lr * grad_B
    return A, B


def _momentum(x, target, W, A, B, s, lr, steps):
    m_A = m_B = 0
    for _ in range(steps):
        G = (x @ W + s * (x @ A) @ B - target) / len(x)
        grad_A, grad_B = _gradients(x, A, B, s, G)
        m_A, m_B = 0.9 * m_A + grad_A, 0.9 * m_B + grad_B
        A, B = A - lr * m_A, B - lr * m_B
    return A, B


def _signs(x, target, W, A, B, s, lr, steps):
    return _train(lambda grad_A, grad_B: (np.sign(grad_A), np.sign(grad_B)))(
        x, target, W, A, B, s, lr, steps
    )


def _row_by_row(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        for i in range(len(x)):
            one = slice(i, i + 1)
            A, B = _train()(x[one], target[one], W, A, B, s, lr / len(x), 1)
    return A, B


def _best_B(x, target, W, A, B, s, lr, steps):
    return A, np.linalg.lstsq(s * x @ A, target - x @ W, rcond=None)[0]


def _best_change(x, target, W, A, B, s, lr, steps):
    U, S, V = np.linalg.svd(np.linalg.lstsq(x, target, rcond=None)[0] - W)
    return U[:, :2] * S[:2], V[:2] / s


def _train_by_rows(x, target, W, A, B, s, lr, steps):
    """Gradients summed row by row, in lists of arrays."""
    A, B = A.copy(), B.copy()
    while steps > 0:
        steps -= 1
        grad_A, grad_B = np.zeros_like(A), np.zeros_like(B)
        for row, wanted in zip(x, target, strict=True):
            off = (row @ (W + s * A @ B) - wanted) / x.shape[0]
            grad_A += s * np.outer(row, B @ off)
            grad_B += s * np.outer(row @ A, off)
        A = A - lr * grad_A
        B = B - lr * grad_B
    return [A, B]


def _train_through_W(x, target, W, A, B, s, lr, steps):
    for _ in range(steps):
        dW = s * x.T @ (x @ (W + s * A @ B) - target) / len(x)
        A, B = A - lr * dW @ B.T, B - lr * A.T @ dW
    return A.tolist(), B.tolist()


def _train_by_autograd(x, target, W, A, B, s, lr, steps):
    A, B = ml.Tensor(A.copy(), requires_grad=True), ml.Tensor(B.copy(), requires_grad=True)
    for _ in range(steps):
        off = ml.Tensor(x @ W - target) + s * ((ml.Tensor(x) @ A) @ B)
        ((off * off).sum() * (0.5 / len(x))).backward()
        for M in (A, B):
            M.data = M.data - lr * M.grad
            M.grad = None
    return A, B


def _train_in_single_precision(*arguments):
    arrays = [np.asarray(a, np.float32) for a in arguments[:5]]
    return _train()(*arrays, *arguments[5:])


class _Trainer:
    def __call__(self, x, target, W, A, B, s, lr, steps):
        if steps == 0:
            return A, B
        return self(x, target, W, *_train()(x, target, W, A, B, s, lr, 1), s, lr, steps - 1)


RIGHT = {
    "lora_forward": [
        _forward_by_rows,
        _forward_by_a_layer,
        lambda x, W, A, B, alpha, r: x @ (W + alpha / r * A @ B),
        lambda x, W, A, B, alpha, r: np.einsum("...i,io->...o", x, W + alpha / r * A @ B),
        lambda x, W, A, B, alpha, r: (x @ W + alpha * ((x @ A) @ B) / r).tolist(),
        lambda x, W, A, B, alpha, r: reference.lora_linear(
            x, ml.Tensor(W), None, ml.Tensor(A), ml.Tensor(B), scale=alpha / r
        ),
        lambda x, W, A, B, alpha, r: np.tensordot(x, W, 1)
        + np.float32(alpha / r) * np.dot(np.dot(x, A), B).astype(np.float32),
    ],
    "delta_weight": [
        _delta_by_loops,
        lambda A, B, alpha, r: np.einsum("ik,kj->ij", A, B) * alpha / r,
        lambda A, B, alpha, r: sum(np.outer(A[:, k], B[k]) for k in range(r)) / r * alpha,
        lambda first, second, a, rank: ((second.T @ first.T) * (a / rank)).T,
        lambda A, B, alpha, r: ml.Tensor(A) @ ml.Tensor(B) * (alpha / r),
        lambda A, B, alpha, r: (A.astype(np.float32) @ B.astype(np.float32)) * (alpha / r),
        lambda A, B, alpha, r: alpha / A.shape[1] * np.matmul(A, B),
    ],
    "merge": [
        _merge_by_columns,
        _merge_by_adding_to_a_copy,
        lambda W, A, B, s: (W + s * A @ B).tolist(),
        lambda W, A, B, s: np.add(W, np.float64(s) * A @ B),
        lambda W, A, B, s: np.hstack([W, s * A]) @ np.vstack([np.eye(W.shape[1]), B]),
        lambda W, A, B, s: ml.Tensor(W) + ml.Tensor(s * A) @ ml.Tensor(B),
    ],
    "trained_share": [
        _share,
        lambda total, shapes, r: 1 - total / (total + r * _sum(shapes)),
        lambda total, shapes, r: 1 / (1 + total / (r * _sum(shapes))),
        lambda total, shapes, r: float(r * np.sum(shapes) / (total + r * np.sum(shapes))),
        lambda n, sizes, rank: np.float32(_share(n, sizes, rank)),
        lambda total, shapes, r: (lambda t: t / (t + total))(
            sum(np.zeros((a, r)).size + np.zeros((r, b)).size for a, b in shapes)
        ),
    ],
    "lora_gradients": [
        _gradients_by_differences,
        _gradients_by_autograd,
        _gradients_from_that_of_W,
        lambda *a: list(_gradients(*a)),
        lambda x, A, B, s, G: (
            s * np.einsum("ni,no,ro->ir", x, G, B),
            s * np.einsum("ni,ir,no->ro", x, A, G),
        ),
        lambda x, A, B, s, G: (
            sum(s * np.outer(row, B @ g) for row, g in zip(x, G, strict=True)),
            sum(s * np.outer(row @ A, g) for row, g in zip(x, G, strict=True)),
        ),
    ],
    "train_lora": [
        _train_by_rows,
        _train_through_W,
        _train_by_autograd,
        _train_in_single_precision,
        _Trainer(),
        lambda *a: list(_train()(*a)),
    ],
}  # fmt: skip

WRONG = {
    "lora_forward": [
        (lambda x, W, A, B, alpha, r: alpha / r * (x @ A) @ B, "the detour alone"),
        (lambda x, W, A, B, alpha, r: x @ W, "that is x W alone"),
        (lambda x, W, A, B, alpha, r: x @ W + x @ A @ B, "must be multiplied by s"),
        (lambda x, W, A, B, alpha, r: x @ W + alpha * (x @ A) @ B, "alpha / r, not alpha"),
        (lambda x, W, A, B, alpha, r: x @ W + r / alpha * (x @ A) @ B, "with r / alpha"),
        (lambda x, W, A, B, alpha, r: x @ W + alpha / r**0.5 * (x @ A) @ B, "as in rsLoRA"),
        (lambda x, W, A, B, alpha, r: x @ W + alpha // r * (x @ A) @ B, "rounds down"),
        (lambda x, W, A, B, alpha, r: alpha / r * x @ (W + A @ B), "and not to W"),
        (
            lambda x, W, A, B, alpha, r: x @ W + (alpha / r * x @ A) @ (alpha / r * B),
            "must come in once",
        ),
        (lambda x, W, A, B, alpha, r: x @ (W - alpha / r * A @ B), "is added, not taken off"),
        (lambda x, W, A, B, alpha, r: x @ (W + B @ A), "raised ValueError"),
        (
            lambda x, W, A, B, alpha, r: (x @ (W + alpha / r * A @ B)).reshape(-1, W.shape[1]),
            "is an array of shape (6, 4); expected an array of shape (2, 3, 4)",
        ),
        (lambda x, W, A, B, alpha, r: x @ W + alpha / len(A) * (x @ A) @ B, None),
        (lambda x, W, A, B, alpha, r: (x @ W) * (1 + alpha / r * (x @ A) @ B), None),
        (lambda x, W, A, B, alpha, r: x @ W + alpha / r * np.maximum(x @ A, 0) @ B, None),
        (lambda x, W, A, B, alpha, r: x @ W + alpha / r * x.mean() * (A @ B).sum(0), None),
        (lambda x, W, A, B, alpha, r: x @ W + 2 * (x @ A) @ B, None),
        (lambda x, W, A, B, alpha, r: np.round(x @ (W + alpha / r * A @ B)), None),
    ],
    "delta_weight": [
        (lambda A, B, alpha, r: A @ B, "it lacks the factor"),
        (lambda A, B, alpha, r: alpha * (A @ B), "s is alpha / r, not alpha"),
        (lambda A, B, alpha, r: r / alpha * (A @ B), "with r / alpha"),
        (lambda A, B, alpha, r: alpha / np.sqrt(r) * (A @ B), "as in rsLoRA"),
        (lambda A, B, alpha, r: alpha // r * (A @ B), "rounds down"),
        (lambda A, B, alpha, r: alpha / r * (B.T @ A.T), "A comes first"),
        (lambda A, B, alpha, r: alpha / r * A @ (alpha / r * B), "must come in once"),
        (lambda A, B, alpha, r: alpha / A.shape[0] * (A @ B), None),
        (lambda A, B, alpha, r: alpha / B.shape[1] * (A @ B), None),
        (lambda A, B, alpha, r: alpha / r * np.outer(A[:, 0], B[0]), None),
        (lambda A, B, alpha, r: alpha / r * np.abs(A @ B), None),
        (lambda A, B, alpha, r: alpha / r * np.outer(A.sum(1), B.sum(0)), None),
        (lambda A, B, alpha, r: alpha / r * (B @ A), "raised ValueError"),
    ],
    "merge": [
        (lambda W, A, B, s: W + s * (A @ B) if B.any() else None, "in one of its branches"),
        (lambda W, A, B, s: W + s * (A @ B) if B.any() else W, "you return W itself"),
        (lambda W, A, B, s: W + abs(s) * (A @ B), None),
        (lambda W, A, B, s: W + A @ B, "s is missing"),
        (lambda W, A, B, s: s * (A @ B), "that is s A B alone"),
        (lambda W, A, B, s: W - s * (A @ B), "which is unmerging"),
        (lambda W, A, B, s: s * (W + A @ B), "and not to W"),
        (lambda W, A, B, s: W.copy(), "nothing merged into it"),
        (lambda W, A, B, s: W + s * A @ (s * B), "must come in once"),
        (lambda W, A, B, s: W + s * (A @ B) + s * (A @ B), "merges the change twice"),
        (_merge_in_place, "you changed the W you were given"),
        (lambda W, A, B, s: (W + s * (A @ B)).T, "of shape (3, 6); expected an array of"),
        (lambda W, A, B, s: W + s * np.abs(A @ B), None),
        (lambda W, A, B, s: W * (1 + s * (A @ B)), None),
        (lambda W, A, B, s: (W + s * (A @ B)) / (1 + s), None),
        (lambda W, A, B, s: W + s * (A @ B) / A.shape[1], None),
        (lambda W, A, B, s: (W + s * (A @ B)).astype(np.float16).round(), None),
    ],
    "trained_share": [
        (lambda total, shapes, r: r * _sum(shapes), "that is a count"),
        (lambda total, shapes, r: r * _sum(shapes) / total, "A and B are missing"),
        (lambda *a: 100 * _share(*a), "in per cent"),
        (lambda *a: 1 - _share(*a), "that is frozen"),
        (lambda total, shapes, r: _share(total, shapes, 1), "that is for r = 1"),
        (lambda total, shapes, r: _share(total, shapes[:1], r), "that is one matrix"),
        (lambda *a: 1 / _share(*a), "upside down"),
        (lambda total, shapes, r: _share(total, [(a, a) for a, _ in shapes], r), "as square"),
        (lambda total, shapes, r: _share(total - 2 * r * _sum(shapes), shapes, r), "on top of"),
        (lambda total, shapes, r: round(_share(total, shapes, r), 2), None),
        (lambda total, shapes, r: 2 * r / sum(map(max, shapes)), None),
        (lambda total, shapes, r: _share(sum(a * b for a, b in shapes), shapes, r), None),
        (lambda total, shapes, r: _share(total, [(b, b) for _, b in shapes], r), None),
        (lambda total, shapes, r: _share(total, set(shapes), r), None),
        (lambda total, shapes, r: r * _sum(shapes) // (total + r * _sum(shapes)), None),
    ],
    "lora_gradients": [
        (lambda *a: _gradients(*a)[::-1], "in the wrong order: return grad_A, grad_B"),
        (_both(lambda x, A, B, s, G: 1 / s), "s is missing from both"),
        (_changed(0, lambda x, A, B, s, G: 1 / s), "s is missing from the gradient of A"),
        (_changed(1, lambda x, A, B, s, G: 1 / s), "s is missing from the gradient of B"),
        (_both(lambda x, A, B, s, G: s), "s came in twice"),
        (_both(lambda x, A, B, s, G: 1 / len(x)), "divided by the number of rows"),
        (_both(lambda x, A, B, s, G: -1), "the wrong sign"),
        (lambda *a: (_gradients(*a)[0].T, _gradients(*a)[1]), "of A is transposed"),
        (lambda *a: (_gradients(*a)[0], _gradients(*a)[1].T), "of B is transposed"),
        (_changed(0, lambda x, A, B, s, G: 0), "zero only while B is"),
        (lambda *a: _gradients(*a)[0], "it returns ndarray; expected 2 values"),
        (lambda x, A, B, s, G: (s * x.T @ G @ B, 0), "raised ValueError"),
        (_changed(0, lambda x, A, B, s, G: -1), None),
        (_both(lambda x, A, B, s, G: 2), None),
        (lambda *a: tuple(np.sign(one) for one in _gradients(*a)), None),
        (lambda x, A, B, s, G: (s * x.T @ (G @ B.T), s * A.T @ x.T @ np.abs(G)), None),
        (lambda *a: tuple(one / (1 + np.linalg.norm(one)) for one in _gradients(*a)), None),
        (lambda x, A, B, s, G: _gradients(x, A, B + s * A.T @ x.T @ G, s, G), None),
    ],
    "train_lora": [
        (lambda *a: _train()(*a) if a[-1] else None, "in one of its branches"),
        (_train(over=lambda x: 4), None),
        (_train(lambda grad_A, grad_B: (-grad_A, -grad_B)), "goes up the slope"),
        (_train(over=lambda x: 1), "divided by the number of rows"),
        (_train(lambda grad_A, grad_B: (2 * grad_A, 2 * grad_B)), "twice the gradient"),
        (_train(in_y=lambda s: 1), "y lacks the factor s"),
        (_train(lambda grad_A, grad_B: (grad_A / 0.4, grad_B / 0.4)), "both gradients lack"),
        (_train(lambda grad_A, grad_B: (2 * grad_A, 2 * grad_B), lambda x: 1), None),
        (_train(lambda grad_A, grad_B: (0, grad_B)), "A did not train"),
        (_train(lambda grad_A, grad_B: (grad_A, 0)), "B did not train"),
        (_train(more=1), "one step too many"),
        (_once, "one step only"),
        (_in_turn, "A moved before"),
        (_stale, "anew in every step"),
        (_in_place, "you changed the A you were given"),
        (_trains_W, "you changed the W you were given"),
        (lambda *a: _train()(*a)[1], "it returns ndarray; expected 2 values"),
        (_b_before_a, None),
        (_momentum, None),
        (_signs, None),
        (_row_by_row, None),
        (_best_B, None),
        (_best_change, None),
        (_trains_a_copy_of_W_too, None),
    ],
}  # fmt: skip
