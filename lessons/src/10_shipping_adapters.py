# %% [markdown]
# # 10 · Shipping adapters
#
# **The question.** An adapter is trained: how is it served, combined and stored?
#
# **You will be able to**
#
# - choose between an adapter beside W and one merged into it, and take a merge back bit for bit;
# - serve one batch in which each row has an adapter of its own;
# - combine adapters exactly, and show why averaging their factors is wrong;
# - read the two files of an adapter by hand, and say what may be missing in them;
# - store a base in 4 bits, and say what that costs, beside an adapter and under a merge.
#
# **Time:** 20 seconds to run, 25 minutes to read, 100 with the exercises. **Before this:** lessons
# 04 (the layer, merging) and 05 (counting, the memory ladder); 07 helps with the SVD. **Words:** a
# [glossary](GLOSSARY.md) has them all.

# %%
import copy
import json
import tempfile
import textwrap
from pathlib import Path
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import minilora as ml
from minilora.analysis.profiler import profile
from minilora.learn import check
from minilora.learn.light import light
from minilora.lora import lora_layers
from minilora.studies.leave_one_out import plot_leave_one_out
from minilora.text.corpora import Corpus

# %% [markdown]
# ## A picture

# %% tags=["hide-input"]
with ml.plots.style():
    figure, axes = plt.subplots(1, 3, figsize=(8.5, 2.9), layout="constrained")
    grey, orange, paler = "#D9D9D9", ml.plots.COLORS["lora"], "#F2C28B"
    titles = ("beside W: swapped", "merged: costs nothing", "one batch, many adapters")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=(0, 6), ylim=(0.2, 3.9), title=title)
        ax.axis("off")
    weights = ((0.4, grey, "W"), (1.85, paler, "W + s A B"), (0.4, grey, "W"))
    for ax, (left, color, name) in zip(axes, weights, strict=True):
        ax.add_patch(plt.Rectangle((left, 1.2), 2.3, 2.3, facecolor=color, edgecolor="0.3"))
        ax.text(left + 1.15, 2.35, name, ha="center", va="center")
    for ax, names in ((axes[0], ("P", "Q", "R")), (axes[2], ("row 1: P", "row 2: R", "row 3: P"))):
        for i, name in enumerate(names):
            y, chosen = 3.0 - 0.9 * i, ax is axes[2] or i == 0
            color = orange if chosen else "white"
            ax.add_patch(plt.Rectangle((3.4, y), 0.35, 0.6, facecolor=color, edgecolor="0.3"))
            ax.add_patch(plt.Rectangle((3.9, y + 0.2), 0.6, 0.25, facecolor=color, edgecolor="0.3"))
            ax.text(4.65, y + 0.3, name, va="center", fontsize=9)
    axes[0].text(3.0, 0.5, "P is active, Q and R wait", ha="center", fontsize=9)
    axes[1].text(3.0, 0.5, "one matrix, as large as W", ha="center", fontsize=9)
    axes[2].text(3.0, 0.5, "x W once, each row its own A and B", ha="center", fontsize=9)
    ml.plots.show(
        figure,
        "Three ways to serve: W with three small adapters beside it, of which one "
        "is active; one matrix W + s A B; and W with a row of a batch for each of "
        "several adapters.",
    )

# %% [markdown]
# *Inference* is using a model after training. These are the three ways to have adapters in it.
#
# ## The formula
#
# $$y = x W + s\,(x A)\,B = x\,(W + s A B)$$
#
# The left is the adapter *beside* W, the right the adapter *merged* into it (Hu et al. 2021,
# section 4.1). The second formula of this lesson puts adapters together. With matrices written
# beside each other and below each other,
#
# $$c_1 s_1 A_1 B_1 + c_2 s_2 A_2 B_2 = \begin{pmatrix} c_1 s_1 A_1 & c_2 s_2 A_2 \end{pmatrix}
# \begin{pmatrix} B_1 \\ B_2 \end{pmatrix}.$$
#
# ## Two adapters of one base
#
# We train two, each for its own task: one for Python code, one for English in capitals. (To train
# one on your own text, take `ml.load_text("file.txt")` in place of a corpus.)

# %%
prose, code = ml.load_corpus("prose"), ml.load_corpus("code")
parts = (part[:400_000] for part in (prose.train, prose.val, prose.test))
capitals = Corpus("capitals", *(ml.encode(ml.decode(part).upper()) for part in parts))
TEXTS = {"prose": prose.test, "code": code.test, "capitals": capitals.test}
EVERYWHERE = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
HUNDRED = ml.TrainConfig(steps=light(100), lr=1e-2)

trained = ml.load_model("docs-tiny")
for seed, corpus in enumerate((code, capitals)):
    ml.add_adapter(trained, EVERYWHERE, corpus.name, rng=np.random.default_rng(seed))
    ml.train(trained, corpus.batches(12, 64), HUNDRED, quiet=True)


# %%
def losses(model):
    """Nats per character on the three texts: the less, the better."""
    n = light(64)
    return {k: ml.text_loss(model, text, windows=n) for k, text in TEXTS.items()}


def report(name, model):
    shown = "".join(f"{loss:>10.2f}" for loss in losses(model).values())
    print(f"{name:<26}{shown}")


print(f"{'':<26}" + "".join(f"{name:>10}" for name in TEXTS))
with ml.disable_adapter(trained):
    report("the base", trained)
