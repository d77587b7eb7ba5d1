"""Answers to lesson 04's exercises: right ones in other styles, and wrong ones with their reasons.

Most exercises ask for a layer, so most answers are layers: `layer(...)` makes a class of a start, a
forward pass and a delta, each right unless another is given.
"""

import math

import numpy as np

import minilora as ml
from minilora import functional as F
from minilora.tensor import record


def _uniform(d_in, d_out, r, rng):
    return rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in), np.zeros((r, d_out))


def _normal_start(d_in, d_out, r, rng):
    return rng.standard_normal((d_in, r)) / np.sqrt(d_in), np.zeros((r, d_out))


def _lists(d_in, d_out, r, rng):
    return _uniform(d_in, d_out, r, rng)[0].tolist(), [[0] * d_out for _ in range(r)]


def _loops(d_in, d_out, r, rng):
    A = rng.uniform(-1, 1, (d_in, r))
    for i in range(d_in):
        A[i] /= math.sqrt(d_in)
    return A, np.zeros((r, d_out), np.float32)


def _a(change):
    """A start whose A is changed."""
    return lambda d_in, d_out, r, rng: (
        change(rng.uniform(-1, 1, (d_in, r)), d_in, r),
        np.zeros((r, d_out)),
    )


def _kaiming(d_in, d_out, r, rng):
    bound = math.sqrt(6 / (1 + 5) / d_in)
    return rng.uniform(-bound, bound, (d_in, r)), np.zeros((r, d_out))


STARTS = [
    _lists,
    _loops,
    _kaiming,
    lambda d_in, d_out, r, rng: [a.astype(np.float32) for a in _uniform(d_in, d_out, r, rng)],
    lambda d_in, d_out, r, rng: [ml.Parameter(a) for a in _uniform(d_in, d_out, r, rng)],
    lambda d_in, d_out, r, rng: (
        d_in**-0.5 * rng.uniform(-1, 1, size=(d_in, r)),
        0.0 * rng.uniform(size=(r, d_out)),
    ),
]


def _beside(self, x, rng=None):
    return self.base(x) + self.s * ((x @ self.A) @ self.B)


def _delta(self):
    return self.s * (self.A.data @ self.B.data)


def layer(
    start=_uniform, forward=_beside, delta=_delta, freeze=True, B=ml.Parameter, A=ml.Parameter,
    scale=lambda alpha, r: alpha / r, **methods,
):  # fmt: skip
    """A class of layers, right unless a part is given."""

    def init(self, base, r, alpha, rng):
        self.base, self.s = base, scale(alpha, r)
        if freeze:
            base.requires_grad_(False)
        first, second = start(*base.weight.shape, r, rng)
        self.A = A(np.asarray(first, np.float32))
        self.B = B(np.asarray(second, np.float32))

    body = {"__init__": init, "__call__": forward, "delta": delta} | methods
    return type("Layer", (ml.Module,), {k: v for k, v in body.items() if v is not None})


def _formed_first(self, x, rng=None):
    W = self.base.weight + self.A @ self.B * self.s
    return x @ W + self.base.bias


def _s_before_and_after(self, x, rng=None):
    return self.base(x) + self.s * ((self.s * (x @ self.A)) @ self.B)


def _package(self, x, rng=None):
    return F.lora_linear(x, self.base.weight, self.base.bias, self.A, self.B, self.s)


def _s_on_x(self, x, rng=None):
    return self.s * x @ self.A @ self.B + F.linear(x, self.base.weight, self.base.bias)


def _recorded(self, x, rng=None):
    rows = x.reshape(-1, x.shape[-1])
    y = _lora_by_hand(rows, self.base.weight, self.base.bias, self.A, self.B, self.s)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _lora_by_hand(x, W, b, A, B, s):
    X, thin = x.data, x.data @ A.data
    return record(
        X @ W.data + s * thin @ B.data + b.data,
        (x, lambda g: g @ W.data.T + s * (g @ B.data.T) @ A.data.T),
        (A, lambda g: s * X.T @ g @ B.data.T),
        (B, lambda g: s * thin.T @ g),
    )


def a_plain_class(base, r, alpha, rng):
    return layer()(base, r, alpha, rng)


RIGHT_LAYERS = [
    layer(forward=_formed_first),
    layer(forward=_package),
    layer(forward=_s_on_x),
    layer(forward=_recorded),
    layer(delta=lambda self: (self.A.data @ self.B.data * self.s).tolist()),
    layer(delta=lambda self: np.einsum("ir,ro,->io", self.A.data, self.B.data, self.s)),
    layer(delta=lambda self: self.s * (self.A @ self.B)),
    a_plain_class,
]


