"""The checkers of lesson 04, LoRA from scratch.

A layer is judged by what it does: how it starts, what trains in it, what it computes once B is no
longer zero, which gradients come out, what merging leaves behind. Five of the exercises are broken
layers, and a repaired one must pass what a layer written from scratch must pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilora.learn.exercises import NotAttempted, Yours, as_array, exercise, require, unpack
from minilora.learn.guards import is_stub
from minilora.module import Module, Parameter
from minilora.nn import Embedding, Linear, Rng
from minilora.tensor import Tensor

_CASES = ((12, 9, 2, 3.0), (7, 11, 5, 1.25), (6, 6, 3, 12.0))  # d_in, d_out, r, alpha


@exercise(
    hints=(
        "Which of the two may be zero at first, and which has to be drawn? How large an entry of "
        "A may be depends on how many numbers A reads.",
        "`rng.uniform(-1, 1, (d_in, r))`, divided by the square root of `d_in`, is A. B is "
        "`np.zeros(...)` of its shape.",
    )
)
def start_factors(yours: Yours) -> str:
    for d_in, d_out, r in ((9, 4, 2), (5, 7, 3)):
        uniform = np.random.default_rng(7).uniform(-1, 1, (d_in, r))
        expected = uniform / np.sqrt(d_in)
        case = f"for d_in={d_in}, d_out={d_out}, r={r}"
        A, B = unpack(yours(d_in, d_out, r, np.random.default_rng(7)), "A, B")
        mistakes = {
            "divide by the square root of d_in": uniform,
            "that is divided by d_in; take its square root": uniform / d_in,
            "that is divided by the square root of r; A reads d_in numbers": uniform / np.sqrt(r),
            "were A zero too, neither factor would ever have a gradient": np.zeros((d_in, r)),
            "entries lie on both sides of zero: draw from -1 to 1": (uniform + 1) / 2
            / np.sqrt(d_in),
            "that is normal; draw it with rng.uniform": (
                np.random.default_rng(7).standard_normal((d_in, r)) / np.sqrt(d_in)
            ),
        }  # fmt: skip
        yours.compare(f"A {case}", A, expected, mistakes)
        ones = {"B must be zero, not one: the model has to start as its base": np.ones((r, d_out))}
        yours.compare(f"B {case}", B, np.zeros((r, d_out)), ones)
    return "The same generator gives the same A as the package draws."


class _Beside(Module):
    """A sound layer, for what takes a kind of layer: y = x W + b + s (x A) B."""

    def __init__(self, base: Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = Parameter(A.astype(np.float32))
        self.B = Parameter(np.zeros((r, d_out), np.float32))

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.base(x) + self.s * ((x @ self.A) @ self.B)


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def _linear(d_in: int, d_out: int) -> Linear:
    base = Linear(d_in, d_out, rng=np.random.default_rng(d_in))
    assert base.bias is not None
    base.bias.data = _normal(d_out)
    return base


def _new_layer(yours: Yours, base: Linear, r: int, alpha: float) -> Any:
    """A learner's layer around base, which has an A and a B. Raises NotAttempted for a stub."""
    d_in, d_out = base.weight.shape
    layer = yours(base, r, alpha, np.random.default_rng(r), changes=(0,))  # it freezes the base
    begin = getattr(type(layer).__init__, "__code__", None)
    if begin is not None and is_stub(begin):
        raise NotAttempted
    for name, shape in (("A", (d_in, r)), ("B", (r, d_out))):
        factor = getattr(layer, name, None)
        how = f"your layer has no Tensor {name}; expected one, as in self.{name} = ml.Parameter"
        require(isinstance(factor, Tensor), how)
        assert isinstance(factor, Tensor)
        sizes = f"for d_in={d_in}, d_out={d_out}, r={r}"
        found = f"{name} has the shape {factor.shape} {sizes}; expected {shape}"
        require(factor.shape == shape, found)
    return layer


def _output(yours: Yours, layer: Any, x: Tensor) -> Tensor:
    y = yours.use(layer, x, None, may_be_none=False)
    require(isinstance(y, Tensor), f"your layer returns a {type(y).__name__}; expected a Tensor")
    return y


