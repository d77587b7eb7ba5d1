# %% [markdown]
# # 07 · The singular values of ΔW
#
# **The question.** What does the change of the weights look like, under full fine-tuning and under
# LoRA?
#
# **You will be able to**
#
# - read the singular values of a matrix, and compute its rank, effective rank, stable rank and k90;
# - say what is and what is not low-rank about fine-tuning, and what a random matrix would show;
# - tell, in clear cases, from the weights alone how a model was tuned;
# - in part two: compare what two trainings have learned, and count intruder dimensions, each beside
#   what chance alone would give.
#
# **Time:** 45 seconds to run, 25 minutes to read, 80 with the exercises. Part one, which
# answers the question, is two thirds of it; part two is for a second sitting. **Before this:** you
# know what a matrix product is, and that LoRA leaves the weights W of a model as they are and
# learns a change of them, ΔW = s A B (lesson 05 has a picture). Lesson 06 helps, but is not needed.
# **Words:** [glossary](GLOSSARY.md), for what is not explained here.

# %%
import copy
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora import analysis
from minilora.experiments.tuning import set_up
from minilora.learn import check
from minilora.learn.light import light  # fewer steps in a browser, which is slow
from minilora.plots import select
from minilora.studies import shipped_rows
from minilora.studies.spectrum import plot_spectrum
from minilora.studies.subspace_similarity import plot_subspace_similarity
from minilora.studies.truncation import plot_truncation
from minilora.training.loop import run

# %% [markdown]
# ## A picture
#
# A matrix M turns a row x into the row x M. Feed it every x of length 1, which is a circle if x has
# two numbers. What comes out is an ellipse. The lengths of its two half-axes are the *singular
# values* of M, the larger called σ₁ and the smaller σ₂.

# %% tags=["hide-input"]
angle = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (200, 2), each row of length 1
anything = np.array([[1.7, 0.8], [-0.3, 1.1]])
product = np.array([[0.9], [0.5]]) @ np.array([[1.6, 0.9]])  # A (2, 1) times B (1, 2)

with ml.plots.style():
    figure, panels = plt.subplots(1, 3, figsize=(8.2, 2.4), layout="constrained")
    shapes = (
        (np.eye(2), "0.4", "what goes in"),
        (anything, ml.plots.COLORS["full"], "x M, any M"),
        (product, ml.plots.COLORS["lora"], "x A B, rank 1"),
    )
    for ax, (M, color, title) in zip(panels, shapes, strict=True):
        ax.plot(*(circle @ M).T, color=color)
        U, S, Vt = np.linalg.svd(M)
        for sigma, direction, name in zip(S, Vt, ("σ₁", "σ₂"), strict=True):
            if ax is not panels[0] and sigma > 1e-9:
                direction = direction * np.sign(direction[1])  # upwards
                ax.annotate("", direction * sigma, (0, 0), arrowprops={"arrowstyle": "->"})
                side = "left" if direction[0] > 0 else "right"
                x, y = direction * (sigma + 0.15)
                ax.text(x, y, f"{name} = {sigma:.2f}", ha=side, va="center")
        ax.set(xlim=(-2.4, 3.6), ylim=(-1.6, 1.6), aspect="equal", title=title)
        ax.axis("off")
    ml.plots.show(
        figure,
        "A circle of inputs, the ellipse that a matrix makes of it with its two "
        "half-axes, and the line that a product of rank 1 makes of it.",
    )

# %% [markdown]
# The product of a matrix with one column and a matrix with one row squeezes the circle into a line:
# σ₂ = 0. The number of singular values that are not 0 is the *rank*. So LoRA with r = 1 can change
# a layer's outputs along one direction only, and with rank r along r directions. Blue is full
# fine-tuning and orange is LoRA in every figure that compares them.
#
# ## The formula
#
# Every matrix M with $d_{in}$ rows and $d_{out}$ columns can be taken apart into directions. This
# is its *singular value decomposition*, SVD for short:
#
# $$M = U \Sigma V^T = \sum_i \sigma_i\, u_i v_i^T, \qquad
# \sigma_1 \ge \sigma_2 \ge \dots \ge 0.$$
#
# In words: measure how much of x lies along the input direction $u_i$, multiply by the strength
# $\sigma_i$, and put the result out along the direction $v_i$. The $u_i$ are the columns of U, all
# of length 1 and orthogonal to each other; so are the $v_i$, the columns of V.
#
# (Papers on LoRA multiply columns, y = W x. What we call input directions, the left singular
# vectors of our W, are the right ones of theirs.)
#
# To see that this is no magic, we build a matrix of two directions, and let NumPy take it apart.

# %%
u1, u2 = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, 1.0])  # inputs, d_in = 3
v1, v2 = np.array([0.8, 0.6]), np.array([-0.6, 0.8])  # output directions, d_out = 2
M = 4 * np.outer(u1, v1) + 1 * np.outer(u2, v2)