for name in ("code", "capitals"):
    ml.set_adapter(trained, name)
    report(f"adapter {name!r}", trained)

# %% [markdown]
# Each adapter learned its task, and with it switched on the model is worse at its old one, prose.
#
# ## Beside W: swap, or switch off
#
# `set_adapter` says which adapter is *active*: which A and B the layers compute with, and which
# would train. It changes no number of the model. So an adapter that is used again answers as
# before, to the last bit, and with all of them switched off you have the base.

# %%
ids = code.test[None, :64].astype(np.int64)
logits = {}
for visit, name in enumerate(("code", "capitals", "code")):
    ml.set_adapter(trained, name)
    logits[visit] = trained(ids).data
with ml.disable_adapter(trained):
    off = trained(ids).data
fresh = ml.load_model("docs-tiny")(ids).data
same = np.array_equal(logits[0], logits[2])
print("code, after capitals was used: same bits", same)
print("all switched off, the base:    same bits", np.array_equal(off, fresh))
print(f"code and capitals differ by up to {np.abs(logits[0] - logits[1]).max():.1f}")

# %% [markdown]
# That is LoRA's answer to forgetting: it happens while the adapter is on, and can be undone
# completely. And one base in memory can serve many tasks. Hu et al. count 354 GB for GPT-3 with 100
# adapters, where 100 fine-tuned models would take 35 TB.
#
# What it costs: for each row x, x A takes $d_{in} r$ multiplications and the product with B
# takes $r d_{out}$, beside the $d_{in} d_{out}$ of x W. Parentheses matter: from left to right no
# matrix of W's size is ever made.

# %%
d_in, d_out, r = 4096, 1024, 8
print(f"x W            {d_in * d_out:>12,} multiplications for each row")
thin = r * (d_in + d_out)
print(f"(x A) B        {thin:>12,}, {thin / (d_in * d_out):.1%} more")
print(f"forming A B    {d_in * r * d_out:>12,}, once, to merge it")


def operations(model):
    """Floating-point operations of all matrix products, for one character."""
    with profile() as seen:
        model(ids[:, :1])
    return sum(cost.forward_flops for cost in seen.ops.values())


merged = copy.deepcopy(trained)
beside = operations(merged)
ml.merge_and_unload(merged)
base = ml.load_model("docs-tiny")
print(f"\ndocs-tiny: base {operations(base):,}, beside {beside:,}, ", end="")
print(f"merged {operations(merged):,} operations")
print(f"numbers in base and merged: {ml.count_parameters(base)[1]:,}, ", end="")
print(f"{ml.count_parameters(merged)[1]:,}")

# %% [markdown]
# Merged, the model costs what the base costs: that is what the paper calls no additional latency.
# Beside W, the work is a few per cent, but these are two more small products in sequence in every
# layer, and a GPU feels that when the batch is small. In no case is it *faster* than the base: ΔW
# is of low rank, W + ΔW is not.
#
# ## Merged: and back again
#
# Merging is an addition, and so four things follow.
#
# 1. The order of two merges does not matter, apart from rounding.
# 2. Nothing in W says that it is merged: merge twice, and ΔW counts twice. This package refuses.
# 3. After `merge_and_unload` A and B are gone, and the model is the adapted one for good.
# 4. Subtracting ΔW does not undo it: the sum was rounded, and what was rounded off is lost.

# %%
rng = np.random.default_rng(0)
W, delta = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
subtracted = (W + delta) - delta
largest = np.abs(subtracted - W).max()
changed = (subtracted != W).mean()
print(f"entries changed by + and -: {changed:.0%}, by up to {largest:.0e}")

weight = W.copy()
W0, kept = weight, weight.copy()  # a second name, and a second array
weight += delta
named, copied = (np.abs(one - W).max() for one in (W0, kept))
print(f"kept under a second name W is off by {named:.1f}, as a copy by {copied:.1f}")

model = copy.deepcopy(trained)
ml.merge_adapter(model)
ml.unmerge_adapter(model)
before, after = (one.layers[0].attn.q_proj for one in (base, model))
same = np.array_equal(before.weight.data, after.base.weight.data)
print(f"ml.unmerge_adapter puts W back, bit for bit: {same}")

# %% [markdown]
# The trap in the middle: `W0 = W` makes a second *name*, and `W += ...` writes into the array that
# both name. Take a copy, or write `W = W + ...`, which makes a new array.
#
# ### Exercise 10.1: one task after another
#
# *Difficulty 2 of 5, 8 minutes.* A matrix serves several tasks in turn, each by a merge. Return the
# list of the weights that it has: W + s A B of the first adapter alone, then of the second alone,
# and so on, and as the last entry W as it was, bit for bit.


# %%
def serve_in_turn(
    W: np.ndarray, adapters: list[tuple[np.ndarray, np.ndarray, float]]
) -> list[np.ndarray]:
    """W (d_in, d_out) under each adapter (A, B, s), and at the end W again."""
    # SOLUTION
    weights = [W + s * A @ B for A, B, s in adapters]
    return [*weights, W.copy()]
    # END SOLUTION


# %%
check.serve_in_turn(serve_in_turn)

# %% [markdown]
# ### Predict, change, run: many swaps
#
# A service swaps merged adapters `SWAPS` times and subtracts each ΔW to be rid of it. Which part of
# the entries of W, in per cent, are not what they were?

