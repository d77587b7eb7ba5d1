# %% [markdown]
# # 04 · LoRA from scratch
#
# **The question.** How is LoRA built, and what has to be right for it to work?
#
# **You will be able to**
#
# - write a LoRA layer from an empty class, put it into a language model, and train it;
# - say which gradient goes where, which factor moves first, and how far a backward pass goes;
# - show that your layer is the package's, bit for bit, after twenty steps of training;
# - merge an adapter into W, and get every bit of W back;
# - repair five broken layers, each of which runs without an error.
#
# **Time:** 15 seconds to run, 30 minutes to read, 110 with the exercises. **Before this:** lessons
# 01 (what a vjp and a frozen parent are) and 02 (where a transformer has its matrices).
# **Words:** [glossary](GLOSSARY.md).

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora.learn import check
from minilora.nn import Rng
from minilora.tensor import record

# %% [markdown]
# ## A picture
#
# A model that was trained on much text, a *base*, is to learn something new. LoRA, *low-rank
# adaptation*, does not touch its matrices. Beside a matrix W (d_in, d_out) it learns the *change*
# ΔW, and only a change that is the product of two thin matrices, A (d_in, r) and B (r, d_out). r is
# the *rank*; it is small, say 4 where d_in and d_out are 128. So r (d_in + d_out) numbers train
# instead of d_in · d_out, here 1,024 instead of 16,384. A and B together are an *adapter*.

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    grey, orange, green = "#D9D9D9", ml.plots.COLORS["lora"], "#00724F"
    boxes = {
        "W": (3.0, 2.05, 1.6, 1.2, grey, "W frozen"),
        "A": (2.7, 0.15, 0.35, 1.2, orange, "A"),
        "B": (4.6, 0.57, 1.6, 0.35, orange, "B"),
    }
    for x, y, width, height, color, name in boxes.values():
        ax.add_patch(plt.Rectangle((x, y), width, height, color=color, lw=0))
        ax.text(x + width / 2, y + height / 2, name, ha="center", va="center", weight="bold")
    ways = [
        ((0.9, 1.7), (3.0, 2.65)), ((4.6, 2.65), (7.3, 1.85)), ((0.9, 1.6), (2.7, 0.75)),
        ((3.05, 0.75), (4.6, 0.75)), ((6.2, 0.75), (7.3, 1.5)), ((7.75, 1.68), (8.6, 1.68)),
    ]  # fmt: skip
    for start, end in ways:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.2", "lw": 1.4})
    for text, place in {"x": (0.6, 1.65), "+": (7.5, 1.68), "y": (8.9, 1.68)}.items():
        ax.text(*place, text, ha="center", va="center", fontsize=15)
    notes = {
        "(n, d_in)": (0.6, 1.2), "(n, d_out)": (8.9, 1.2), "d_in × d_out": (3.8, 3.4),
        "d_in × r": (2.87, -0.05), "r × d_out, zero at first": (5.4, 0.36),
        "x A  (n, r)": (3.82, 0.95), "times s": (7.15, 0.9),
    }  # fmt: skip
    for text, place in notes.items():
        ax.text(*place, text, ha="center", va="center", fontsize=9)
    back = {"dx:  G Wᵀ + s (G Bᵀ) Aᵀ": (1.1, 3.1), "dA:  s xᵀ (G Bᵀ)": (2.87, -0.45),
            "dB:  s (x A)ᵀ G": (5.4, -0.04), "G": (8.9, 2.2)}  # fmt: skip
    for text, place in back.items():
        ax.text(*place, text, ha="center", va="center", color=green, fontsize=10)
    ax.set(xlim=(-0.2, 9.6), ylim=(-0.8, 3.6))
    ax.axis("off")
    ml.plots.show(
        figure,
        "x goes through the frozen W and, beside it, through the narrow A and the "
        "flat B; both are added to y. Below A and B and beside x stand the "
        "gradients that come back.",
    )