U, S, Vt = np.linalg.svd(M, full_matrices=False)
print("singular values:", S.round(6))
print("input direction 1, up to its sign: ", np.abs(U[:, 0]).round(6))
print("output direction 1, up to its sign:", np.abs(Vt[0]).round(6))

# %% [markdown]
# NumPy returns $V^T$, so an output direction is a *row* of `Vt`. And a sign is arbitrary, since
# $(-u)(-v)^T = u v^T$.
#
# ### How many directions are there, really?
#
# The rank counts a direction of strength 0.001 like one of strength 1. Three measures do not:
#
# - **effective rank**: with the shares $p_i = \sigma_i / \sum_j \sigma_j$, it is
#   $\exp(-\sum_i p_i \log p_i)$, the exponential of an entropy (Roy and Vetterli 2007);
# - **stable rank**: $\sum_i \sigma_i^2 / \sigma_1^2$, the whole beside its strongest direction
#   (Rudelson and Vershynin 2007);
# - **k90**: the fewest directions that together have 90 per cent of $\sum_i \sigma_i^2$.
#
# That sum of squares is also the sum of the squares of all entries of M. Its root is the *Frobenius
# norm* ‖M‖, the usual measure of how large a matrix is. The nearest matrix of rank k, by that
# measure, keeps the k strongest directions, and what it misses, squared, is the sum of the other
# $\sigma_i^2$ (Eckart and Young 1936; lesson 06 has more).

# %%
spectra = {
    "ten equal": [1] * 10,
    "each half of the last": [8, 4, 2, 1],
    "one strong, three weak": [8, 0.5, 0.5, 0.5],
    "one": [8, 0, 0, 0],
}
print(f"{'singular values':<24} {'rank':>6} {'effective':>10} {'stable':>8}", end="")
print(f" {'k90':>5}")
for name, values in spectra.items():
    M = np.diag(values)  # a diagonal matrix has its entries as singular values
    print(
        f"{name:<24} {np.linalg.matrix_rank(M):>6} "
        f"{analysis.effective_rank(M):>10.2f} {analysis.stable_rank(M):>8.2f} "
        f"{analysis.k90(M):>5}"
    )

# %% [markdown]
# Of n equal values the first three say n, and k90 says nine tenths of it, rounded up. As soon as
# one direction dominates, they part: the stable rank and k90 look at the strong directions, the
# effective rank lets the weak ones count too.
#
# ### Predict, change, run: the stable rank
#
# You can do this one in your head: add up the squares.

# %%
VALUES = [5, 2, 2, 1]  # change me: any singular values, the largest first
GUESS = ...

M = np.diag(VALUES)
print(f"effective rank {analysis.effective_rank(M):.2f}, k90 {analysis.k90(M)}")
stable = analysis.stable_rank(M)
check.predict(GUESS, stable, unit="directions (stable rank)", within=0.05)

# %% [markdown]
# ### Exercise 7.1: effective rank
#
# *Difficulty 2 of 5, 5 minutes.* `S` holds the singular values of a matrix that is not zero, the
# largest first. Some may be 0: they have no share, and no logarithm.


# %%
def effective_rank(S: np.ndarray) -> float:
    """exp of the entropy of the shares of the singular values S (n,)."""
    # SOLUTION
    p = S[S > 0] / S.sum()
    return float(np.exp(-np.sum(p * np.log(p))))
    # END SOLUTION


# %%
check.effective_rank(effective_rank)

# %% [markdown]
# ### Exercise 7.2: k90
#
# *Difficulty 2 of 5, 5 minutes.* How many of the strongest directions does it take to have at least
# 90 per cent of the sum of all squares?


# %%
def k90(S: np.ndarray) -> int:
    """The fewest directions with 90 per cent of all squares; S (n,), falling."""
    # SOLUTION
    held = np.cumsum(S**2)
    return int(np.argmax(held >= 0.9 * held[-1])) + 1
    # END SOLUTION


# %%
check.k90(k90)

# %% [markdown]
# ## Two trainings
#
# Now to real weights. `docs-tiny`, a small language model, has read English documentation. We teach
# it Python code, once by full fine-tuning and once by LoRA of rank 4, each at a learning rate that
# suits it. The losses are on a test text, in nats per character; lower is better. To learn **your
# own text** instead, put a path, such as `"notes.txt"`, in place of `"code"`.

# %%
TASK, STEPS = "code", light(300)
options = {"steps": STEPS, "quiet": False}
full = ml.tune(TASK, "full", seed=0, lr=1e-3, **options)
lora = ml.tune(TASK, "lora", seed=0, lr=1e-2, r=4, **options)  # s = alpha / r = 2
base, test_loss = full.base, full.task.test