# %%
SWAPS = 1  # change me: 10, 1000
GUESS = ...  # per cent of the entries

rng = np.random.default_rng(1)
W = rng.standard_normal((64, 64)).astype(np.float32)
drifted = W
for _ in range(SWAPS):
    delta = rng.standard_normal((64, 64)).astype(np.float32)
    drifted = (drifted + delta) - delta
print(f"the largest error is {np.abs(drifted - W).max():.1e}")
check.predict(GUESS, round(100 * (drifted != W).mean()), unit="per cent")

# %% [markdown]
# You should see a third after one swap, three quarters after ten and nearly all after a thousand,
# and an error that keeps growing: a drift. For many uses it is small enough. It is not the base.
#
# ## Half an adapter
#
# The merged weight is a straight line in s: with W + c s A B one goes from the base, c = 0, to the
# adapted model, c = 1, and beyond. Halve s, or A, or B; halve both factors, and a quarter is left.
# How good the model is, though, is no straight line.

# %%
STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
curve = []
ml.set_adapter(trained, "code")
for strength in STRENGTHS:
    model = copy.deepcopy(trained)
    for layer in lora_layers(model).values():
        layer.adapters["code"].s *= strength
    curve.append(losses(model))

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    looks = {"code": (ml.plots.COLORS["lora"], "-", "o"), "prose": ("0.35", "--", "s")}
    for name, (color, line, marker) in looks.items():
        values = [point[name] for point in curve]
        ax.plot(STRENGTHS, values, line, marker=marker, color=color)
        ax.text(1.54, values[-1], name, color=color, va="center")
    ax.set(xlabel="strength c of the code adapter", ylabel="nats per character", xlim=(-0.05, 1.75))
    ax.set_title("An adapter at part of its strength")
    ml.plots.show(
        figure,
        "Loss against strength. On code it falls steeply up to a half, is least "
        "near one and rises after; on prose it rises slowly at first and faster "
        "after one.",
    )

# %%
half = curve[STRENGTHS.index(0.5)]
gain = (curve[0]["code"] - half["code"]) / (curve[0]["code"] - curve[4]["code"])
price = (half["prose"] - curve[0]["prose"]) / (curve[4]["prose"] - curve[0]["prose"])
print(f"half an adapter: {gain:.0%} of what is learned, ", end="")
print(f"{price:.0%} of the forgetting")

# %% [markdown]
# **What to see.** Half of the adapter brings far more than half of what it learned, and costs less
# than half of what it makes the model forget. Beyond its full strength both get worse.
#
# **What it does not show.** That a half is always a good bargain: it is one adapter, one task, and
# a model of 0.4 million numbers.
#
# **Does it hold at scale?** The straight line of the weights is arithmetic, and holds at any size.
# For the losses we know of no measurement of a large model made in this way.
#
# ## Combining: exactly
#
# Two adapters become one: their A side by side, their B one below the other. The ranks add up.
# Whatever scale and share each has goes into its part of A, and then the new adapter's own scale
# must be 1.
#
# ### Exercise 10.2: two adapters in one
#
# *Difficulty 3 of 5, 10 minutes.* Combine any number of adapters (A, B, s), each with its share c,
# into one A and one B, so that A B is the sum of all c s A B. Ranks and scales may differ, and a
# share may be negative or 0. The result has as many columns in A, and rows in B, as all adapters
# have together.