def _starts_as_its_base(yours: Yours) -> None:
    for d_in, d_out, r, alpha in _CASES:
        base, x = _linear(d_in, d_out), Tensor(_normal(2, 4, d_in))
        plain = base(x).data
        layer = _new_layer(yours, base, r, alpha)
        y = _output(yours, layer, x)
        require(np.any(layer.A.data), "A and B both start at zero; expected a random A")
        drawn = np.random.default_rng(r).uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        how = "A is not as exercise 4.1 draws it; expected the draws of rng.uniform(-1, 1, shape)"
        require(np.allclose(layer.A.data, drawn, atol=1e-6), how)
        require(
            y.shape == plain.shape, f"the output has the shape {y.shape}; expected {plain.shape}"
        )
        off = float(np.abs(y.data - plain).max())
        require(
            off < 1e-6, f"the fresh layer is {off:.2g} away from its base; expected no difference"
        )


def _trains_its_factors_alone(yours: Yours) -> None:
    for d_in, d_out, r, alpha in _CASES:
        layer = _new_layer(yours, _linear(d_in, d_out), r, alpha)
        _output(yours, layer, Tensor(_normal(2, 4, d_in)))
        trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
        names = ", ".join(trained) or "nothing"
        alike = {id(p) for p in trained.values()} == {id(layer.A), id(layer.B)}
        require(alike, f"trainable_parameters() gives {names}; expected A and B alone")


def _has_the_gradients(yours: Yours) -> None:
    for d_in, d_out, r, alpha in _CASES:
        base, s = _linear(d_in, d_out), alpha / r
        layer = _new_layer(yours, base, r, alpha)
        layer.B.data = _normal(r, d_out, seed=1)
        x, G = Tensor(_normal(5, d_in), requires_grad=True), _normal(5, d_out)
        _output(yours, layer, x).backward(G)
        A, B, W = layer.A, layer.B, base.weight
        expected = {
            "A": (A.grad, s * x.data.T @ (G @ B.data.T)),
            "B": (B.grad, s * (x.data @ A.data).T @ G),
            "x": (x.grad, G @ (W.data + s * A.data @ B.data).T),
        }
        for name, (found, wanted) in expected.items():
            require(found is not None, f"no gradient reaches {name}; expected one")
            assert found is not None
            close = np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
            require(close, f"the gradient of {name} is not that of y = x W + b + s (x A) B")


def _computes_lora(yours: Yours, with_delta: bool) -> None:
    """The output once B is not zero, and delta() if it is asked for."""
    for d_in, d_out, r, alpha in _CASES:
        base, x = _linear(d_in, d_out), Tensor(_normal(2, 4, d_in))
        layer = _new_layer(yours, base, r, alpha)
        B = layer.B.data = _normal(r, d_out, seed=1)
        A = layer.A.data = _normal(d_in, r, seed=2)
        plain, detour = base(x).data, x.data @ A @ B
        scales = {
            "the factor s is missing": 1.0,
            "s comes in twice": (alpha / r) ** 2,
            "that has alpha where s = alpha / r belongs": alpha,
            "that has alpha over the square root of r, as rsLoRA has": alpha / np.sqrt(r),
            "that has r / alpha; s is alpha / r": r / alpha,
            "the sign of the detour is wrong": -alpha / r,
            "that is the base alone, without the detour": 0.0,
        }
        s, case = alpha / r, f"for d_in={d_in}, d_out={d_out}, r={r}, alpha={alpha:g}"
        known = {why: plain + scale * detour for why, scale in scales.items()}
        known["x W + b is missing: that is the detour alone"] = s * detour
        known["the bias b is missing"] = plain + s * detour - base.bias.data  # type: ignore[union-attr]
        y = _output(yours, layer, x)
        _compare_product(yours, f"output {case}", y, plain + s * detour, known)
        if with_delta:
            has_one = hasattr(layer, "delta")
            require(has_one, "your layer has no delta(); expected the method that gives s A B")
            delta = yours.use(layer.delta, may_be_none=False)
            known = {why: scale * A @ B for why, scale in scales.items()}
            _compare_product(yours, f"delta() {case}", delta, s * A @ B, known)