models = {"base": base, "full": full.model, "LoRA, r = 4": lora.model}
for name, model in models.items():
    print(f"{name:<12} {test_loss(model):.2f}")

# %% [markdown]
# The model has two blocks of six matrices each. ΔW is the weight after training minus the weight
# before, whichever way it was trained; for LoRA this is s A B. We look at one of them, and
# beside it at a matrix of **random** numbers, for it is easy to find structure where there is none.

# %%
W = analysis.weight_matrices(base)
delta = {
    "full": analysis.delta_weights(base, full.model),
    "lora": analysis.delta_weights(base, lora.model),
}
path = "layers.0.attn.q_proj"
noise = np.random.default_rng(0).standard_normal(W[path].shape)
as_large = np.linalg.norm(delta["full"][path])  # as full fine-tuning's ΔW
noise *= as_large / np.linalg.norm(noise)

print(f"ΔW of {path}, {W[path].shape}: its largest singular values, and measures")
of_path = {"full": delta["full"][path], "LoRA": delta["lora"][path], "random": noise}
for name, D in of_path.items():
    largest = " ".join(f"{s:5.2f}" for s in analysis.singular_values(D)[:6])
    print(
        f"  {name:<7} {largest}   effective {analysis.effective_rank(D):5.1f}, "
        f"stable {analysis.stable_rank(D):4.1f}, k90 {analysis.k90(D):>2}"
    )

singular = analysis.singular_values
stronger = 0
for p in W:
    stronger += singular(delta["lora"][p])[3] > singular(delta["full"][p])[0]
print("\nLoRA's fourth is larger than full's first in ", end="")
print(f"{stronger} of {len(W)} matrices")
by_chance = analysis.singular_values(noise)
above = np.sum(analysis.singular_values(delta["full"][path]) > by_chance)
print(f"full's directions that are stronger than those of the random matrix: {above}")

# %% tags=["hide-input"]
shipped = shipped_rows("spectrum")  # three seeds, more ranks; what it is comes below
powers = [1, 2, 4, 8, 16, 32, 64, 128]
dotted = {"color": "0.45", "ls": ":", "lw": 1.8, "label": "random matrix"}

with ml.plots.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    marked = [i - 1 for i in powers]
    for method, marker in (("full", "o"), ("lora", "s")):
        S = analysis.singular_values(delta[method][path])
        S = S[S / S[0] > 1e-5]  # the others are 0 but for rounding, and 0 has no logarithm
        look = {"color": ml.plots.COLORS[method], "marker": marker}
        left.plot(range(1, len(S) + 1), S, markevery=[i for i in marked if i < len(S)], **look)
    left.plot(range(1, 129), by_chance, **dotted)
    left.set(xscale="log", yscale="log", xlabel="index i of the singular value", ylabel="σᵢ")
    left.set_xticks(powers, powers)
    left.set_xticks([], minor=True)
    left.set_ylim(1e-4, 4)
    left.set_title(f"Here: {path}")
    plot_spectrum([row for row in select(shipped, task="code") if row["r"] != 1], right)
    right.plot(range(1, 129), by_chance / by_chance[0], **dotted)
    right.set_title("Mean: all matrices, three seeds")
    lines, labels = right.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3)
    ml.plots.show(
        figure,
        "Singular values of ΔW on log scales. Full fine-tuning's fall slowly over "
        "all 128 directions, LoRA's of rank 4 are larger and end after four; a "
        "random matrix is flatter.",
    )

# %% [markdown]
# **What to see.** Left: full fine-tuning moves every direction there is, many of them a little. Its
# line falls slowly over most of the directions and steeply only among the last few; there is no
# place, as there is at 4 for LoRA, after which nothing comes. LoRA moves four, and in this matrix
# each of them further than full fine-tuning moves any. Right: the same for other ranks, each
# matrix's σ divided by its largest. (Rank 1 is left out: it would be one point, at 1.)
#
# And the dotted line: a random matrix has high ranks too, and they are *not* the width of 128. On
# the left it is as large as full fine-tuning's ΔW. Full fine-tuning has sixteen or so directions
# that are stronger than chance would make them, and the rest is weaker. So its ΔW is neither of low
# rank nor without structure.
#
# **What it does not show.** Whether the weak directions matter for the loss. To be small is not to
# be useless, so we shall have to cut them off and look.
#
# One training is one training. The package has a study of these numbers with three seeds, four
# ranks and a second task: `reverse`, in which another small model, 64 numbers wide, learns to write
# words backwards. Here are means over matrices and seeds; s falls as the rank grows, so that all
# ranks can have the same learning rate. The last column is the *relative norm* ‖ΔW‖ / ‖W‖: how
# large the change is beside what was there. The random matrices are square, as those of attention.