# %%
def concatenate(
    adapters: list[tuple[np.ndarray, np.ndarray, float]], shares: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """A (d_in, sum of ranks) and B (sum of ranks, d_out), for s = 1."""
    # SOLUTION
    scaled = [c * s * A for (A, _, s), c in zip(adapters, shares, strict=True)]
    return np.hstack(scaled), np.vstack([B for _, B, _ in adapters])
    # END SOLUTION


# %%
check.concatenate(concatenate)

# %% [markdown]
# ### The test of a combination
#
# Combine *one* adapter with share 1: it must be that adapter. A simple test, and the usual library
# fails it: PEFT 0.21 puts the old s into the factors and gives the new adapter lora_alpha = r, so
# that its scale is 1. But with `use_rslora=True` the scale is not lora_alpha / r. It is lora_alpha
# / √r, and that is √r. (Issue 3761 of huggingface/peft, open in September 2026; DoRA and lora_bias
# fail it too.)

# %%
rng = np.random.default_rng(2)
r, alpha = 4, 6
A, B = rng.standard_normal((12, r)), rng.standard_normal((r, 9))
for rule, power in (("alpha / r", 1), ("alpha / √r, rsLoRA", 0.5)):
    old = alpha / r**power
    new_delta = (r / r**power) * (np.sqrt(old) * A) @ (np.sqrt(old) * B)
    length = np.linalg.norm(new_delta) / np.linalg.norm(old * A @ B)
    print(f"s = {rule:<20} combined with share 1: ", end="")
    print(f"{length:.0f} times as long as it was")

# %% [markdown]
# The package puts the shares into B, and leaves an adapter that is alone with share 1 as it is.

# %%
ml.set_adapter(trained, "code")
alone = trained(ids).data
ml.combine_adapters(trained, {"code": 1.0}, "again")
print("combined with share 1: same bits", np.array_equal(trained(ids).data, alone))
ml.combine_adapters(trained, {"code": 1.0, "again": -1.0}, "nothing")
left = np.abs(trained(ids).data - fresh).max()
print(f"minus itself: off the base by {left:.0e}")
for name in ("again", "nothing"):
    ml.delete_adapter(trained, name)

# %% [markdown]
# ## Combining: wrongly
#
# It looks natural to average two adapters of rank 4 by averaging their A and their B. The product
# of the means is
#
# $$\tfrac12 (A_1 + A_2)\, \tfrac12 (B_1 + B_2)
# = \tfrac14 (A_1 B_1 + A_2 B_2 + A_1 B_2 + A_2 B_1).$$
#
# The last two are *cross terms*: A of one task with B of the other, which were never trained
# together.
#
# ### Exercise 10.3: what averaging gets wrong
#
# *Difficulty 3 of 5, 10 minutes.* Return the error, a matrix: the mean of A times the mean of B,
# minus the mean of the two products A B (s = 1).


# %%
def averaging_error(
    A1: np.ndarray, B1: np.ndarray, A2: np.ndarray, B2: np.ndarray
) -> np.ndarray:  # fmt: skip
    """(mean of A) (mean of B) - mean of A B.

    A (d_in, r), B (r, d_out) -> (d_in, d_out)"""
    # SOLUTION
    product_of_means = (A1 + A2) / 2 @ (B1 + B2) / 2
    return product_of_means - (A1 @ B1 + A2 @ B2) / 2
    # END SOLUTION


# %%
check.averaging_error(averaging_error)

# %% [markdown]
# Multiplied out, the error is −(A₁ − A₂)(B₁ − B₂) / 4. So averaging is exact where the two have one
# A in common, or one B, and else it is not. Our two adapters have different A:

# %%
factors = {}
for name in ("code", "capitals"):
    parts = (layer.adapters[name] for layer in lora_layers(trained).values())
    factors[name] = [(part.A.data, part.B.data, part.s) for part in parts]
errors = []
for (A1, B1, s), (A2, B2, _) in zip(*factors.values(), strict=True):
    right = s * (A1 @ B1 + A2 @ B2) / 2
    apart = s * (A1 + A2) / 2 @ (B1 + B2) / 2
    beside = np.hstack([s * A1 / 2, s * A2 / 2]) @ np.vstack([B1, B2])
    of = np.linalg.norm(right)
    errors.append([np.linalg.norm(wrong - right) / of for wrong in (apart, beside)])
means = np.mean(errors, axis=0)
print(f"mean of A times mean of B: off by {means[0]:.2f} of the mean of ΔW")
print(f"A side by side, B below each other: off by {means[1]:.0e}")

# %% [markdown]
# For adapters that have nothing in common one expects 1/√2 = 0.71 (four terms, each a quarter,
# against two halves). Who *adds* the factors instead, to get the sum of both ΔW, is off by 1.0: two
# terms that belong to nobody beside two that are right.
#
# ### Exact, and too large?
#
# The exact sum has rank 8, and with each adapter more it grows. Its best approximation of a lower
# rank is the truncated SVD (lesson 07).
#
# ### Exercise 10.4: back to a rank
#
# *Difficulty 3 of 5, 12 minutes.* From A and B make a new A (d_in, k) and a new B (k, d_out) whose
# product is as near to A B as rank k allows. k is smaller than the rank of A B.


# %%
def compress(A: np.ndarray, B: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A (d_in, r), B (r, d_out) -> (d_in, k), (k, d_out)"""
    # SOLUTION
    U, S, Vt = np.linalg.svd(A @ B, full_matrices=False)
    return U[:, :k] * S[:k], Vt[:k]
    # END SOLUTION


# %%
check.compress(compress)

# %% [markdown]
# ### Predict, change, run: the sum of two tasks
#
# A model with both adapters, each with its whole ΔW, cut to rank `RANK`. The base has 2.97 nats per
# character on code, its own adapter brings that to 1.73. What is left with both?

# %%
RANK = 8  # change me: 4, 2, 1
GUESS = ...  # nats per character on code

both = ml.load_model("docs-tiny")
for path in lora_layers(trained):
    names = ("code", "capitals")
    deltas = [ml.get_delta_weight(trained, path, name) for name in names]
    total = deltas[0] + deltas[1]
    U, S, Vt = np.linalg.svd(total, full_matrices=False)
    both.get_submodule(path).weight.data += (U[:, :RANK] * S[:RANK]) @ Vt[:RANK]
print(f"{'':<26}" + "".join(f"{name:>10}" for name in TEXTS))
report(f"both, rank {RANK}", both)
check.predict(GUESS, losses(both)["code"], unit="nats")

# %% [markdown]
# You should see that the exact sum is *worse* on code than the base without any adapter. The sum is
# exact; that it does both tasks is another claim, and here it is false: each adapter was trained
# without the other, and each is in the other's way. Nor does less rank cost what one might expect:
# at rank 2 and 1 the sum is better on code and on prose, as it is shorter, which is the strength
# of the section above in another dress. Of capitals it loses.
#
# If adapters are added one after the other *in training*, each sees what is there already. Their
# ranks still add up: two of rank 2, trained and merged in turn, can change W by rank 4. (ReLoRA
# reaches high ranks so; Lialin et al. 2023.)
#
# ## Do the tasks of others disturb mine?
#
# More of that, from a study of this package: adapters trained apart for four string tasks and for
# three texts, then added up, in every combination, with three seeds.

# %% tags=["hide-input"]
rows = ml.studies.shipped_rows("leave_one_out")
with ml.plots.style():
    figure, axes = plt.subplots(2, 1, figsize=(8.5, 5.6), layout="constrained")
    for ax, name in zip(axes, ("words-tiny", "docs-tiny"), strict=True):
        plot_leave_one_out([row for row in rows if row["model"] == name], ax)
    ml.plots.show(
        figure,
        "Two tables of quality by what is added to the base. In its own column "
        "every task is good; with one other adapter it is worse, with all of them "
        "much worse.",
    )

# %% [markdown]
# **What to see.** With its own adapter alone a task is done well. One other adapter in the sum, and
# it is done worse, with all of them worse again; string tasks are lost at once. The last two
# columns leave the base's own task better than any sum. On the texts the mean of ΔW brings
# more than the means of A and of B multiplied, which are close to doing nothing for code and
# capitals.
#
# **What it does not show.** Adapters that were trained to be added, or shares that were chosen for
# it; and the tasks here contradict each other, as capitals and code do.
#
# **Does it hold at scale?**

# %%
print(textwrap.fill(ml.studies.STUDIES["leave_one_out"].at_scale, 80))

# %% [markdown]
# ## Many customers in one batch
#
# Requests of several customers arrive together, each with an adapter of its own. Adding all
# adapters to W would be wrong, as we saw. But x W is the same matrix for every row. So compute it
# once for all, and to each row add the small product with *its* A and B. Systems such as S-LoRA and
# Punica (2023) do this for thousands of adapters. It needs them beside W: what is merged is merged
# for everybody.
#
# ### Exercise 10.5: to each row its adapter
#
# *Difficulty 3 of 5, 12 minutes.* `x` has n rows of T positions each. `A` and `B` hold the factors
# of all customers, one above the other, and `which[i]` is the number of row i's customer.


# %%
def per_row(
    x: np.ndarray, W: np.ndarray, A: np.ndarray, B: np.ndarray,
    s: float, which: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """x (n, T, d_in), A (customers, d_in, r), B (customers, r, d_out)

    -> (n, T, d_out)"""
    # SOLUTION
    return x @ W + s * (x @ A[which]) @ B[which]
    # END SOLUTION


# %%
check.per_row(per_row)

# %% [markdown]
# The same for one matrix of our model, by hand, beside the model's own layer with one adapter after
# the other:

# %%
layer = lora_layers(trained)["layers.0.attn.q_proj"]
names, which = ("code", "capitals"), np.array([1, 0, 0, 1, 1])
customers = [layer.adapters[name] for name in names]
A = np.stack([c.A.data for c in customers])
B = np.stack([c.B.data for c in customers])
x = np.random.default_rng(3).standard_normal((5, 7, len(layer.base.weight.data)))
x = x.astype(np.float32)
W, b, s = layer.base.weight.data, layer.base.bias.data, layer.adapters["code"].s
detour = (x @ A[which]) @ B[which]  # (5, 7, d) @ (5, d, r) @ (5, r, d)
together = x @ W + b + s * detour
off = 0.0
for i, customer in enumerate(which):
    ml.set_adapter(trained, names[customer])
    off = max(off, np.abs(together[i] - layer(ml.Tensor(x[i])).data).max())
print(f"rows with different adapters in one batch, off separate runs: {off:.0e}")

# %% [markdown]
# In all layers at once, and with rows for the base alone, the package does it so:

# %%
rows = ("capitals", "code", None)
with ml.adapters_per_row(trained, rows):
    in_batch = trained(np.repeat(ids, 3, axis=0)).data
    written = ml.generate(trained, ids[:, :1].repeat(3, 0), 30, temperature=0)
for name, row, new in zip(rows, in_batch, written, strict=True):
    if name is None:
        with ml.disable_adapter(trained):
            own = trained(ids).data[0]
    else:
        ml.set_adapter(trained, name)
        own = trained(ids).data[0]
    off = np.abs(row - own).max()
    print(f"{name or 'the base':<9} off its own run {off:.0e}  {ml.decode(new)!r}")

# %% [markdown]
# One model in memory, one batch, three models' answers.
#
# ## The two files
#
# An adapter on disk is a folder of two files, in PEFT's layout, which this package writes and
# reads: a configuration, and A and B. The base is not in it.

# %%
ml.set_adapter(trained, "code")
with tempfile.TemporaryDirectory() as folder:
    ml.save_adapter(trained, folder)
    config = json.loads(Path(folder, "adapter_config.json").read_text())
    tensors = load_file(Path(folder, "adapter_model.safetensors"))
    reloaded = ml.load_model("docs-tiny")
    ml.load_adapter(reloaded, folder)
same = np.abs(reloaded(ids).data - trained(ids).data).max()
for key in ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern",
            "use_rslora", "base_model_name_or_path", "modules_to_save"):  # fmt: skip
    print(f"{key:<24} {config[key]}")
print(f"\nlogits, saved and read back, differ by {same:.0e}; tensors of block 0:")
for key, array in tensors.items():
    if ".h.0." in key:
        print(f"  {key:<62} {array.shape}")

# %% [markdown]
# Three things to know.
#
# - **Transposes.** PyTorch stores a Linear as (out, in), and its formula is W x + s B A x for a
#   column x. So `lora_A.weight` is (r, d_in) and `lora_B.weight` is (d_out, r): the transposes of
#   our A and B. The roles stay: A reads the input, B writes the output.
# - **Names.** Module names are those of the model. GPT-2 has c_attn for q, k and v in one matrix,
#   c_fc for our up_proj, and c_proj twice. A Llama has q_proj, k_proj, v_proj, o_proj, gate_proj,
#   up_proj, down_proj.
# - **Fused matrices.** An adapter of c_attn has *one* A: q, k and v read the same r directions, and
#   each has a third of B's columns, so that all three together have rank r. We trained three
#   adapters of rank 4. As one they need rank 12, and B is filled up with zeros, which is what
#   `rank_pattern` says.
#
# ### Exercise 10.6: read an adapter by hand
#
# *Difficulty 3 of 5, 12 minutes.* From the configuration and the tensors of a file, compute ΔW of
# one module in our layout, (d_in, d_out). `module` is its path in the model, without the prefix
# that PEFT writes before every key. The scale is lora_alpha / r, or lora_alpha / √r if
# `config["use_rslora"]` is true. (There are no patterns in these configurations.)


# %%
def delta_from_files(
    config: dict, tensors: dict[str, np.ndarray], module: str
) -> np.ndarray:  # fmt: skip
    """ΔW (d_in, d_out) of a module such as "transformer.h.0.mlp.c_fc"."""
    # SOLUTION
    A = tensors[f"base_model.model.{module}.lora_A.weight"].T
    B = tensors[f"base_model.model.{module}.lora_B.weight"].T
    r = config["r"]
    s = config["lora_alpha"] / (np.sqrt(r) if config["use_rslora"] else r)
    return s * A @ B
    # END SOLUTION


# %%
check.delta_from_files(delta_from_files)

# %% [markdown]
# ### What is not in the file
#
# **The optimizer.** It is needed only to go on training. So a file has 4 bytes for each number of A
# and B and little else. **The base.** The file names it; loading checks names and shapes, not
# weights. **What you unfroze by hand.** Only A and B, and what `modules_to_save` lists, is written.

# %%
numbers = 32 * 4 * 8 * (4096 + 4096)
megabytes = 4 * numbers / 1e6
print(f"a Llama-2-7B, q, k, v and o, r = 8: {numbers:,} numbers, {megabytes:.0f} MB")
small, head = 32 * 2 * 8 * (4096 + 4096), 4096 * 32_000
print("q and v, r = 8, with modules_to_save=['lm_head']: ", end="")
print(f"{small:,} + {head:,} numbers")

other = ml.load_model("docs-tiny")
shuffled = np.random.default_rng(4)
for path in lora_layers(trained):
    W = other.get_submodule(path).weight.data
    W[...] = shuffled.permutation(W.ravel()).reshape(W.shape)  # as large, but others
with tempfile.TemporaryDirectory() as folder:
    ml.save_adapter(trained, folder)
    ml.load_adapter(other, folder)
print(f"\ncode on its own base: {losses(trained)['code']:.2f} nats, ", end="")
print(f"on another of the same shapes: {losses(other)['code']:.2f}, without an error")


# %%
def with_whole_layers(listed):
    """Train v_proj's adapters, and up_proj whole: listed or unfrozen by hand."""
    model, reloaded = ml.load_model("docs-tiny"), ml.load_model("docs-tiny")
    names = ["up_proj"] if listed else None
    config = ml.LoraConfig(r=4, target_modules=["v_proj"], modules_to_save=names)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    for block in model.layers:
        block.mlp.up_proj.requires_grad_(True)
    steps = ml.TrainConfig(steps=light(40), lr=3e-3)
    ml.train(model, code.batches(4, 64), steps, quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        ml.save_adapter(model, folder)
        ml.load_adapter(reloaded, folder)
    return losses(model)["code"], losses(reloaded)["code"]


for how, listed in (("unfrozen by hand", False), ("in modules_to_save", True)):
    before, after = with_whole_layers(listed)
    print(f"up_proj {how:<19} {before:.2f} nats, saved and loaded {after:.2f}")

# %% [markdown]
# A head or another layer that you unfroze by hand trains, and is not in the file; after loading the
# base has its old one. And one trap of PEFT: `PeftModel.from_pretrained(base, folder)` loads for
# inference, with A and B frozen. To train on, pass `is_trainable=True`. (`ml.load_adapter` leaves
# them trainable.)
#
# ## A base in 4 bits
#
# *QLoRA* (Dettmers et al. 2023) keeps the frozen base in 4 bits, and trains A and B beside it in 16
# or 32. Storing numbers as the nearest of a few levels is called *quantization*. With 4 bits there
# are 16 levels. Weights are nearly normally distributed, so *NF4* (4-bit NormalFloat) puts its
# levels at quantiles of the normal distribution: close together where the weights are. Eight are
# positive, seven negative, and one is zero exactly; the outermost are scaled to −1 and 1.

# %%
quantile = NormalDist().inv_cdf
end = 1 - (1 / 32 + 1 / 30) / 2  # the outermost quantile; at 1 it would be infinite
positive = [quantile(p) for p in np.linspace(end, 0.5, 9)[:-1]]
negative = [-quantile(p) for p in np.linspace(end, 0.5, 8)[:-1]]
LEVELS = np.array(sorted([*negative, 0.0, *positive])) / quantile(end)
print(np.array2string(LEVELS, precision=4, max_line_width=70))

# %% [markdown]
# A *block* of 64 weights shares one scale, the largest absolute value in it (absmax). Divided by it
# the weights lie between −1 and 1. Each is stored as the number of the nearest level, its *code*.
#
# ### Exercise 10.7: store a block
#
# *Difficulty 3 of 5, 12 minutes.* Return the codes of a block, whole numbers from 0 to
# `len(levels) - 1`, and its scale. `levels` rise from −1 to 1 and one of them is 0. A block of
# zeros has the scale 0, and all its codes are that of level 0.


# %%
def to_nf4(block: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, float]:
    """The codes (n,) and the scale of a block (n,)."""
    # SOLUTION
    scale = np.abs(block).max()
    shares = block / scale if scale > 0 else block
    codes = np.abs(shares[:, None] - levels).argmin(axis=1)
    return codes, scale
    # END SOLUTION


# %%
check.to_nf4(to_nf4)


# %% [markdown]
# For whole matrices, in blocks, and back again:


# %%
def in_four_bits(W, levels=LEVELS, block=64):
    """W as it comes back from 4 bits, and its codes."""
    blocks = W.reshape(-1, block)
    scales = np.abs(blocks).max(axis=1, keepdims=True)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = np.searchsorted(middles, blocks / scales)
    return (levels[codes] * scales).reshape(W.shape).astype(W.dtype), codes


W = ml.load_model("docs-tiny").layers[0].mlp.up_proj.weight.data
EVEN = np.linspace(-1, 1, 16)
used = {}
for name, levels in (("NF4", LEVELS), ("evenly spaced", EVEN)):
    restored, codes = in_four_bits(W, levels)
    used[name] = np.bincount(codes.ravel(), minlength=16) / codes.size
    error = np.linalg.norm(restored - W) / np.linalg.norm(W)
    rarest = used[name].min()
    print(f"{name:<14} error {error:.1%} of W; the rarest level holds {rarest:.1%}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 4.2), layout="constrained", sharex=True)
    shares = (W.reshape(-1, 64) / np.abs(W.reshape(-1, 64)).max(1, keepdims=True)).ravel()
    for ax, (name, levels) in zip(axes, (("NF4", LEVELS), ("evenly spaced", EVEN)), strict=True):
        ax.hist(shares, 81, range=(-1, 1), color="0.8")
        ax.vlines(levels, 0, ax.get_ylim()[1], color=ml.plots.COLORS["lora"], lw=1.4)
        ax.set(title=f"{name}: 16 levels", ylabel="weights", yticks=[])
        ax.grid(visible=False)
    axes[1].set_xlabel("weight / largest absolute weight of its block of 64")
    ml.plots.show(
        figure,
        "Two histograms of the weights of a matrix, bell-shaped around zero. Lines "
        "mark the 16 levels: of NF4 dense in the middle, in the second picture "
        "evenly spaced.",
    )

# %% [markdown]
# **What to see.** Most weights are near zero, and there NF4 has most of its levels, so that they
# are used more evenly, and the error is smaller, if not by much. The bars at the ends are the
# largest weight of every block, which a level meets exactly.
#
# **What it does not show.** That the error of the weights is what matters; the loss of the model is
# measured below.
#
# ### Counting the bits
#
# A code takes 4 bits, a scale 32 for each 64 weights. *Double quantization* stores the scales, not
# the codes, once more: in 8 bits, with one scale of 32 bits for 256 of them.

# %%
once, twice = 4 + 32 / 64, 4 + 8 / 64 + 32 / (64 * 256)
print(f"bits a weight: {once}, with double quantization {twice:.3f}")
print(f"65 billion weights: {65 * 2} GB in 16 bits, {65 * twice / 8:.1f} GB in NF4")
print("bytes for each number of a model, activations apart:")
for name, amount in (("full, AdamW", 2 + 2 + 8), ("full, plain SGD", 2 + 2),
                     ("LoRA", 2), ("QLoRA", twice / 8)):  # fmt: skip
    also = " and a little for A and B" if "LoRA" in name else ""
    print(f"  {name:<16} {amount:>5.2f}{also}")

# %% [markdown]
# ### Predict, change, run: the block
#
# One scale for each `BLOCK` weights of that matrix. How large is the error, in per cent of W?

# %%
BLOCK = 64  # change me: 16, 1024, 65536
GUESS = ...  # the error in per cent of W

restored, _ = in_four_bits(W, LEVELS, BLOCK)
print(f"bits a weight, with scales in 32 bits: {4 + 32 / BLOCK:.2f}")
error = 100 * np.linalg.norm(restored - W) / np.linalg.norm(W)
check.predict(GUESS, error, unit="per cent of W")

# %% [markdown]
# You should see the error rise with the block, as its one largest weight stretches the levels for
# all others, and the bits fall. 64 is the compromise.
#
# ### What becomes of the model
#
# The matrices of `docs-tiny` in 4 bits: as it is; with the code adapter beside it, which was
# trained on the base in 32 bits; and with an adapter trained beside the 4-bit base, as QLoRA does.
# Last, that adapter merged, and the sum stored in 4 bits again.


# %%
def four_bit_base():
    model = ml.load_model("docs-tiny")
    for path in lora_layers(trained):
        weight = model.get_submodule(path).weight
        weight.data, _ = in_four_bits(weight.data)
    return model


print(f"{'':<26}" + "".join(f"{name:>10}" for name in TEXTS))
report("base, 32 bits", ml.load_model("docs-tiny"))
report("base, 4 bits", four_bit_base())
beside = four_bit_base()
for path in lora_layers(trained):
    delta = ml.get_delta_weight(trained, path, "code")
    beside.get_submodule(path).weight.data += delta
report("adapter of 32 bits beside", beside)

qlora = four_bit_base()
ml.add_adapter(qlora, EVERYWHERE, rng=np.random.default_rng(0))
ml.train(qlora, code.batches(12, 64), HUNDRED, quiet=True)
report("QLoRA: trained beside", qlora)

# %%
merged = copy.deepcopy(qlora)
ml.merge_and_unload(merged)
lost, moved, share = [], [], []
for path in lora_layers(qlora):
    weight = merged.get_submodule(path).weight
    delta = ml.get_delta_weight(qlora, path)
    stored, codes = in_four_bits(weight.data)
    lost.append(np.linalg.norm(stored - weight.data) / np.linalg.norm(delta))
    share.append(np.linalg.norm(delta) / np.linalg.norm(weight.data - delta))
    moved.append((codes != in_four_bits(weight.data - delta)[1]).mean())
    weight.data = stored
report("merged into 4 bits", merged)
print(f"\nΔW is {np.mean(share):.0%} as long as W; ", end="")
print(f"{np.mean(moved):.0%} of the codes moved")
print(f"the merge into 4 bits is off by {np.mean(lost):.0%} of ΔW")

# %% [markdown]
# The base loses little in 4 bits. A and B were never in 4 bits. But merged into 4 bits, a good part
# of ΔW is rounded away. Here that costs the *loss* little, as ΔW is long beside W after training
# at a high rate; a ΔW a tenth as long as W loses more than half of itself (the card on merging into
# 4 bits measures that). So keep the adapter beside a 4-bit base, or merge in 16 bits; quantize
# the sum only if the loss stays low.
#
# Three more facts about QLoRA.
#
# - **Nothing trains in 4 bits.** A step is far smaller than the gap between two levels: rounded, it
#   would be lost. The codes are frozen, and gradients go through them to A and B.
# - **It trades time for memory.** Products are done in 16 or 32 bits, so each weight is restored
#   from 4 bits whenever it is needed, forward and backward, in every step.
# - **The paged optimizer** moves AdamW's moments to the CPU's memory when the GPU's is full for a
#   moment, and back for the update. Where numbers are changes no result.
#
# ## Can DoRA be merged?
#
# DoRA (lesson 09) divides W + s A B by the lengths of its columns and gives each column a trained
# length m. It does so in every forward pass, but what it computes depends on no input. So it merges
# like LoRA. What is different is the change: columns that are rescaled change W in all directions.

# %%
for name, use_dora in (("LoRA", False), ("DoRA", True)):
    model = ml.load_model("docs-tiny")
    config = ml.LoraConfig(r=4, target_modules=["q_proj"], use_dora=use_dora)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    steps = ml.TrainConfig(steps=light(10), lr=1e-2)
    ml.train(model, code.batches(4, 32), steps, quiet=True)
    delta = ml.get_delta_weight(model, "layers.0.attn.q_proj")
    beside = model(ids).data
    ml.merge_and_unload(model)
    off = np.abs(model(ids).data - beside).max()
    rank = np.linalg.matrix_rank(delta, tol=1e-4 * np.linalg.norm(delta, 2))
    print(f"{name}: merged and beside differ by {off:.0e}; ΔW has rank {rank}")

# %% [markdown]
# ## The exam cards this prepares
#
# `minilora quiz --topic 10`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - What does a merged adapter cost, and what does one beside W cost?
# - Does subtracting undo a merge? What if it is done twice, or in another order?
# - What does swapping change, and what is left when the adapter is off?
# - How are adapters combined exactly, and what is wrong with averaging A and B? Which rank results?
# - How is a batch served in which each row has an adapter of its own?
# - What is in the two files, in which shapes, and what is not in them?
# - What is in 4 bits in QLoRA, how many bits is that, and what does double quantization do?
# - What becomes of an adapter that is merged into 4 bits? Can DoRA be merged?
#
# ## Where to read on
#
# - Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, section 4.1 (no additional
#   latency) and 4.2 (storage).
# - Dettmers et al. 2023, *QLoRA: Efficient Finetuning of Quantized LLMs*, section 3 and appendix E.
# - Sheng et al. 2023, *S-LoRA: Serving Thousands of Concurrent LoRA Adapters*; Chen et al. 2023,
#   *Punica: Multi-Tenant LoRA Serving*.
# - Lialin et al. 2023, *ReLoRA: High-Rank Training Through Low-Rank Updates*.
# - In this package: `minilora/hub/adapters.py` and `peft_layout.py` (the two files), `lora.py`
#   (merge and unmerge), `learn/demos/serving.py` and `memory.py` (every claim, measured).