# %% [markdown]
# In black, the way forward: n rows x go through the frozen W and through the narrow detour over A
# and B. In green, what comes back in training: G, dA, dB and dx are the gradients of the loss by y,
# A, B and x. W has a way through it, and no gradient of its own.
#
# ## The formula
#
# $$y = x W + b + s\,(x A)\,B, \qquad s = \alpha / r, \qquad \Delta W = s A B$$
#
# $$dA = s\, x^T (G B^T), \qquad dB = s\, (x A)^T G, \qquad dx = G W^T + s\,(G B^T) A^T$$
#
# (Hu et al. 2021; b is the layer's bias.) The second line is the rule for a matrix product,
# exercise 1.4, used three times. s is the *scale*, which says how much ΔW counts. It is set by α,
# alpha, a number that one chooses and does not train: with r = 4 and α = 16, s is 4; at α = r it
# is 1.
#
# ## How it starts
#
# B starts at zero, so ΔW = 0 and the model starts as exactly its base. Then A must not be zero.
# Look at the second line: dA has the factor B in it, and dB has the factor A. Were both zero, both
# gradients would be zero, now and for ever.
#
# ### Exercise 4.1: where A and B start
#
# *Difficulty 1 of 5, 4 minutes.* Draw A with one call of `rng.uniform`, evenly between -1/√d_in and
# 1/√d_in, and let B be zero. (`Rng` is short for NumPy's `np.random.Generator`.)