# %%
settings = [("full", None)] + [("lora", r) for r in (1, 4, 16, 64)]
keys = ("effective_rank", "stable_rank", "k90", "relative_norm")
rng = np.random.default_rng(1)
for task, width in (("code", 128), ("reverse", 64)):
    print(f"{task} (of {width})    effective rank  stable rank    k90  relative norm")
    for method, r in settings:
        rows = select(shipped, task=task, method=method, r=r)
        means = [mean(row[key] for row in rows) for key in keys]
        name = "full" if r is None else f"LoRA, r = {r}, s = {rows[0]['s']:g}"
        print(f"{name:<21} {means[0]:>10.1f} {means[1]:>12.1f} ", end="")
        print(f"{means[2]:>6.1f} {means[3]:>14.2f}")
    D = rng.standard_normal((width, width))
    print(f"{'random':<21} {analysis.effective_rank(D):>10.1f} ", end="")
    print(f"{analysis.stable_rank(D):>12.1f} {analysis.k90(D):>6.1f}\n")

# %% [markdown]
# So the picture holds for both tasks. Full fine-tuning's ΔW has an effective rank of more than half
# the width (a random matrix: four fifths of it), and needs dozens of directions for 90 per cent on
# code, fifteen or so on reverse (a random matrix: half the width). LoRA of rank 4 uses most of its
# four directions, but LoRA of rank 64 by no means uses sixty-four: an effective rank well below r
# says that most of the strength lies in a few directions, while the others are weak, but there.
#
# And LoRA's change is *larger* than full fine-tuning's, at every rank and on both tasks, at rates
# that suit each: fewer directions, each pushed further.
#
# ### Is it the optimizer?
#
# AdamW gives every entry of W a step of about the same size, which might be what fills all the
# directions. So we train once more, with plain gradient descent with momentum (SGD, see lesson 03).

# %%
plain = set_up(TASK, "full", 0, lr=0.3, steps=STEPS)
plain.training.optimizer = ml.SGD(plain.training.params, lr=0.3, momentum=0.9)
run([plain.training], threads=1, quiet=False)

changes = {"AdamW": delta["full"], "SGD": analysis.delta_weights(base, plain.model)}
print("full fine-tuning, mean over the twelve matrices")
for name, change in changes.items():
    model = full.model if name == "AdamW" else plain.model
    moved = mean(analysis.relative_norm(change[p], W[p]) for p in W)
    effective = mean(map(analysis.effective_rank, change.values()))
    stable = mean(map(analysis.stable_rank, change.values()))
    print(f"{name:<6} loss {test_loss(model):.2f}, ", end="")
    print(f"effective rank {effective:.0f}, ", end="")
    print(f"stable rank {stable:.0f}, relative norm {moved:.2f}")

# %% [markdown]
# It is not: SGD's ΔW has as many directions. Each step's gradient is a sum over 12 × 64 positions
# of the text, and there are 300 steps, each with other text. (`minilora study delta_over_training`
# has three seeds of both, step by step.)
#
# None of this shows that a high rank is *needed*. These are the weights that an optimizer happened
# to find with nothing to hold it back.
#
# ## Is full fine-tuning's ΔW of low rank?
#
# It is often said that LoRA works *because* the change of the weights in fine-tuning has a low
# rank. This can be tested: take the fully tuned model, keep of every ΔW only the k strongest
# directions, and measure again.
#
# ### Exercise 7.3: truncate
#
# *Difficulty 2 of 5, 5 minutes.* Return the matrix that has the k strongest directions of `M` and
# no other.


# %%
def truncate(M: np.ndarray, k: int) -> np.ndarray:
    """The matrix of rank k nearest to M (d_in, d_out)."""
    # SOLUTION
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vt[:k]
    # END SOLUTION


# %%
check.truncate(truncate)

# %% [markdown]
# Only the matrices are cut. What full fine-tuning has done to embeddings, biases and norms stays,
# which is in its favour: LoRA does not have these changes. The row k = 0 is what they are worth.


# %%
def cut(k: int) -> float:
    """Test loss of the fully tuned model, every ΔW cut to rank k."""
    model = copy.deepcopy(full.model)
    for path, D in delta["full"].items():
        model.get_submodule(path).weight.data[...] = W[path] + analysis.truncate(D, k)
    return test_loss(model)


truncation, sweep = shipped_rows("truncation"), shipped_rows("rank_sweep")
live = {k: cut(k) for k in (0, 1, 4, 16, 128)}


def summary(rows: list, **where: object) -> str:
    values = [row["test"] for row in select(rows, **where)]
    if not values:
        return ""
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


print("code, loss   full, cut to k                  LoRA trained at r = k")
print("  k     here   3 seeds: mean, range      3 seeds: mean, range")
for k, loss in live.items():
    trained = summary(sweep, task="code", method="lora", r=k)
    ours = summary(truncation, task="code", k=k)
    print(f"{k:>3} {loss:>8.2f}   {ours}      {trained}".rstrip())