def _forward(compute):
    """A forward pass from compute(base output, x A B, layer)."""

    def forward(self, x, rng=None):
        return compute(self.base(x), (x @ self.A) @ self.B, self)

    return forward


def _without_s(self):
    return self.A.data @ self.B.data


_s_twice = layer(
    forward=_forward(lambda y, detour, self: y + self.s * (self.s * detour)),
    delta=lambda self: self.s**2 * _without_s(self),
)
_B_unfound = layer(B=lambda array: ml.Tensor(array, requires_grad=True))


def _detached(self, x, rng=None):
    return self.base(x) + ml.Tensor(self.s * (x.data @ self.A.data @ self.B.data))


def layer_faults(*but):
    """Layers with one fault each, and the words of its reason (None: the words are shared)."""
    faults = {
        "zero A": (layer(start=_a(lambda A, d_in, r: 0 * A)), "both start at zero"),
        "trains base": (layer(freeze=False), "gives A, B, base.weight"),
        "B unfound": (_B_unfound, "trainable_parameters() gives A;"),
        "A fixed": (layer(A=lambda array: ml.Parameter(array, False)), "gives B;"),
        "normal A": (layer(start=_normal_start), "A is not as exercise 4.1 draws it"),
        "random B": (layer(start=_both_random), "away from its base"),
        "detached": (layer(forward=_detached), "no gradient reaches A"),
        "s missing": (
            layer(forward=_forward(lambda y, xAB, self: y + xAB)), "the factor s is missing"
        ),
        "alpha": (layer(scale=lambda alpha, r: alpha), "has alpha where"),
        "rsLoRA": (layer(scale=lambda alpha, r: alpha / math.sqrt(r)), "as rsLoRA"),
        "upside down": (layer(scale=lambda alpha, r: r / alpha), "has r / alpha"),
        "s twice": (_s_twice, "s comes in twice"),
        "detour alone": (layer(forward=_forward(lambda y, xAB, self: self.s * xAB)), None),
        "base alone": (layer(forward=lambda self, x, rng=None: self.base(x)), "the base alone"),
        "paper's shapes": (layer(start=_transposed), "A has the shape"),
        "no B": (layer(B=lambda array: array), "your layer has no Tensor B"),
        "an array": (layer(forward=lambda self, x, rng=None: _beside(self, x).data), "a ndarray"),
        "rows": (
            layer(forward=lambda self, x, rng=None: _beside(self, x).reshape(-1, self.B.shape[1])),
            "the output has the shape",
        ),
        "wrong argument": (lambda base, r, alpha: None, "raised TypeError"),
    }  # fmt: skip
    return [pair for name, pair in faults.items() if name not in but]


def _both_random(d_in, d_out, r, rng):
    return _uniform(d_in, d_out, r, rng)[0], rng.standard_normal((r, d_out))


def _transposed(d_in, d_out, r, rng):
    return [factor.T for factor in _uniform(d_in, d_out, r, rng)]


def _merge(self):
    if not getattr(self, "kept", None):
        self.kept = [self.base.weight.data]
        self.base.weight.data = self.kept[0] + _delta(self)


def _unmerge(self):
    if getattr(self, "kept", None):
        self.base.weight.data = self.kept.pop()


def _unless_merged(self, x, rng=None):
    return self.base(x) if getattr(self, "kept", None) else _beside(self, x)


def merging(merge=_merge, unmerge=_unmerge, forward=_unless_merged, **parts):
    return layer(forward=forward, merge=merge, unmerge=unmerge, **parts)


class _CopiesBack(layer()):
    """Keeps a copy, and puts a copy back."""

    merged = False

    def __call__(self, x, rng=None):
        return super().__call__(x) if not self.merged else self.base(x, rng)

    def merge(self):
        if self.merged:
            return
        self.W, self.merged = self.base.weight.data.copy(), True
        self.base.weight.data = np.add(self.W, self.delta())

    def unmerge(self):
        if self.merged:
            self.base.weight.data, self.merged = self.W.copy(), False