# %%
def start_factors(
    d_in: int, d_out: int, r: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A (d_in, r) and B (r, d_out) before the first step."""
    # SOLUTION
    A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
    return A, np.zeros((r, d_out))
    # END SOLUTION


# %%
check.start_factors(start_factors)

# %% [markdown]
# ## The layer
#
# ### Exercise 4.2: LoRA from an empty class
#
# *Difficulty 2 of 5, 15 minutes.* An `ml.Linear` is a layer that computes x W + b. Yours holds one,
# called base, which is frozen, and s, A and B. All layers derive from `ml.Module`, which finds
# every `ml.Parameter`, a Tensor that can train, among the attributes. Draw A as in 4.1. base has
# the Parameters `weight` (d_in, d_out) and `bias`; `.data` is a Parameter's array, and
# `base.requires_grad_(False)` freezes a module with all its Parameters. The models of this package
# compute in float32 and refuse to mix: convert with `.astype(np.float32)`. They call every layer
# with a second argument, `rng`, for random choices in training; leave it unused.


# %%
class MyLora(ml.Module):
    """y = x W + b + s (x A) B, with W and b frozen."""

    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        # SOLUTION
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))
        # END SOLUTION

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        """x (..., d_in) -> (..., d_out)"""
        # SOLUTION
        return self.base(x) + self.s * ((x @ self.A) @ self.B)
        # END SOLUTION

    def delta(self) -> np.ndarray:
        """s A B (d_in, d_out)"""
        # SOLUTION
        return self.s * (self.A.data @ self.B.data)
        # END SOLUTION


# %%
check.MyLora(MyLora)

# %% [markdown]
# ### What the detour sees
#
# A reads the input: x A is r numbers, one for each column of A. If x is orthogonal to every column,
# all r are zero, and the adapter does nothing for this x, however large B is. Here is the package's
# layer, with random numbers for B in place of training, in a model that is one matrix
# (`ml.ModuleList`, a list of layers). `ml.add_adapter` freezes the model and adapts the Linears
# that `target_modules` names, here the one at place "0"; afterwards A and B stand in the layer's
# `adapters["default"]`.


# %%
def one_layer(d_in=12, d_out=8, r=3, seed=0):
    """A model of one Linear with LoRA of the package, its B not zero any more."""
    rng = np.random.default_rng(seed)
    model = ml.ModuleList([ml.Linear(d_in, d_out, rng=rng)])
    config = ml.LoraConfig(r=r, lora_alpha=2 * r, target_modules=["0"])
    ml.add_adapter(model, config, rng=rng)
    factors = model[0].adapters["default"]
    factors.B.data = rng.standard_normal((r, d_out)).astype(np.float32)
    return model[0], factors


layer, factors = one_layer()
x = np.random.default_rng(1).standard_normal((1, 12)).astype(np.float32)
Q = np.linalg.qr(factors.A.data)[0]  # orthonormal columns that span A's
unseen = x - (x @ Q) @ Q.T  # what is left of x without A's directions
for name, row in (("any x", x), ("x orthogonal to A", unseen)):
    change = layer(ml.Tensor(row)).data - layer.base(ml.Tensor(row)).data
    length = np.linalg.norm(row)
    off = np.abs(change).max()
    print(f"{name:<18} |x| = {length:.2f}, output changed by {off:.6f}")

# %% [markdown]
# So an adapter of rank r can react to r directions of its input; to the other d_in - r it is blind.
#
# ### What comes back
#
# The gradients of the formula against those of the engine, and their shapes. Only what has the side
# n grows with the batch, and nothing of LoRA's own has the shape of W.

# %%
layer, factors = one_layer()
rng = np.random.default_rng(2)
x = ml.Tensor(rng.standard_normal((5, 12)).astype(np.float32), requires_grad=True)
G = rng.standard_normal((5, 8)).astype(np.float32)
layer(x).backward(G)

A, B, W, s = factors.A.data, factors.B.data, layer.base.weight.data, factors.s
formula = {
    "dA": (s * x.data.T @ (G @ B.T), factors.A.grad),
    "dB": (s * (x.data @ A).T @ G, factors.B.grad),
    "dx": (G @ W.T + s * (G @ B.T) @ A.T, x.grad),
}
for name, (ours, engine) in formula.items():
    print(f"{name} {ours.shape!s:<8} equal: {np.allclose(ours, engine, atol=1e-5)}")
print("x A", (x.data @ A).shape, " G Bᵀ", (G @ B.T).shape, " W", W.shape)
print("gradient of W:", layer.base.weight.grad)

# %% [markdown]
# ### Frozen is not closed
#
# "Gradients flow only through the adapter", one reads. Two adapted layers, one behind the other,
# each B still zero: does the first one get a gradient?

# %%
rng = np.random.default_rng(3)
two = ml.ModuleList([ml.Linear(6, 6, rng=rng) for _ in range(2)])
ml.add_adapter(two, ml.LoraConfig(r=2, target_modules=["0", "1"]), rng=rng)
y = two[1](two[0](ml.Tensor(rng.standard_normal((4, 6)).astype(np.float32))))
(y * y).sum().backward()
for i in (0, 1):
    one = two[i]
    g = one.adapters["default"].B.grad
    print(f"layer {i}: B's gradient {np.linalg.norm(g):.2f} long, ", end="")
    print(f"W's {one.base.weight.grad}")

# %% [markdown]
# Both do. On the way to the first the gradient cannot have passed the second adapter, whose B is
# zero: it came through the frozen W, as G Wᵀ. Frozen means: no gradient *of its own*.
#
# ### Predict, change, run: which factor moves
#
# Adapters on all matrices of the blocks of `docs-tiny`, B = 0, and a few steps of AdamW (an
# *optimizer*: what turns gradients into changes, lesson 03), each on 4 pieces of text of 32
# characters, `code.batches(4, 32)`. How many of A's entries, in per cent, are no longer what they
# were after one step? After two?

# %%
STEPS = 1  # change me: 2, 5
GUESS = ...  # per cent of A's entries that moved

model, code = ml.load_model("docs-tiny"), ml.load_corpus("code")
config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
ml.add_adapter(model, config, rng=np.random.default_rng(0))
before = model.state_dict()
ml.train(model, code.batches(4, 32), ml.TrainConfig(steps=STEPS, lr=1e-2), quiet=True)

moved = {}
for factor in "AB":
    named = model.named_parameters()
    ours = {k: p.data for k, p in named if k.endswith(f".{factor}")}
    same = np.concatenate([(before[k] == array).ravel() for k, array in ours.items()])
    moved[factor] = 100 * (1 - same.mean())
    print(f"entries of {factor} that moved: {moved[factor]:.0f} %")
check.predict(GUESS, moved["A"], unit="%")

# %% [markdown]
# **What should be seen.** After one step B has moved and A has not, for its gradient was exactly
# zero. From the second step on both move. (To train on your own text, take
# `ml.load_text("file.txt")` in place of `ml.load_corpus("code")`, here and below.)
#
# ### Dropout
#
# In PEFT, Hugging Face's library for LoRA, `lora_dropout = 0.1` sets a tenth of the entries of x to
# zero *on their way into A*, drawn anew for every position, and divides the others by 0.9. The
# frozen path x W sees all of x, and A and B themselves lose nothing. So the adapter learns not to
# rely on any single entry. In use, nothing is dropped.

# %%
layer, factors = one_layer()
factors.dropout = 0.1
x = ml.Tensor(np.ones((2000, 12), np.float32))
in_use = layer(x, None).data - layer.base(x).data
in_training = layer(x, np.random.default_rng(0)).data - layer.base(x).data
rows_in_use = {tuple(row) for row in in_use.round(5)}
rows = {tuple(row) for row in in_training.round(5)}
print(f"2,000 equal inputs: {len(rows_in_use)} distinct row in use,")
print(f"{len(rows)} distinct rows in training")
off = np.abs(in_training.mean(axis=0) - in_use[0]).max() / np.abs(in_use[0]).max()
print(f"their mean is within {off:.1%} of the row in use")

# %% [markdown]
# ## Merging
#
# For use, W + s A B takes the place of W, and the detour costs nothing more. Two traps: a merge
# that is done twice adds ΔW twice, and subtracting ΔW does not give W back:

# %%
rng = np.random.default_rng(4)
W, delta = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
back = (W + delta) - delta
print(f"entries of W changed by + and -: {(back != W).mean():.0%}")
print(f"by at most {np.abs(back - W).max():.1e}")

# %% [markdown]
# ### Exercise 4.3: merge, and take it back
#
# *Difficulty 3 of 5, 12 minutes.* Extend your layer. merge() puts W + s A B into the base, as a
# *new* array; a second merge() changes nothing. unmerge() brings back W, bit for bit; a second one
# changes nothing. The output must be the same merged and unmerged, up to rounding.


# %%
class MergingLora(MyLora):
    kept: np.ndarray | None = None  # W as it was, while merged

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        # SOLUTION
        return super().__call__(x) if self.kept is None else self.base(x)
        # END SOLUTION

    def merge(self) -> None:
        # SOLUTION
        if self.kept is None:
            self.kept = self.base.weight.data
            self.base.weight.data = self.kept + self.delta()
        # END SOLUTION

    def unmerge(self) -> None:
        # SOLUTION
        if self.kept is not None:
            self.base.weight.data, self.kept = self.kept, None
        # END SOLUTION


# %%
check.MergingLora(MergingLora)

# %% [markdown]
# ## Into a model
#
# LoRA wraps: `layers.0.attn.q_proj` was a Linear, and becomes a layer that holds this Linear. The
# names are found by `model.named_modules()`, which gives pairs (path, module), and
# `model.set_submodule(path, new)` replaces.
#
# ### Exercise 4.4: adapt a model
#
# *Difficulty 3 of 5, 10 minutes.* Freeze the model. Then replace every Linear whose name, the last
# word of its path, is one of `names`, by `layer(linear, r, alpha, rng)`, in the model's order.
# Return the list of the paths. (Why a list? A name that matches nothing is the most usual silent
# fault of all, and an empty list shows it.)


# %%
def adapt(
    model: ml.Module, names: list[str], layer: type, r: int, alpha: float, rng: Rng
) -> list[str]:
    """Put `layer` around every Linear of these names; the paths of those adapted."""
    # SOLUTION
    model.requires_grad_(False)
    paths = []
    for path, module in list(model.named_modules()):
        if isinstance(module, ml.Linear) and path.rpartition(".")[2] in names:
            model.set_submodule(path, layer(module, r, alpha, rng))
            paths.append(path)
    return paths
    # END SOLUTION


# %%
check.adapt(adapt)

# %% [markdown]
# ### The order of a run
#
# 1. Load the base.
# 2. Add the adapter.
# 3. Make the optimizer, of what trains *now*.
# 4. Train.
# 5. Save the adapter.
# 6. Merge for use.
#
# An optimizer that was made before the adapter holds the frozen weights and neither A nor B. In
# PyTorch it passes over what has no gradient, and nothing warns you: B is still zero at the end.
# The optimizer of this package raises an error instead:

# %%
rng = np.random.default_rng(5)
model = ml.ModuleList([ml.Linear(6, 4, rng=rng)])
optimizer = ml.AdamW(model.trainable_parameters())  # too early
ml.add_adapter(model, ml.LoraConfig(r=2, target_modules=["0"]), rng=rng)
model[0](ml.Tensor(np.ones((3, 6), np.float32))).sum().backward()
try:
    optimizer.step()
except RuntimeError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# Saved before training, the file would hold a B of zeros; saved after merging for good, there would
# be no adapter left to save.
#
# ### How far the backward pass goes
#
# A backward pass goes from the loss down to whatever trains, and no further. It goes *through*
# frozen weights only where something trains below them. `ml.tensor.observe` shows us the
# operations; we count those that are recorded for the way back.
#
# ### Predict, change, run: adapters in one block
#
# `docs-tiny` has two blocks. With adapters in the first one, next to the input, the whole way back
# is recorded. Which part of that, in per cent, with adapters in the last block alone?

# %%
BLOCKS = [1]  # change me: [0], [0, 1]
GUESS = ...  # recorded operations, per cent of those for [0, 1]


def recorded(blocks):
    """How many operations of a forward pass are kept for the way back."""
    model = ml.load_model("docs-tiny")
    where = {"target_modules": "all-linear", "layers_to_transform": blocks}
    config = ml.LoraConfig(r=4, **where)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    kept = []

    def count(data, edges):
        kept.append(any(p is not None and p.requires_grad for p, _ in edges))
        return edges

    with ml.tensor.observe(count):
        model(np.zeros((1, 8), int))
    return sum(kept)


share = 100 * recorded(BLOCKS) / recorded([0, 1])
print(f"adapters in {BLOCKS}: {recorded(BLOCKS)} operations are recorded, ", end="")
print(f"{share:.0f} %")
check.predict(GUESS, share, unit="%", within=0.2)

# %% [markdown]
# **What should be seen.** About half for `[1]`: below the lowest adapter nothing is recorded. For
# `[0]` as many as for both: the second block has nothing that trains, but the gradient must go
# through it.
#
# ## One operation
#
# Written with three products, the detour keeps more arrays, and works longer, than it must. The
# package makes the layer *one* operation: it forms W + s A B, multiplies once, and gives `record`
# the three gradients, each as a function of G. You know both from lesson 01.
#
# ### Exercise 4.5: the layer as one operation
#
# *Difficulty 4 of 5, 15 minutes.* `record(y, (x, grad_x), (A, grad_A), (B, grad_B))` makes y a
# Tensor that remembers the ways back. Form W + s A B first, then y, then + b; let the gradients of
# A and B need no array of the size of W (brackets decide it; the check sees only the numbers). All
# but s are Tensors; their arrays are `x.data`, `A.data`, …


# %%
def lora_op(
    x: ml.Tensor, W: ml.Tensor, b: ml.Tensor, A: ml.Tensor, B: ml.Tensor, s: float
) -> ml.Tensor:
    """y = x (W + s A B) + b with W and b frozen.   x (n, d_in) -> y (n, d_out)"""
    # SOLUTION
    merged = W.data + s * (A.data @ B.data)
    return record(
        x.data @ merged + b.data,
        (x, lambda G: G @ merged.T),
        (A, lambda G: s * (x.data.T @ (G @ B.data.T))),
        (B, lambda G: s * ((x.data @ A.data).T @ G)),
    )
    # END SOLUTION


# %%
check.lora_op(lora_op)

# %% [markdown]
# ### Bit for bit
#
# Now all your parts together: your layer, with your operation in it, put into `docs-tiny` by your
# `adapt`. Beside it the package's `add_adapter`, with the same seed. Both train for twenty steps on
# the same batches. Numbers in float32 are rounded after every operation, so equal *bits* mean: the
# same draws, the same operations, in the same order. (s = 2 helps: multiplying by a power of two
# rounds nothing, so it does not matter where you do it.)


# %%
class OneOpLora(MyLora):
    def __call__(self, x, rng=None):
        rows = x.reshape(-1, x.shape[-1])  # (B, T, d_in) -> (B*T, d_in)
        y = lora_op(rows, self.base.weight, self.base.bias, self.A, self.B, self.s)
        return y.reshape(*x.shape[:-1], y.shape[-1])


NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
twenty = ml.TrainConfig(steps=20, lr=1e-2, seed=0)
code = ml.load_corpus("code")


def train_both():
    """(logits with your layers, with the package's) after the same twenty steps."""
    mine, theirs = ml.load_model("docs-tiny"), ml.load_model("docs-tiny")
    adapt(mine, NAMES, OneOpLora, 4, 8, np.random.default_rng(0))
    config = ml.LoraConfig(r=4, lora_alpha=8, target_modules=NAMES)
    ml.add_adapter(theirs, config, rng=np.random.default_rng(0))
    ids = code.batches(4, 64, "val")(np.random.default_rng(1))[0]
    for model in (mine, theirs):
        ml.train(model, code.batches(12, 64), twenty, quiet=True)
    return mine(ids).data, theirs(ids).data


# %%
if all(map(bool, (check.MyLora(MyLora), check.adapt(adapt), check.lora_op(lora_op)))):
    yours, package = train_both()
    print("largest difference of a logit:", np.abs(yours - package).max())
    print("your LoRA is the package's, bit for bit:", np.array_equal(yours, package))
else:
    print("This cell trains your own layer once 4.2, 4.4 and 4.5 are correct.")

# %% [markdown]
# If they differ in the last digits, your layer is right too: it adds in another order.
#
# ## Watch ΔW grow
#
# One hundred steps of Python code, and one matrix, the `v_proj` of the first block, seen at
# four moments. Two measures of a matrix come in. Its *length* ‖ΔW‖ is the root of the sum of all
# squared entries. Its *singular values* σ₁ ≥ σ₂ ≥ … ≥ 0, from `np.linalg.svd`, say how far it
# stretches what it multiplies, along each of its own directions. As many of them as its rank are
# not zero.

# %%
model = ml.load_model("docs-tiny")
config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
ml.add_adapter(model, config, rng=np.random.default_rng(0))
path = "layers.0.attn.v_proj"
train_config = ml.TrainConfig(steps=100, lr=1e-2)
training = ml.Training(model, code.batches(12, 64), train_config)
growth, pictures = [], {}  # (step, |A|, |B|, the singular values of ΔW); ΔW by step
for step in range(train_config.steps + 1):
    delta = ml.get_delta_weight(model, path)
    factors = model.get_submodule(path).adapters["default"]
    lengths = [float(np.linalg.norm(p.data)) for p in (factors.A, factors.B)]
    growth.append((step, *lengths, np.linalg.svd(delta, compute_uv=False)))
    if step in (0, 5, 20, 100):
        pictures[step] = delta
    if step < train_config.steps:
        training.step()

# %%
W = model.get_submodule(path).base.weight.data
for step in (0, 100):
    _, of_a, of_b, sigma = growth[step]
    length = np.linalg.norm(sigma)  # of ΔW: the root of the sum of the σ²
    print(f"step {step:>3}: ‖A‖ {of_a:.2f}, ‖B‖ {of_b:.2f}, ‖ΔW‖ {length:.2f}")
print(f"beside ‖W‖ {np.linalg.norm(W):.2f}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure = plt.figure(figsize=(8.6, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    limit = float(np.abs(pictures[100]).max()) / 2
    for ax, (step, delta) in zip(above.subplots(1, 4), pictures.items(), strict=True):
        shown = ax.imshow(delta[:48, :48], cmap="PuOr_r", vmin=-limit, vmax=limit)
        ax.set(title=f"step {step}", xticks=[], yticks=[])
        ax.grid(False)
    above.colorbar(shown, ax=above.axes, shrink=0.8, label="entries of ΔW")
    left, right = below.subplots(1, 2)
    steps = [row[0] for row in growth]
    left.plot(steps, [row[1] for row in growth], "--", color="0.35", label="‖A‖")
    left.plot(steps, [row[2] for row in growth], color=ml.plots.COLORS["lora"], label="‖B‖")
    left.set(xlabel="step", title="The lengths of A and B", ylim=(0, None))
    left.legend(loc="lower right")
    for i in range(5):
        color = ml.plots.shade(ml.plots.COLORS["lora"], 0.5 - 0.25 * i) if i < 4 else "0.35"
        sizes = [row[3][i] for row in growth]
        right.plot(steps, sizes, color=color, ls="-" if i < 4 else "--")
        right.text(102, sizes[-1], f"σ{'₁₂₃₄₅'[i]}", va="center")
    right.set(xlabel="step", title="The singular values of ΔW", xlim=(None, 112))
    ml.plots.show(
        figure,
        "Above: a corner of ΔW at steps 0, 5, 20 and 100; first empty, then stripes "
        "that deepen. Below: the length of B grows from zero, that of A by less; "
        "four singular values of ΔW grow, the fifth stays at zero.",
    )

# %% [markdown]
# **What to see.** At step 0 there is nothing. Then stripes: each row of ΔW is a mix of the same
# four rows of B. Four singular values grow, at different rates, and the fifth is zero throughout:
# that is the rank. B grows from zero; A, which started at random, grows by less.
#
# **What it does not show.** Whether four directions are enough (lesson 06), and how full
# fine-tuning's ΔW looks (lesson 07).
#
# ### It is ΔW that is of low rank
#
# A quiz counts as right: "LoRA decomposes weights into two smaller rank matrices and trains those
# instead". Do exactly this: replace every W of the blocks by the nearest matrix of rank 4, a
# product of two thin ones, before any training. (`svd` finds it: keep the four largest singular
# values, with their directions.)

# %%
english = ml.load_corpus("prose")
base, cut = ml.load_model("docs-tiny"), ml.load_model("docs-tiny")
for _, module in cut.named_modules():
    if isinstance(module, ml.Linear):
        U, S, Vt = np.linalg.svd(module.weight.data, full_matrices=False)
        module.weight.data = (U[:, :4] * S[:4]) @ Vt[:4]
adapted = ml.load_model("docs-tiny")
ml.add_adapter(adapted, config, rng=np.random.default_rng(0))
print(f"{'each symbol alike':<20} loss {np.log(base.config.vocab_size):.3f} nats")
models = {"base": base, "LoRA, r = 4": adapted, "W in factors, r = 4": cut}
for name, model in models.items():
    print(f"{name:<20} loss {ml.text_loss(model, english.test):.3f} nats on English")

# %% [markdown]
# A trained W is not of low rank. In factors it has forgotten more than all it knew: it does worse
# than a model that finds every symbol equally likely. LoRA decomposes the *change*.
#
# ### An embedding starts the other way round
#
# The input of an embedding is a token's number, which picks a row. ΔE = A B, with a row of A (V, r)
# for each of the V tokens. Here PEFT lets A be zero and draws B. Why? Take one step on two tokens:

# %%
V, C, r, used = 6, 5, 2, np.array([1, 4])
for zero in "AB":
    rng = np.random.default_rng(6)
    A, B = (ml.Parameter(rng.standard_normal(shape)) for shape in ((V, r), (r, C)))
    {"A": A, "B": B}[zero].data *= 0
    somewhere = ml.Tensor(rng.standard_normal((2, C)))
    y = A[used] @ B - somewhere  # two tokens are pulled there
    (y * y).sum().backward()
    delta = (A.data - 0.1 * A.grad) @ (B.data - 0.1 * B.grad)
    moved = np.flatnonzero(np.abs(delta).max(axis=1) > 1e-9)
    print(f"{zero} zero at first: rows that moved {moved}")

# %% [markdown]
# With A zero, only the tokens that occurred move; the others keep their embedding exactly. With B
# zero every row moves, since all share B.
#
# **Does it hold at scale?** The pieces are the same in a model of 3.2 billion numbers. In PEFT's
# own benchmark (Llama-3.2-3B, on the school maths of GSM8K, July 2026) LoRA with r = 32 on the
# query and value matrices trains 9.2 million numbers and gets 47.8 % of the answers right, full
# fine-tuning 47.2 %, each with a standard error of 1.4 points; its peak memory is 20.8 GiB instead
# of 36.2. The formula gives the count that Hu et al. print for GPT-3: r = 4 on q and v, 96 layers,
# 2 matrices, 4 · (12,288 + 12,288) each, makes 18.9 million.
#
# ## Five broken layers
#
# Each of these layers runs, trains and raises no error. What a sound layer must have:
#
# | | property | how it is tried |
# |---|---|---|
# | 1 | fresh, it is its base | the same output, A not zero |
# | 2 | A and B train, and nothing else does | `trainable_parameters()` |
# | 3 | its gradients are those of the formula | against NumPy, with B not zero |
# | 4 | y = x W + b + s (x A) B with s = α / r | with B not zero: before, a wrong s cannot be seen |
# | 5 | merged is beside; W comes back | merged twice, unmerged twice |
#
# And three questions that find most faults in a run that learns nothing:
#
# | | backward() runs? | B's gradient zero? | B moves? |
# |---|---|---|---|
# | everything frozen, or merged | no | – | – |
# | both factors zero | yes | yes | no |
# | optimizer made too early | yes | no | no |
# | rate too low | yes | no | hardly |
#
# Repair the smallest piece that makes each sound; its check says what it sees. Where you draw A,
# draw it as in exercise 4.1.
#
# ### Exercise 4.6: it never learns
#
# *Difficulty 1 of 5, 3 minutes.* The loss is the same after a thousand steps.


# %%
class Broken1(ml.Module):
    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        # SOLUTION
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        # INSTEAD
        # self.A = ml.Parameter(np.zeros((d_in, r), np.float32))
        # END SOLUTION
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        return self.base(x) + self.s * ((x @ self.A) @ self.B)


# %%
check.Broken1(Broken1)

# %% [markdown]
# ### Exercise 4.7: it learns, and PEFT disagrees
#
# *Difficulty 2 of 5, 4 minutes.* It trains well. With its A, B, r and α in PEFT's format, PEFT
# computes something else.


# %%
class Broken2(ml.Module):
    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        # SOLUTION
        return self.base(x) + self.s * ((x @ self.A) @ self.B)
        # INSTEAD
        # thin = self.s * (x @ self.A)
        # return self.base(x) + self.s * (thin @ self.B)
        # END SOLUTION


# %%
check.Broken2(Broken2)

# %% [markdown]
# Training adapts to any constant factor, so no loss curve shows this one. PEFT multiplies by s
# once, and so makes 1/s of the change that was trained.
#
# ### Exercise 4.8: the base does not come back
#
# *Difficulty 2 of 5, 4 minutes.* The optimizer gets `layer.trainable_parameters()`. When A and B
# are taken off, the model is not what it was.


# %%
class Broken3(ml.Module):
    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        # SOLUTION
        self.base, self.s = base.requires_grad_(False), alpha / r
        # INSTEAD
        # self.base, self.s = base, alpha / r
        # END SOLUTION
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        return self.base(x) + self.s * ((x @ self.A) @ self.B)


# %%
check.Broken3(Broken3)

# %% [markdown]
# ### Exercise 4.9: B has a gradient, and stays zero
#
# *Difficulty 2 of 5, 4 minutes.* After backward() `layer.B.grad` is not zero; and yet, after the
# optimizer's step, B itself is as zero as before.


# %%
class Broken4(ml.Module):
    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        # SOLUTION
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))
        # INSTEAD
        # self.B = ml.Tensor(np.zeros((r, d_out), np.float32), requires_grad=True)
        # END SOLUTION

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        return self.base(x) + self.s * ((x @ self.A) @ self.B)


# %%
check.Broken4(Broken4)

# %% [markdown]
# ### Exercise 4.10: W is never again what it was
#
# *Difficulty 3 of 5, 8 minutes.* Merged, then unmerged, the layer is not quite the old one; and
# there is worse, if a user calls merge() twice. As in exercise 4.3, merge() must put a *new* array
# in the place of W and leave the old one as it is.


# %%
class Broken5(ml.Module):
    def __init__(self, base: ml.Linear, r: int, alpha: float, rng: Rng) -> None:
        d_in, d_out = base.weight.shape
        self.base, self.s = base.requires_grad_(False), alpha / r
        A = rng.uniform(-1, 1, (d_in, r)) / np.sqrt(d_in)
        self.A = ml.Parameter(A.astype(np.float32))
        self.B = ml.Parameter(np.zeros((r, d_out), np.float32))
        self.kept = None

    def __call__(self, x: ml.Tensor, rng: Rng | None = None) -> ml.Tensor:
        if self.kept is not None:
            return self.base(x)
        return self.base(x) + self.s * ((x @ self.A) @ self.B)

    def merge(self) -> None:
        # SOLUTION
        if self.kept is None:
            self.kept = self.base.weight.data
            self.base.weight.data = self.kept + self.s * (self.A.data @ self.B.data)
        # INSTEAD
        # self.kept = self.s * (self.A.data @ self.B.data)
        # self.base.weight.data += self.kept
        # END SOLUTION

    def unmerge(self) -> None:
        # SOLUTION
        if self.kept is not None:
            self.base.weight.data, self.kept = self.kept, None
        # INSTEAD
        # self.base.weight.data -= self.kept
        # self.kept = None
        # END SOLUTION


# %%
check.Broken5(Broken5)

# %% [markdown]
# More of this kind, in whole training scripts and from their curves alone: [the bug
# clinic](bug_clinic.ipynb).
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 04`: why B is zero and A is not; which factor moves first; the three
# gradients, their shapes, and how far they go; dropout; α / r, and α counted twice; the order of a
# run; faults and their symptoms; an embedding's adapter; and two texts that are wrong. Lesson 08
# goes on about the rate, α and other starts, lesson 10 about merging and files.
#
# ## Where to read on
#
# - `minilora/lora.py`, of which your class is the heart, and `lora_linear` in
#   `minilora/functional.py`, which is your operation.
# - Hu et al. 2021, [LoRA](https://arxiv.org/abs/2106.09685), section 4.1; its code,
#   [loralib](https://github.com/microsoft/LoRA), is one file.
# - Next: lesson 05 counts what all this saves.