print("\nreverse, share of test words exactly right, mean and range of 3 seeds")
for k in (1, 4, 8):
    print(f"  full, cut to k = {k}   {summary(truncation, task='reverse', k=k)}")
print(f"  LoRA at r = 1         {summary(sweep, task='reverse', r=1)}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    for ax, task in zip(panels, ("code", "reverse"), strict=True):
        plot_truncation(select(truncation, task=task), select(sweep, task=task), ax)
    crosses = {"ls": "", "marker": "x", "ms": 8, "mew": 1.5, "zorder": 3}
    panels[0].plot(list(live), list(live.values()), color="black", label="full, here", **crosses)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3)
    ml.plots.show(
        figure,
        "Quality of full fine-tuning cut to rank k beside LoRA trained at rank k. "
        "At low ranks LoRA is far better on both tasks; from about 16 on code and 8 "
        "on reverse they are alike.",
    )

# %% [markdown]
# **What to see.** Left, lower is better; right, higher. LoRA trained at rank 1 is better than full
# fine-tuning cut to rank 4. On `reverse` it is starker still: trained at rank 1, LoRA reverses
# every test word (with this base model; with another, rank 2 was not enough, see lesson 06); cut to
# rank 1, full fine-tuning reverses next to none.
#
# But the blue lines catch up. On code the cut model is within 0.02 of LoRA of the same rank at
# k = 16. On `reverse` it has most words right with 4 of 64 directions, and with 8 it is
# back at 98 per cent or more. So the update is not of rank 1 or 2, but what matters of it is far
# from full rank.
#
# So, for this model and these tasks:
#
# > **That a low-rank solution exists is not that full fine-tuning's update is low-rank.**
#
# There are many changes of W that solve a task. Full fine-tuning takes one that is spread over many
# directions, because nothing asks it not to. LoRA may only look among those of low rank, and finds
# one there that is nearly as good. What LoRA needs is that there *is* one.
#
# **What it does not show.** The best model of rank k near full fine-tuning's: nearest in Frobenius
# norm is not best in loss (lesson 06 shows why), and training on after the cut may help.
#
# The main statements of this part are tested whenever this lesson is built:


# %%
def tests(rows: list, **where: object) -> list[float]:
    return [row["test"] for row in select(rows, **where)]


for task, width in (("code", 128), ("reverse", 64)):
    of_full = select(shipped, task=task, method="full")
    assert mean(row["effective_rank"] for row in of_full) > width / 2
    for r in (1, 4, 16, 64):
        of_lora = select(shipped, task=task, method="lora", r=r)
        moved = mean(row["relative_norm"] for row in of_lora)
        assert moved > mean(row["relative_norm"] for row in of_full)
ranks = {}
for name, change in changes.items():
    ranks[name] = mean(map(analysis.effective_rank, change.values()))
assert ranks["SGD"] > 0.9 * ranks["AdamW"]
cuts = {k: tests(truncation, task="code", k=k) for k in (4, 16)}
trained = {r: tests(sweep, task="code", r=r) for r in (1, 16)}
assert min(cuts[4]) > max(trained[1]) and mean(cuts[16]) < mean(trained[16]) + 0.02
reverse = {k: tests(truncation, task="reverse", k=k) for k in (1, 4, 8)}
assert max(reverse[1]) < 0.05 and min(reverse[4]) > 0.5 and min(reverse[8]) >= 0.98
print("all hold")

# %% [markdown]
# **Does it hold at scale?** As to ranks, yes: full fine-tuning of Llama-2-7B changes its matrices
# by a ΔW of 10 to 100 times the rank that LoRA usually has (Biderman et al. 2024). For the norm
# there is one number: on GPT-3, LoRA of r = 4 changes a $W_q$ of norm 61.95 by 6.91 (Hu et al.
# 2021, Table 7), a share of 0.11, where it is about 0.37 here. Of a cut like ours at scale we know
# nothing.
#
# ### Predict, change, run: keep k directions
#
# Look at the table: k = 4 and k = 16 are there. What is the loss with k = 8?

# %%
K = 8  # change me: 2, 32, 64
GUESS = ...

check.predict(GUESS, cut(K), unit="nats per character", within=0.02)

# %% [markdown]
# ### Exercise 7.4, a small project: how was it tuned?
#
# *Difficulty 4 of 5, 20 minutes.* You get the weights of a model `before` and `after` tuning, by
# name, in float32, and nothing else: an adapter, if there was one, has been merged. Return
# `("LoRA", r)` with the rank of the adapter, or `("full", rank)` with the highest rank of any ΔW.
#
# The difficulty is rounding. When ΔW is added to W, each entry is rounded by up to 6e-8 of its
# size, and a ΔW of rank 4 comes back with a full rank of tiny singular values. Errors of Frobenius
# norm e change no singular value by more than e. So count a singular value of ΔW only if it is
# above `np.finfo(np.float32).eps * np.linalg.norm(W_after)`, for which eps is 1.2e-7: twice the
# rounding that there can be. Subtract in float64. Call it full if a ΔW has the highest rank that
# its shape allows.