class _AnotherLinear(layer()):
    """Keeps W where it is and computes with a merged one beside it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.W = self.base.weight.data

    def __call__(self, x, rng=None):
        merged = self.base.weight.data is not self.W
        return self.base(x) if merged else super().__call__(x)

    def merge(self):
        self.base.weight.data = self.W + self.delta()

    def unmerge(self):
        self.base.weight.data = self.W


class _Detour(layer()):
    """While merged the detour counts zero times."""

    times, W = 1, None

    def __call__(self, x, rng=None):
        return self.base(x) + (self.times * self.s) * (x @ self.A @ self.B)

    def merge(self):
        if self.times:
            self.W = self.base.weight.data
            self.base.weight.data, self.times = self.W + self.delta(), 0

    def unmerge(self):
        if not self.times:
            self.base.weight.data, self.times = self.W, 1


class _Stack(layer(forward=_formed_first)):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stack = []

    def __call__(self, x, rng=None):
        return self.base(x) if self.stack else super().__call__(x)

    def merge(self):
        self.stack = self.stack or [self.base.weight.data]
        self.base.weight.data = self.stack[0] + self.delta()

    def unmerge(self):
        while self.stack:
            self.base.weight.data = self.stack.pop()


def _adds(self):
    self.kept = [_delta(self)]
    self.base.weight.data = self.base.weight.data + self.kept[0]


def _adds_in_place(self):
    if not getattr(self, "kept", None):
        self.kept = [self.base.weight.data.copy()]
        self.base.weight.data[...] += _delta(self)


def _subtracts(self):
    if getattr(self, "kept", None):
        self.kept = None
        self.base.weight.data = self.base.weight.data - _delta(self)


def _replaces(self):
    if not getattr(self, "kept", None):
        self.kept = [self.base.weight.data]
        self.base.weight.data = _delta(self)


def _merges_once_for_ever(self):
    self.old = getattr(self, "old", _delta(self))
    if not getattr(self, "kept", None):
        self.kept = [self.base.weight.data]
        self.base.weight.data = self.kept[0] + self.old


def _unmerges_always(self):
    self.base.weight.data = self.kept.pop()


def _keeps_flag(self):
    if getattr(self, "kept", None):
        self.base.weight.data = self.kept[0]


MERGING_RIGHT = [merging(), _CopiesBack, _AnotherLinear, _Detour, _Stack]
MERGING_WRONG = [
    (merging(merge=_adds), "merged twice, W is"),
    (merging(merge=_adds_in_place), "writes into the array of W"),
    (merging(unmerge=_subtracts), "unmerge() leaves"),
    (merging(merge=_replaces), "merged, W is"),
    (merging(merge=lambda self: None), ": merge() leaves W as it was"),
    (merging(forward=_beside), "with W merged the output changes"),
    (merging(merge=_merges_once_for_ever), None),
    (merging(unmerge=_unmerges_always), "raised IndexError"),
    (merging(unmerge=_keeps_flag), "unmerged, the output has changed"),
    (merging(unmerge=lambda self: None), None),
    (merging(start=_a(lambda A, d_in, r: 0 * A)), None),
    (merging(freeze=False), "gives A, B, base.weight"),
    (merging(start=_normal_start), "A is not as exercise 4.1 draws it"),
    (layer(), "your layer has no merge()"),
]  # fmt: skip


def _adapt(wanted=lambda path, names: path.split(".")[-1] in names, freeze=True, r_of=lambda r: r,
           alpha_of=lambda a, r: a, order=list, once=False, result=lambda model, paths: paths,
           each=lambda rng: rng):  # fmt: skip
    def adapt(model, names, layer, r, alpha, rng):
        if freeze:
            model.requires_grad_(False)
        linears = [(p, m) for p, m in model.named_modules() if isinstance(m, ml.Linear)]
        chosen = order([(path, m) for path, m in linears if wanted(path, names)])
        for path, linear in chosen[:1] if once else chosen:
            new = layer(linear, r_of(r), alpha_of(alpha, r), each(rng))
            model.set_submodule(path, new)
        return result(model, [path for path, _ in chosen])

    return adapt


def _in_the_order_of_the_names(model, names, layer, r, alpha, rng):
    model.requires_grad_(False)
    found = []
    for name in names:
        for path, module in list(model.named_modules()):
            if isinstance(module, ml.Linear) and path.split(".")[-1] == name:
                model.set_submodule(path, layer(module, r, alpha, rng))
                found.append(path)
    return found


def _whatever_has_a_weight(model, names, layer, r, alpha, rng):
    model.requires_grad_(False)
    found = []
    for path, module in list(model.named_modules()):
        if hasattr(module, "weight") and path.split(".")[-1] in names:
            model.set_submodule(path, layer(module, r, alpha, rng))
            found.append(path)
    return found


def _refuses_no_match(model, names, *arguments):
    found = _adapt()(model, names, *arguments)
    if not found:
        raise ValueError("nothing matches")
    return found


def _by_regex(model, names, layer, r, alpha, rng):
    import re

    done = []
    for p in model.parameters():
        p.requires_grad = False
    for path, module in list(model.named_modules()):
        if re.search(rf"(^|\.)({'|'.join(names)})$", path) and type(module).__name__ == "Linear":
            done.append(path)
            model.set_submodule(path, layer(module, r, alpha, rng))
    return tuple(done)


def _by_owner(model, names, layer, r, alpha, rng):
    """setattr on whatever module holds it."""
    model.requires_grad_(False)
    paths = []
    for prefix, owner in list(model.named_modules()):
        for name, child in owner.named_children():
            if name in names and isinstance(child, ml.Linear):
                setattr(owner, name, layer(child, r, alpha, rng))
                paths.append(f"{prefix}.{name}" if prefix else name)
    return paths


def _in_two_passes(model, names, layer, r, alpha, rng):
    modules = dict(model.named_modules())
    paths = [p for p in modules if p.rpartition(".")[-1] in names and type(modules[p]) is ml.Linear]
    news = [layer(modules[path], r, alpha, rng) for path in paths]
    for path, new in zip(paths, news, strict=True):
        model.set_submodule(path, new)
    model.requires_grad_(False)
    for new in news:
        new.A.requires_grad = new.B.requires_grad = True
    return paths


def _forgets_to_list(model, names, layer, r, alpha, rng):
    for path, module in model.named_modules():
        if isinstance(module, ml.Linear) and path.endswith(tuple(names)):
            model.set_submodule(path, layer(module, r, alpha, rng))
    return [path for path, _ in model.named_modules() if path.endswith(tuple(names))]


def _frozen_after(model, names, layer, r, alpha, rng):
    paths = _adapt()(model, names, layer, r, alpha, rng)
    model.requires_grad_(False)
    return paths


def _op(y=None, dx=None, dA=None, dB=None):
    """lora_op, right but for the parts given, each a function of NumPy arrays."""
    y = y or (lambda x, W, b, A, B, s: x @ W + s * x @ A @ B + b)
    dx = dx or (lambda G, x, W, A, B, s: G @ W.T + s * (G @ B.T) @ A.T)
    dA = dA or (lambda G, x, W, A, B, s: s * x.T @ (G @ B.T))
    dB = dB or (lambda G, x, W, A, B, s: s * (x @ A).T @ G)

    def op(x, W, b, A, B, s):
        arrays = (x.data, W.data, A.data, B.data, s)
        return record(
            y(x.data, W.data, b.data, A.data, B.data, s),
            *((p, lambda G, d=d: d(G, *arrays)) for p, d in ((x, dx), (A, dA), (B, dB))),
        )

    return op


RIGHT = {
    "start_factors": STARTS,
    "MyLora": RIGHT_LAYERS,
    "MergingLora": MERGING_RIGHT,
    "adapt": [
        _adapt(), _by_regex, _in_two_passes, _adapt(result=lambda model, paths: tuple(paths)),
        _adapt(result=lambda model, paths: sorted(paths, reverse=True)),
    ],
    "lora_op": [
        _lora_by_hand,
        F.lora_linear,
        lambda x, W, b, A, B, s: x @ W + s * (x @ A) @ B + b,
        lambda x, W, b, A, B, s: x @ (W + A @ B * s) + b,
        lambda *arguments: _op()(*arguments),
        _op(dA=lambda G, x, W, A, B, s: np.einsum("ni,no,ro->ir", x, G, B) * s),
        _op(dx=lambda G, x, W, A, B, s: G @ (W + s * A @ B).T),
    ],
    "Broken1": RIGHT_LAYERS,
    "Broken2": [
        *RIGHT_LAYERS,
        layer(forward=_s_before_and_after, scale=lambda a, r: math.sqrt(a / r), delta=None),
    ],
    "Broken3": RIGHT_LAYERS,
    "Broken4": RIGHT_LAYERS,
    "Broken5": MERGING_RIGHT,
}  # fmt: skip

WRONG = {
    "start_factors": [
        (_normal_start, "that is normal"),
        (_a(lambda A, d_in, r: A), "divide by the square root of d_in"),
        (_a(lambda A, d_in, r: A / d_in), "take its square root"),
        (_a(lambda A, d_in, r: A / math.sqrt(r)), "A reads d_in numbers"),
        (_a(lambda A, d_in, r: 0 * A), "neither factor would ever"),
        (_a(lambda A, d_in, r: (A + 1) / 2 / math.sqrt(d_in)), "on both sides of zero"),
        (lambda d_in, d_out, r, rng: (_uniform(d_in, d_out, r, rng)[0], np.ones((r, d_out))),
         "not one"),
        (_both_random, None),
        (_transposed, None),
        (lambda *a: _uniform(*a)[::-1], None),
        (lambda d_in, d_out, r, rng: _uniform(d_out, d_in, r, rng), None),
        (lambda d_in, d_out, r, rng: (rng.standard_normal((d_in, r)) / r, np.zeros((r, d_out))),
         None),
        (lambda *a: _uniform(*a)[0], "it returns ndarray; expected 2 values"),
    ],
    "MyLora": [
        *layer_faults("s missing"),
        (layer(delta=_without_s), "your delta() for"),
        (layer(delta=lambda self: _delta(self).T), None),
        (layer(delta=None), "your layer has no delta()"),
    ],
    "MergingLora": MERGING_WRONG,
    "adapt": [
        (_adapt(wanted=lambda path, names: path.endswith(tuple(names))), None),
        (_adapt(wanted=lambda path, names: any(name in path for name in names)), None),
        (_adapt(wanted=lambda path, names: path in names), None),
        (_adapt(wanted=lambda path, names: path.split(".")[0] in names), None),
        (_adapt(freeze=False), "trainable_parameters() gives"),
        (_frozen_after, "arrays that train is 0"),
        (_adapt(order=lambda chosen: chosen[::-1]), "has other draws"),
        (_adapt(each=lambda rng: np.random.default_rng(5)), None),
        (_adapt(once=True), None),
        (_by_owner, None),
        (_forgets_to_list, None),
        (_adapt(r_of=lambda r: r + 1), None),
        (_adapt(alpha_of=lambda alpha, r: alpha / r), "; expected s="),
        (_adapt(result=lambda model, paths: model), "it returns the model"),
        (_adapt(result=lambda model, paths: len(paths)), None),
        (_adapt(wanted=lambda path, names: True), None),
        (_in_the_order_of_the_names, None),
        (_whatever_has_a_weight, "expected Linears alone"),
        (_refuses_no_match, "your function raised ValueError: nothing matches"),
    ],
    "lora_op": [
        (_op(y=lambda x, W, b, A, B, s: x @ W + x @ A @ B + b), "the output lacks s"),
        (_op(y=lambda x, W, b, A, B, s: x @ W + s * x @ A @ B), "the output lacks b"),
        (_op(y=lambda x, W, b, A, B, s: s * x @ A @ B + b), "the output lacks x W"),
        (_op(y=lambda x, W, b, A, B, s: x @ W + b), "is x W + b alone"),
        (_op(dA=lambda G, x, W, A, B, s: x.T @ (G @ B.T)), "the gradient of A lacks s"),
        (_op(dB=lambda G, x, W, A, B, s: (x @ A).T @ G), "the gradient of B lacks s"),
        (_op(dx=lambda G, x, W, A, B, s: G @ W.T), "goes through W alone"),
        (_op(dx=lambda G, x, W, A, B, s: s * (G @ B.T) @ A.T), "it passes W too"),
        (_op(dx=lambda G, x, W, A, B, s: G @ (W + A @ B).T), "the gradient of x lacks s"),
        (_op(dA=lambda G, x, W, A, B, s: (x.T @ (G @ B.T)).T), "AssertionError"),
        (_op(dA=lambda G, x, W, A, B, s: s * s * x.T @ (G @ B.T)), None),
        (_op(dB=lambda G, x, W, A, B, s: -s * (x @ A).T @ G), None),
        (_op(dB=lambda G, x, W, A, B, s: s * (x @ A).T @ G / len(x)), None),
        (lambda *tensors: _lora_by_hand(*tensors).detach(),
         "y has no way back"),
        (lambda *tensors: _lora_by_hand(*tensors).data,
         "it returns a ndarray"),
        (lambda x, W, b, A, B, s: x.detach() @ W + s * (x.detach() @ A) @ B + b,
         "no gradient reaches x"),
    ],
    "Broken1": layer_faults(),
    "Broken2": layer_faults(),
    "Broken3": layer_faults(),
    "Broken4": layer_faults(),
    "Broken5": MERGING_WRONG,
}  # fmt: skip