def _compare_product(
    yours: Yours, what: str, got: Any, expected: np.ndarray, known: dict[str, np.ndarray]
) -> None:
    """Compare, looking for known mistakes only where something is wrong: a slip in the output need
    not be one in delta()."""
    found = as_array(got)
    shapes_fit = found is not None and found.shape == expected.shape
    right = shapes_fit and np.allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-4)
    yours.compare(what, got, expected, {} if right else known, tolerance=1e-4)


def _sound(yours: Yours, with_delta: bool = False) -> None:
    _starts_as_its_base(yours)
    _trains_its_factors_alone(yours)
    _computes_lora(yours, with_delta)
    if yours.diagnosis(to_the_end=True) is None:  # else it has a reason that gradients would hide
        _has_the_gradients(yours)


def _far(a: Tensor, b: Tensor) -> float:
    return float(np.abs(a.data - b.data).max() / np.abs(b.data).max())


def _merges(yours: Yours) -> None:
    """Merged gives what beside gives, twice or again too; unmerged, W is back bit for bit."""
    for d_in, d_out, r, alpha in _CASES:
        base, x = _linear(d_in, d_out), Tensor(_normal(2, 4, d_in))
        given = base.weight.data
        W = given.copy()
        layer = _new_layer(yours, base, r, alpha)
        for name in ("merge", "unmerge"):
            require(hasattr(layer, name), f"your layer has no {name}(); expected that method")
        for round_, seed in enumerate((1, 2)):  # the second time with another B: it trained on
            layer.B.data = _normal(r, d_out, seed=seed)
            beside = _output(yours, layer, x)
            for times in ("", "twice"):
                yours.use(layer.merge)
                merged = base.weight.data
                wanted = W + alpha / r * layer.A.data @ layer.B.data
                if np.array_equal(merged, W):
                    require(not round_, "a later merge leaves W as it was; expected W + s A B")
                    require(times, "merge() leaves W as it was; expected W + s A B")
                off = np.abs(merged - wanted).max() / np.abs(wanted).max()
                again = "merged twice, W" if times else "merged, W"
                require(off < 1e-4, f"{again} is off by {off:.1%}; expected W + s A B")
                off = _far(_output(yours, layer, x), beside)
                require(
                    off < 1e-4,
                    f"with W merged the output changes by {off:.1%}; expected the same as beside",
                )
            in_place = (
                "merge() writes into the array of W, which others may use; expected a new one"
            )
            require(np.array_equal(given, W), in_place)
            for times in ("", "twice"):
                yours.use(layer.unmerge)
                wrong = int((base.weight.data != W).sum())
                again = " for the second time" if times else ""
                require(
                    wrong == 0,
                    f"unmerge(){again} leaves {wrong} of {W.size} entries of W changed; expected "
                    "every bit as before",
                )
            off = _far(_output(yours, layer, x), beside)
            require(off < 1e-4, "unmerged, the output has changed; expected A and B beside W again")


@exercise(
    hints=(
        "In the first method you keep what the second one needs: the frozen Linear, s, A and B. "
        "What has to be a Parameter so that an optimizer finds it?",
        "`self.base = base.requires_grad_(False)` freezes W and b. The output is `self.base(x)` "
        "plus `self.s` times the detour `(x @ self.A) @ self.B`; delta() is the same without x.",
    )
)
def MyLora(yours: Yours) -> str:
    _sound(yours, with_delta=True)
    return "A few lines; all else in LoRA is choosing where they go."


@exercise(
    hints=(
        "What must be kept so that W can come back bit for bit? And how does the layer know, in "
        "`__call__` and when merge() is called again, that it is merged?",
        "`self.kept = self.base.weight.data`, then give the base a new array, `self.kept + "
        "self.delta()`. While `self.kept` is not None, W holds the adapter already.",
    )
)
def MergingLora(yours: Yours) -> str:
    _merges(yours)
    _sound(yours)
    return "Merged it costs what the base costs, and every bit of W can come back."


class _Block(Module):
    def __init__(self, rng: Rng) -> None:
        self.proj = Linear(4, 6, rng=rng)
        self.out_proj = Linear(6, 4, rng=rng)
        self.proj_in = Linear(4, 4, rng=rng)

    def __call__(self, x: Tensor) -> Tensor:
        return self.out_proj(self.proj(self.proj_in(x), None), None)