# %%
def tuned_how(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray]
) -> tuple[str, int]:  # fmt: skip
    """("LoRA", rank) or ("full", rank), from weights (d_in, d_out) in float32."""
    # SOLUTION
    rank, method = 0, "LoRA"
    for name, W_after in after.items():
        delta = W_after.astype(np.float64) - before[name]
        S = np.linalg.svd(delta, compute_uv=False)
        found = int(np.sum(np.finfo(np.float32).eps * np.linalg.norm(W_after) < S))
        rank = max(rank, found)
        if found == min(delta.shape):
            method = "full"
    return method, rank
    # END SOLUTION


# %%
check.tuned_how(tuned_how)

# %% [markdown]
# Now use it on the models of this lesson, with the adapter merged into the weights and thrown away.
# The right answers are LoRA of rank 4 and full fine-tuning of rank 128. (Until you solve the
# exercise, this shows None.)

# %%
merged = copy.deepcopy(lora.model)
ml.merge_and_unload(merged)


def weights(model: ml.Transformer) -> dict[str, np.ndarray]:
    return {path: model.get_submodule(path).weight.data for path in W}


print("merged adapter, your answer:  ", tuned_how(weights(base), weights(merged)))
print("full fine-tuning, your answer:", tuned_how(weights(base), weights(full.model)))

# %% [markdown]
# It has limits. An adapter whose rank reaches the width of the matrix looks like full fine-tuning.
# So does DoRA, which also rescales the columns of W, so that its ΔW is not of low rank.
#
# ---
#
# ## Part two: comparing directions
#
# *10 minutes to read, 30 with its two exercises.* Part one counted directions. Which ones are they?
# Three questions of the literature, each with its level of chance, without which none of the
# numbers means anything: do two trainings find the same directions, does ΔW strengthen what W does
# already, and does the tuned weight have strong directions that W did not have?
#
# ### What to compare
#
# Not A with A, and not B with B. Take any invertible r × r matrix C: A C and C⁻¹ B are another pair
# of factors with the same ΔW. The numbers in A and B are an accident; ΔW, and the *space* that the
# columns of A span, are not.

# %%
layer = lora.model.get_submodule("layers.0.attn.q_proj").adapters["default"]
A, B = (factor.data.astype(np.float64) for factor in (layer.A, layer.B))
C = np.random.default_rng(0).standard_normal((4, 4))
print(f"entries of A that stay the same: {np.sum(np.isclose(A @ C, A))} of {A.size}")
print("same ΔW:", np.allclose((A @ C) @ (np.linalg.inv(C) @ B), A @ B))

# %% [markdown]
# ### Do two trainings find the same directions?
#
# If a task called for certain directions, different trainings should find them. We compare what two
# LoRAs *read*: x A keeps of x only what lies along the columns of A. How near are two such spaces?
# For two lines, the answer is the squared cosine of their angle: 1 for the same line, 0 for
# orthogonal ones. For spaces of more dimensions Hu et al. (2021, section 7.2) use
#
# $$\varphi(i, j) = \frac{\| U_i^T U'_j \|^2}{\min(i, j)}$$
#
# where $U_i$ has the i strongest input directions of one A as columns, and $U'_j$ the j strongest
# of the other. It is 1 if one space holds the other, and 0 if they are orthogonal. In d dimensions,
# the squared cosine of two *random* directions is 1/d on average, and φ(i, j) is max(i, j) / d. In
# a small model that is large: with d = 64 and j = 64, φ is 1 for no reason at all.
#
# ### Exercise 7.5: similarity of two spaces
#
# *Difficulty 3 of 5, 8 minutes.* The columns of `U` are i orthogonal directions of length 1, those
# of `V` are j. Compute φ(i, j).


# %%
def similarity(U: np.ndarray, V: np.ndarray) -> float:
    """φ of the spaces spanned by the columns of U (d, i) and V (d, j)."""
    # SOLUTION
    return float(np.sum((U.T @ V) ** 2)) / min(U.shape[1], V.shape[1])
    # END SOLUTION


# %%
check.similarity(similarity)

# %% [markdown]
# Now a second training, with another seed: another random A at the start, and other batches. We
# take the mean over the matrices that read the stream of 128 numbers (`down_proj` reads another),
# and beside it the same for the A's *before* training. The last column compares an A with its own
# start.

# %%
other = ml.tune(TASK, "lora", seed=1, lr=1e-2, r=4, **options).model
starts = [set_up(TASK, "lora", seed, r=4).model for seed in (0, 1)]  # not trained


def what_it_reads(model: ml.Transformer) -> dict[str, np.ndarray]:
    """A (128, 4) by path."""
    layers = {path: layer for path, layer in model.named_modules() if path in W}
    A = {path: layer.adapters["default"].A.data for path, layer in layers.items()}
    return {path: factor for path, factor in A.items() if len(factor) == 128}


def mean_similarity(one: ml.Transformer, two: ml.Transformer) -> np.ndarray:
    """φ(i, i) for i = 1 ... 4, mean over the matrices."""
    X, Y = what_it_reads(one), what_it_reads(two)
    pairs = [analysis.subspace_similarities(X[p], Y[p]) for p in X]
    return np.mean([np.diag(pair) for pair in pairs], axis=0)


both, before = mean_similarity(lora.model, other), mean_similarity(*starts)
memory = mean_similarity(lora.model, starts[0])
print("          seeds 0 and 1              chance,   seed 0 and")
print("  i   trained   before training    i / 128   its own start")
for i in range(4):
    chance = (i + 1) / 128
    print(f"{i + 1:>3} {both[i]:>9.2f} {before[i]:>17.2f} {chance:>10.2f} ", end="")
    print(f"{memory[i]:>15.2f}")

# %% [markdown]
# Trained from different starts on different batches, the two read spaces that are more alike than
# chance, and still far from the same. The last column is a warning: A has moved, but it remembers
# where it started. Two trainings with the same seed and rank share their start, so they would look
# alike even if they had learned nothing in common. That is why the seeds must differ. The study of
# the package compares ranks 8 and 64, as the paper does:

# %% tags=["hide-input"]
subspace = select(shipped_rows("subspace_similarity"), r=8, r_other=64)
for task in ("code", "reverse"):
    for i in (1, 8):
        rows = select(subspace, task=task, i=i, j=i)
        trained, at_start = (mean(row[key] for row in rows) for key in ("phi", "phi_start"))
        print(f"{task:<8} φ({i}, {i}) = {trained:.2f}, before training {at_start:.2f}")

with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    shown = [row for row in select(subspace, task="code") if row["i"] in (1, 8)]
    plot_subspace_similarity(shown, ax)
    ax.legend(loc="upper left")
    ml.plots.show(
        figure,
        "Similarity of what LoRA of rank 8 and of rank 64 read, by the number of "
        "directions: each trained pair lies above its untrained starts, and both "
        "rise with the number.",
    )

# %% [markdown]
# Every solid line lies above its dashed one: some directions are found by both. The paper's result
# for GPT-3, that ranks 8 and 64 share one direction with a similarity above 0.5, did *not* hold
# here: φ(1, 1) is well above chance, and far below that.
#
# ### Amplification
#
# Does ΔW do something new, or strengthen what W does already? Hu et al. (section 7.3) take the r
# strongest directions U, V of ΔW and ask how strong W is along them, $\|U^T W V\|$. The ratio of
# ‖ΔW‖ to that is the *amplification factor*. We take r = 4 for one matrix, and beside it the
# paper's Table 7.

# %%
path = "layers.1.attn.q_proj"
print(f"{'':<26} {'‖ΔW‖':>6}   ‖UᵀWV‖ with the directions of        factor")
print(f"{path:<26} {'':>6} {'ΔW':>8} {'W itself':>10} {'chance':>8}")
for method in ("full", "lora"):
    rng = np.random.default_rng(0)
    a = analysis.amplification(W[path], delta[method][path], 4, rng=rng)
    print(f"{method:<26} {a.delta_norm:>6.2f} {a.projected:>8.2f} ", end="")
    print(f"{a.own:>10.2f} {a.random:>8.2f} {a.factor:>12.1f}")
print(f"{'GPT-3, LoRA r = 4 (paper)':<26} {6.91:>6} {0.32:>8} ", end="")
print(f"{21.67:>10} {0.02:>8} {21.5:>12}")

# %% [markdown]
# As in the paper, W has far less along LoRA's directions than along its own, and ΔW makes it many
# times as strong. In the paper W has 0.32 along those of ΔW and 0.02 by chance; from this it
# concludes that ΔW turns up what W already has, but does not stress. Here W has little more along
# them than by chance. So that conclusion we cannot draw.
#
# ### Intruder dimensions
#
# Shuttleworth et al. (2024) look at the tuned weight W + ΔW instead of ΔW. Take one of its k = 10
# strongest output directions. If none of the output directions of W is like it, that is, if every
# |cosine| is below ε = 0.5, they call it an *intruder*: a strong direction that the base model did
# not have.
#
# ### Exercise 7.6: count the intruders
#
# *Difficulty 3 of 5, 10 minutes.* How many of the k strongest output directions of `W_after` have a
# |cosine| below `epsilon` with every output direction of `W`?