class _Net(Module):
    """A model in which names resemble each other (proj, out_proj, proj_in); code is no Linear."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.code = Embedding(5, 4, rng=rng)
        self.proj = [_Block(rng), _Block(rng)]
        self.head = Linear(4, 2, bias=False, rng=rng)

    def __call__(self, x: Tensor) -> Tensor:
        for block in self.proj:
            x = block(x)
        return self.head(x)


def _kinds(model: Module) -> dict[str, Module]:
    """Every Linear and every adapted one by the path that it has, or had, in the plain model."""
    modules = dict(model.named_modules())
    adapted = {path: m for path, m in modules.items() if isinstance(m, _Beside)}
    plain = {path: m for path, m in modules.items() if isinstance(m, Linear)}
    return adapted | {path: m for path, m in plain.items() if not path.endswith(".base")}


@exercise(
    hints=(
        "A path such as layers.0.attn.q_proj ends in a name. Which modules are Linear, and end in "
        "one of the names? Freeze the model first.",
        "`for path, module in list(model.named_modules())`, the name is "
        "`path.rpartition('.')[2]`, and `model.set_submodule(path, new)` replaces a module. The "
        "list() is there because the model changes on the way.",
    )
)
def adapt(yours: Yours) -> str:
    x = Tensor(_normal(3, 4))
    for names, r, alpha in (
        (["proj"], 2, 6.0),
        (["out_proj", "head"], 1, 0.5),
        (["proj_in"], 3, 3.0),
        (["head", "proj"], 2, 3.0),
        (["code", "proj_in"], 1, 2.0),
        (["query"], 2, 4.0),
    ):
        model = _Net()
        plain, before = model(x).data, _kinds(model)
        wanted = [path for path in before if path.rpartition(".")[2] in names]
        case = f"names={names}"
        returned = yours(
            model, list(names), _Beside, r, alpha, np.random.default_rng(5), changes=(0,)
        )
        after = _kinds(model)
        adapted = [path for path, m in after.items() if isinstance(m, _Beside)]
        for path in before:
            done, wish = path in adapted, path in wanted
            require(not wish or done, f"{path} is as it was for {case}; expected it to be adapted")
            require(wish or not done, f"{path} is adapted for {case}; expected it to be left alone")
        others = [path for path in adapted if path not in before]
        require(not others, f"it adapts {', '.join(others)} for {case}; expected Linears alone")
        rng = np.random.default_rng(5)
        for path in wanted:
            layer, linear = after[path], before[path]
            assert isinstance(layer, _Beside)
            require(
                layer.base is linear, f"the layer at {path} has another base; expected the Linear"
            )
            sizes = f"{path} has r={layer.A.shape[1]}, s={layer.s:g} for r={r}, alpha={alpha:g}"
            require(layer.A.shape[1] == r, f"{sizes}; expected r={r}")
            require(np.isclose(layer.s, alpha / r), f"{sizes}; expected s={alpha / r:g}")
            drawn = _Beside(_linear(*linear.weight.shape), r, alpha, rng).A  # type: ignore[attr-defined]
            how = (
                f"A of {path} has other draws; expected one generator for all, in the model's order"
            )
            require(np.array_equal(layer.A.data, drawn.data), how)
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        rest = [name for name in trained if not name.endswith((".A", ".B"))]
        found = f"trainable_parameters() gives {', '.join(rest[:2])} for {case}"
        require(not rest, f"{found}; expected A and B alone")
        require(
            len(trained) == 2 * len(wanted),
            f"the number of arrays that train is {len(trained)} for {case}; expected "
            f"{2 * len(wanted)}",
        )
        require(np.array_equal(model(x).data, plain), "the output has changed; expected the base's")
        same = isinstance(returned, list | tuple) and sorted(returned) == sorted(wanted)
        found = f"{returned!r:.60}" if not isinstance(returned, Module) else "the model"
        require(same, f"it returns {found} for {case}; expected the list of adapted paths")
    return "Names that resemble each other were among those tried."


@exercise(
    hints=(
        "W + s A B, formed once, gives the output and the gradient of x. The gradients of A and B "
        "are those of the formula at the top; neither needs a matrix of the size of W.",
        "`record(y, (x, grad_x), (A, grad_A), (B, grad_B))`: each grad is a function of G alone, "
        "such as `lambda G: s * (x.data @ A.data).T @ G` for B. W and b are frozen: no entry.",
    )
)
def lora_op(yours: Yours) -> str:
    for n, d_in, d_out, r, s in ((5, 4, 3, 2, 2.5), (3, 6, 7, 4, 0.75), (8, 2, 5, 1, 2.0)):
        W, b = Tensor(_normal(d_in, d_out)), Tensor(_normal(d_out))
        x, A, B = (
            Tensor(_normal(*shape, seed=3), requires_grad=True)
            for shape in ((n, d_in), (d_in, r), (r, d_out))
        )
        G, plain, detour = _normal(n, d_out, seed=4), x.data @ W.data, x.data @ A.data @ B.data
        sizes = f"for n={n}, d_in={d_in}, d_out={d_out}, r={r}, s={s:g}"
        got = yours(x, W, b, A, B, s)
        require(isinstance(got, Tensor), f"it returns a {type(got).__name__}; expected a Tensor")
        wrong_y = {
            "the output lacks s": plain + detour + b.data,
            "the output lacks b": plain + s * detour,
            "the output lacks x W": s * detour + b.data,
            "the output is x W + b alone": plain + b.data,
        }
        yours.compare(f"y {sizes}", got, plain + s * detour + b.data, wrong_y, tolerance=1e-4)
        require(got.node is not None, "y has no way back; expected what record(...) returns")
        yours.use(got.backward, G)
        down_W, down_AB = G @ W.data.T, (G @ B.data.T) @ A.data.T
        grad_A, grad_B = x.data.T @ (G @ B.data.T), (x.data @ A.data).T @ G
        wrong_dx = {
            "the gradient of x goes through W alone; it comes back through A and B too": down_W,
            "the gradient of x goes through A and B alone; it passes W too": s * down_AB,
            "the gradient of x lacks s": down_W + down_AB,
        }
        for name, leaf, expected, mistakes in (
            ("A", A, s * grad_A, {"the gradient of A lacks s": grad_A}),
            ("B", B, s * grad_B, {"the gradient of B lacks s": grad_B}),
            ("x", x, down_W + s * down_AB, wrong_dx),
        ):
            require(leaf.grad is not None, f"no gradient reaches {name}; expected one")
            what = f"gradient of {name} {sizes}"
            yours.compare(what, leaf.grad, expected, mistakes, tolerance=1e-4)
    return "The package's layer is this operation (functional.py), formed in this order."


@exercise(
    hints=(
        "Write down dA and dB of the formula for this start. Which factor stands in which?",
        "One of the two must be random. LoRA takes A: draw it as in `start_factors`, in float32.",
    )
)
def Broken1(yours: Yours) -> str:
    _sound(yours)
    return "The fault: both factors zero, a point that no gradient leads away from."


@exercise(
    hints=(
        "Follow one number from x to y. How often is it multiplied by s?",
        "s belongs once into the detour; alpha / r has been applied when A's output was formed.",
    )
)
def Broken2(yours: Yours) -> str:
    _sound(yours)
    return "The fault: s twice. Training hides it; another program that loads A and B does not."


@exercise(
    hints=(
        "Ask the layer for `trainable_parameters()`. What should be there, and what is?",
        "Nobody has frozen the Linear: `base.requires_grad_(False)`.",
    )
)
def Broken3(yours: Yours) -> str:
    _sound(yours)
    return (
        "The fault: the base trained along, so that taking the adapter off did not bring it back."
    )


@exercise(
    hints=(
        "Ask the layer for `trainable_parameters()`. How many should there be?",
        "A module finds its parameters by their type: an `ml.Tensor` is none.",
    )
)
def Broken4(yours: Yours) -> str:
    _sound(yours)
    return "The fault: B was never in the optimizer, stayed zero, and with it the gradient of A."


@exercise(
    hints=(
        "Run merge() twice; run merge() and unmerge() and compare W bit by bit. Who else may hold "
        "the array that `+=` writes into?",
        "Keep the old array, `self.kept = self.base.weight.data`, and put a new one in its place; "
        "unmerge() puts the old one back. Merged already: do nothing.",
    )
)
def Broken5(yours: Yours) -> str:
    _merges(yours)
    _sound(yours)
    return (
        "The fault: W was written over, once for every call, and subtracting does not restore it."
    )