# %%
def intruders(W: np.ndarray, W_after: np.ndarray, k: int, epsilon: float) -> int:
    """The number of intruder dimensions; W and W_after are (d, d)."""
    # SOLUTION
    Vt, Vt_after = np.linalg.svd(W)[2], np.linalg.svd(W_after)[2]
    cosines = np.abs(Vt @ Vt_after[:k].T)  # (d, k)
    return int(np.sum(cosines.max(axis=0) < epsilon))
    # END SOLUTION


# %%
check.intruders(intruders)

# %% [markdown]
# ### Predict, change, run: what chance gives
#
# Again chance comes first. How large is the best |cosine| of a *random* direction with those of W,
# in D dimensions?

# %%
D = 64  # change me: 16, 128, 768, 4096
GUESS = ...

best = analysis.chance_best_cosine(D, np.random.default_rng(0))
check.predict(GUESS, best, unit="at best")

# %% [markdown]
# In a wide model a cosine of 0.5 is far above chance; at d = 64 it is not so far. So a count with a
# fixed ε cannot be compared between models of different widths. Here are the counts of the study.

# %%
for task, width in (("code", 128), ("reverse", 64)):
    chance = analysis.chance_best_cosine(width, np.random.default_rng(0))
    print(f"{task}, d = {width}: ", end="")
    print(f"a random direction has a best |cosine| of {chance:.2f}")
    for method, r in settings:
        rows = select(shipped, task=task, method=method, r=r)
        count = mean(row["intruders"] for row in rows)
        norm = mean(row["relative_norm"] for row in rows)
        name = "full" if r is None else f"LoRA, r = {r}"
        print(f"  {name:<13} {count:.1f} intruders of 10, ‖ΔW‖ / ‖W‖ = {norm:.2f}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained", sharey=True)
    for ax, (task, width) in zip(panels, (("code", 128), ("reverse", 64)), strict=True):
        for (method, r), marker in zip(settings, "osDv^", strict=True):
            rows = select(shipped, task=task, method=method, r=r)
            color = ml.plots.COLORS["full"] if r is None else ml.plots.rank_color(r)
            points = [select(rows, path=path) for path in {row["path"]: None for row in rows}]
            x, y = (
                [mean(row[key] for row in same) for same in points]
                for key in ("relative_norm", "intruders")
            )
            name = "full fine-tuning" if r is None else f"LoRA, r = {r}"
            ax.plot(x, y, marker, ms=5, mfc="none", mec=color, alpha=0.7)
            ax.plot(mean(x), mean(y), marker, color=color, ms=11, mec="white", label=name)
        ax.set(xscale="log", xlabel="relative norm ‖ΔW‖ / ‖W‖", title=f"{task}, d = {width}")
        ax.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        ax.set_xticks([], minor=True)
    panels[0].set_ylabel("intruders of 10")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=5)
    ml.plots.show(
        figure,
        "Intruders against the relative norm of ΔW, each matrix a small mark and "
        "each method's mean a large one: the more a matrix has changed, the more "
        "intruders it tends to have.",
    )

# %% [markdown]
# A small open mark is one matrix, mean of three seeds; a large one is the mean over all matrices.
# On code, LoRA has more intruders than full fine-tuning at every rank. On reverse LoRA has more
# from rank 4 on; with rank 1 it has fewer, as one new direction can hardly make more than one
# intruder. And matrices that changed more tend to have more of them.
#
# That is no cause: rank, norm and learning rate all differ between the methods. Nor does it show
# harm. Shuttleworth et al. connect intruders with forgetting. Here that did not hold: to scale down
# only the intruders is worse on both tasks than to scale all of ΔW (`minilora study
# intruders_by_lambda`), so they carry what was learned. And "intruders are LoRA's mark" is too
# strong: full fine-tuning has them too where its ΔW is large, as on reverse.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 07`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - What is of low rank in LoRA: W, ΔW, or the tuned weight W + ΔW?
# - Is the update of full fine-tuning of low rank? Does LoRA's success show that it is?
# - What do rank, effective rank, stable rank and k90 say of a spectrum, and what error is left when
#   it is cut?
# - Is the ΔW of LoRA smaller than that of full fine-tuning?
# - Part two: are A and B determined by ΔW? What does ΔW amplify? What is an intruder dimension, and
#   why must similarities stand beside the level of chance?
#
# ## Where to read on
#
# - Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, sections 7.2 (similarity
#   of subspaces, equation 4 and Figure 3) and 7.3 (amplification, Table 7).
# - Biderman et al. 2024, *LoRA Learns Less and Forgets Less* (the spectrum of full fine-tuning's
#   ΔW in a model of 7 billion parameters).
# - Shuttleworth et al. 2024, *LoRA vs Full Fine-tuning: An Illusion of Equivalence* (intruder
#   dimensions).
# - Roy and Vetterli 2007, *The effective rank: A measure of effective dimensionality*.
# - In this package: `minilora/analysis/`, and `minilora study` in a terminal.
