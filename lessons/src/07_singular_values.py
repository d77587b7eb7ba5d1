# %% [markdown]
# # 07 · The singular values of ΔW
#
# **The question.** What does the change of the weights look like, under full fine-tuning and under
# LoRA?
#
# **You will be able to**
#
# - read the singular values of a matrix, and compute its rank, effective rank, stable rank and k90;
# - say what is and what is not low-rank about fine-tuning;
# - compare what two trainings have learned, and say what chance alone would give;
# - find intruder dimensions, and say how far to trust the count;
# - tell, in clear cases, from the weights alone how a model was tuned.
#
# **Time to run:** 30 seconds. **Before this:** you know what a matrix product is, and that LoRA
# leaves the weights W of a model as they are and learns a change of them, ΔW = s A B (lesson 05 has
# a picture).

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora import analysis
from minilora.experiments.tuning import set_up
from minilora.learn import check
from minilora.studies import shipped_rows
from minilora.studies.spectrum import plot_spectrum
from minilora.studies.subspace_similarity import plot_subspace_similarity
from minilora.studies.truncation import plot_truncation

# %% [markdown]
# ## A picture
#
# A matrix M turns a row x into the row x M. Feed it every x of length 1, which is a circle if x has
# two numbers. What comes out is an ellipse. The lengths of its two half-axes are the *singular
# values* of M, the larger called σ₁ and the smaller σ₂.

# %%
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
    plt.show()

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
u1, u2 = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, 1.0])  # input directions, d_in = 3
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
# norm* ‖M‖, the usual measure of how large a matrix is.

# %%
spectra = {
    "four equal": [1, 1, 1, 1],
    "each half of the last": [8, 4, 2, 1],
    "one strong, three weak": [8, 0.5, 0.5, 0.5],
    "one": [8, 0, 0, 0],
}
print(f"{'singular values':<24} {'rank':>6} {'effective':>10} {'stable':>8} {'k90':>5}")
for name, values in spectra.items():
    M = np.diag(values)  # a diagonal matrix has its entries as singular values
    print(
        f"{name:<24} {np.linalg.matrix_rank(M):>6} {analysis.effective_rank(M):>10.2f} "
        f"{analysis.stable_rank(M):>8.2f} {analysis.k90(M):>5}"
    )

# %% [markdown]
# For n equal values all four say n. As soon as one direction dominates, they part: the stable rank
# and k90 look at the strong directions, the effective rank lets the weak ones count too.

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
    """The fewest directions with 90 per cent of the sum of squares of S (n,), largest first."""
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
# it Python code, once by full fine-tuning and twice by LoRA of rank 4, with different *seeds*: a
# seed decides where A starts and which batches are drawn. Each method gets a learning rate
# that suits it. The losses are on a test text, in nats per character; lower is better.

# %%
base = ml.load_model("docs-tiny")
corpus = ml.load_corpus("code")
# `tune` trains the task's base model, docs-tiny, for 300 steps on code.
full = ml.tune("code", "full", seed=0, lr=1e-3, quiet=False).model
lora = ml.tune("code", "lora", seed=0, lr=1e-2, quiet=False).model  # r = 4, s = alpha / r = 2
other = ml.tune("code", "lora", seed=1, lr=1e-2, quiet=False).model

named = {"base": base, "full": full, "LoRA, seed 0": lora, "LoRA, seed 1": other}
for name, model in named.items():
    print(f"{name:<13} {ml.text_loss(model, corpus.test):.2f}")

# %% [markdown]
# The model has two blocks of six matrices each. ΔW is the weight after training minus the weight
# before, whichever way it was trained; for LoRA this is s A B.

# %%
W = analysis.weight_matrices(base)
delta = {
    "full": analysis.delta_weights(base, full),
    "lora": analysis.delta_weights(base, lora),
}
sigma = {
    method: {path: analysis.singular_values(D) for path, D in changes.items()}
    for method, changes in delta.items()
}

path = "layers.0.attn.q_proj"
print(f"the ten largest singular values of ΔW of {path}, {W[path].shape}")
for method in sigma:
    print(f"  {method:<5}", *(f"{s:6.3f}" for s in sigma[method][path][:10]))

stronger = sum(sigma["lora"][p][3] > sigma["full"][p][0] for p in W)
late = ", ".join(f"{sigma['full'][path][i - 1]:.4f}" for i in (64, 120, 128))
print(f"\nfull's 64th, 120th and 128th: {late}")
print(f"LoRA's fourth is larger than full's first in {stronger} of {len(W)} matrices")

# %%
shipped = shipped_rows("spectrum")  # three seeds, more ranks; what it is comes below
powers = [1, 2, 4, 8, 16, 32, 64, 128]

with ml.plots.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    marked = [i - 1 for i in powers]
    for method, marker in (("full", "o"), ("lora", "s")):
        S = sigma[method][path]
        S = S[S / S[0] > 1e-5]  # the others are 0 but for rounding, and 0 has no logarithm
        look = {"color": ml.plots.COLORS[method], "marker": marker}
        left.plot(range(1, len(S) + 1), S, markevery=[i for i in marked if i < len(S)], **look)
    left.set(xscale="log", yscale="log", xlabel="index i of the singular value", ylabel="σᵢ")
    left.set_xticks(powers, powers)
    left.set_xticks([], minor=True)
    left.set_ylim(1e-4, 4)
    left.set_title(f"Here: {path}")
    shown = [row for row in shipped if row["task"] == "code" and row["r"] != 1]
    plot_spectrum(shown, right)
    right.set_title("Mean: all matrices, three seeds")
    lines, labels = right.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=5)
    plt.show()

# %% [markdown]
# **What to see.** Left: full fine-tuning moves every direction there is, many of them a little. Its
# line falls slowly over most of the directions and steeply only among the last few; there is no
# place, as there is at 4 for LoRA, after which nothing comes. LoRA moves four, and in this matrix
# each of them further than full fine-tuning moves any; there its line ends, as the other singular
# values are 0. Right: the same for other ranks, each matrix's σ divided by its largest. (Rank 1 is
# left out: it would be one point, at 1.)
#
# **What it does not show.** Whether the weak directions matter for the loss. To be small is not to
# be useless, so we shall have to cut them off and look.
#
# The same in numbers. The last columns are the *relative norm* ‖ΔW‖ / ‖W‖: how large the change is
# beside what was there.

# %%
print(f"{'':<22} {'effective rank':>15} {'stable rank':>13} {'k90':>10} {'relative norm':>15}")
print(f"{'matrix':<22} {'full':>9} {'LoRA':>5}" + f" {'full':>7} {'LoRA':>5}" * 2, end="")
print(f" {'full':>9} {'LoRA':>5}")
for path in W:
    a, b = delta["full"][path], delta["lora"][path]
    print(
        f"{path:<22} {analysis.effective_rank(a):>9.1f} {analysis.effective_rank(b):>5.1f} "
        f"{analysis.stable_rank(a):>7.1f} {analysis.stable_rank(b):>5.1f} "
        f"{analysis.k90(a):>7} {analysis.k90(b):>5} "
        f"{analysis.relative_norm(a, W[path]):>9.2f} {analysis.relative_norm(b, W[path]):>5.2f}"
    )

# %% [markdown]
# One training is one training. The package has the results of a study of these numbers with three
# seeds, four ranks and a second task: `reverse`, in which another small model, 64 numbers wide,
# learns to write words backwards. Here are means over matrices and seeds; s falls as the
# rank grows, so that all ranks can have the same learning rate.


# %%
def mean(rows: list, key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


settings = [("full", None)] + [("lora", r) for r in (1, 4, 16, 64)]
keys = ("effective_rank", "stable_rank", "k90", "relative_norm", "intruders")
for task, width in (("code", 128), ("reverse", 64)):
    print(
        f"{task} (of {width})    effective rank  stable rank    k90  relative norm  intruders of 10"
    )
    for method, r in settings:
        rows = [x for x in shipped if (x["task"], x["method"], x["r"]) == (task, method, r)]
        values = [mean(rows, key) for key in keys]
        name = "full" if r is None else f"LoRA, r = {r}, s = {rows[0]['s']:g}"
        print(
            f"{name:<21} {values[0]:>10.1f} {values[1]:>12.1f} {values[2]:>6.1f} "
            f"{values[3]:>14.2f} {values[4]:>16.1f}"
        )
    print()

# %% [markdown]
# So the picture holds for both tasks. Full fine-tuning's ΔW has an effective rank of more than half
# the width, and needs dozens of directions for 90 per cent on code, fifteen or so on reverse. LoRA
# of rank 4 uses most of its four directions, but LoRA of rank 64 by no means uses sixty-four.
#
# And LoRA's change is *larger* than full fine-tuning's, at every rank and on both tasks: fewer
# directions, each pushed further.
#
# None of this shows that a high rank is *needed*. These are the weights that gradient descent
# happened to find with nothing to hold it back. (Intruders, the last column, come later.)
#
# ## Is full fine-tuning's ΔW of low rank?
#
# It is often said that LoRA works *because* the change of the weights in fine-tuning has a low
# rank. This can be tested. Take the fully tuned model, keep of every ΔW only the k strongest
# directions, and measure again. By a theorem of Eckart and Young (1936) no matrix of rank k is
# nearer to ΔW.
#
# Only the matrices are cut. What full fine-tuning has done to embeddings, biases and norms stays,
# which is in its favour: LoRA does not have these changes. The row k = 0 is what they are worth.


# %%
def cut(k: int) -> float:
    """Test loss of the fully tuned model, every ΔW cut to rank k."""
    model = copy.deepcopy(full)
    for path, D in delta["full"].items():
        model.get_submodule(path).weight.data[...] = W[path] + analysis.truncate(D, k)
    return ml.text_loss(model, corpus.test)


truncation, sweep = shipped_rows("truncation"), shipped_rows("rank_sweep")
live = {k: cut(k) for k in (0, 1, 2, 4, 8, 16, 32, 64, 128)}

print("          full, cut to k                 LoRA trained at r = k")
print("  k     here   3 seeds: mean, range      3 seeds: mean, range")
for k, loss in live.items():
    print(f"{k:>3} {loss:>8.2f}", end="")
    trained = [row["test"] for row in sweep if row["task"] == "code" and row["r"] == k]
    cuts = [row["test"] for row in truncation if row["task"] == "code" and row["k"] == k]
    for values in (cuts, trained):
        if values:
            print(f"   {np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})  ", end="")
    print()
print(f"\nHere, LoRA trained at r = 4: {ml.text_loss(lora, corpus.test):.2f}")

print("\nreverse, share of test words exactly right, mean and range of 3 seeds")
for name, rows, key in (("full, cut to k", truncation, "k"), ("LoRA at r", sweep, "r")):
    for k in (1, 4, 8) if key == "k" else (1,):
        values = [row["test"] for row in rows if row["task"] == "reverse" and row[key] == k]
        found = f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"  {name + f' = {k}':<18} {found}")

# %%
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(7.8, 3.6), layout="constrained")
    for ax, task in zip(panels, ("code", "reverse"), strict=True):
        plot_truncation(
            [row for row in truncation if row["task"] == task],
            [row for row in sweep if row["task"] == task],
            ax,
        )
    crosses = {"ls": "", "marker": "x", "ms": 8, "mew": 1.5, "zorder": 3}
    panels[0].plot(list(live), list(live.values()), color="black", label="full, here", **crosses)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3)
    plt.show()

# %% [markdown]
# **What to see.** Left, lower is better; right, higher. LoRA trained at rank 1 is better than full
# fine-tuning cut to rank 4. On `reverse` it is starker still: trained at rank 1, LoRA reverses
# every test word (with this base model; with another, rank 2 was not enough, see lesson 06); cut to
# rank 1, full fine-tuning reverses next to none.
#
# But the blue lines catch up. On code the cut model is within about 0.01 of LoRA of the same rank
# from k = 16 on. On `reverse` it has most words right with 4 of 64 directions, and with 8 it is
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
# norm is not best in loss, and training on after the cut may help. Nor does it show what holds
# for large models; but Biderman et al. (2024) report of Llama-2-7B that the ΔW of full fine-tuning
# had 10 to 100 times the rank of a typical LoRA.
#
# ## Do two trainings find the same directions?
#
# If a task called for certain directions, different trainings should find them. We compare what two
# LoRAs *read*: x A keeps of x only what lies along the columns of A. How near are two such spaces?
#
# For two lines, the answer is the angle between them, or its squared cosine, which is 1 for the
# same line and 0 for orthogonal ones. For spaces of more dimensions there are several angles: the
# smallest between any direction of one and any of the other, then the smallest among what is
# orthogonal to these two, and so on. They are called *principal angles*. Hu et al. (2021, section
# 7.2) use the mean of their squared cosines:
#
# $$\varphi(i, j) = \frac{\| U_i^T U'_j \|^2}{\min(i, j)}$$
#
# where $U_i$ has the i strongest input directions of one A as columns, and $U'_j$ the j strongest
# of the other.
#
# Before any such number means something, we need to know what chance gives. In d dimensions, the
# squared cosine of two random directions is 1/d on average, and φ(i, j) is max(i, j) / d.

# %%
rng = np.random.default_rng(0)
dims = np.arange(1, 65)
drawn = {}
for d in (64, 128):
    one = np.linalg.qr(rng.standard_normal((d, 8)))[0]  # 8 random orthogonal directions
    another = np.linalg.qr(rng.standard_normal((d, 64)))[0]
    drawn[d] = [analysis.subspace_similarity(one, another[:, :j]) for j in dims]

with ml.plots.style():
    figure, panels = plt.subplots(
        1, 4, figsize=(8.2, 2.4), layout="constrained", width_ratios=[2, 2, 2, 4]
    )
    for ax, degrees in zip(panels, (15, 45, 80), strict=False):
        for turn, look in ((0, "-"), (np.radians(degrees), "--")):
            x, y = np.cos(turn), np.sin(turn)
            ax.plot([-x, x], [-y, y], look, color="black")
        ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
        ax.set_title(f"{degrees}°: φ = {np.cos(np.radians(degrees)) ** 2:.2f}")
        ax.axis("off")
    for d, ls in ((64, "-"), (128, "--")):
        chance = [analysis.chance_similarity(8, j, d) for j in dims]
        panels[3].plot(dims, chance, color="black", ls=ls, lw=1, label=f"d = {d}")
        panels[3].plot(dims[::4], drawn[d][::4], ".", color="0.5")
    panels[3].set(title="Chance: φ(8, j)", xlabel="j", ylim=(0, 1.05))
    panels[3].legend()
    plt.show()

# %% [markdown]
# The dots are random spaces, the lines max(8, j) / d. In a small model chance is large: with d = 64
# and j = 64 any space is contained in the other, and φ is 1 for no reason at all.
#
# Now our two trainings of rank 4. We take the mean over the matrices that read the stream of 128
# numbers (`down_proj` reads another), and beside it the same for the A's *before* training. The
# last column compares an A with its own start.

# %%
starts = [set_up("code", "lora", seed).model for seed in (0, 1)]  # as above, but not trained


def what_A_reads(model: ml.Transformer) -> dict[str, np.ndarray]:
    """A (128, 4) by path."""
    layers = {path: layer for path, layer in model.named_modules() if path in W}
    A = {path: layer.adapters["default"].A.data for path, layer in layers.items()}
    return {path: factor for path, factor in A.items() if len(factor) == 128}


def mean_similarity(one: ml.Transformer, two: ml.Transformer) -> np.ndarray:
    """φ(i, i) for i = 1 ... 4, mean over the matrices."""
    X, Y = what_A_reads(one), what_A_reads(two)
    return np.mean([np.diag(analysis.subspace_similarities(X[p], Y[p])) for p in X], axis=0)


both, before = mean_similarity(lora, other), mean_similarity(*starts)
memory = mean_similarity(lora, starts[0])
print("          seeds 0 and 1              chance,   seed 0 and")
print("  i   trained   before training    i / 128   its own start")
for i in range(4):
    print(f"{i + 1:>3} {both[i]:>9.2f} {before[i]:>17.2f} {(i + 1) / 128:>10.2f} ", end="")
    print(f"{memory[i]:>15.2f}")

# %% [markdown]
# Trained from different starts on different batches, the two read spaces that are more alike than
# chance, and still far from the same.
#
# The last column is a warning. A has moved, but it remembers where it started. Two trainings with
# the same seed and rank share their start, so they would look alike even if they had learned
# nothing in common. That is why the seeds must differ, and why the untrained starts are the right
# thing to compare with.
#
# The study compares ranks 8 and 64, as the paper does, with different seeds.

# %%
subspace = [x for x in shipped_rows("subspace_similarity") if (x["r"], x["r_other"]) == (8, 64)]
for task in ("code", "reverse"):
    for i, j in ((1, 1), (8, 8)):
        same = [x for x in subspace if (x["task"], x["i"], x["j"]) == (task, i, j)]
        print(
            f"{task:<8} φ({i}, {j}) = {mean(same, 'phi'):.2f}, "
            f"before training {mean(same, 'phi_start'):.2f}"
        )

js = (1, 2, 4, 8, 16, 32, 64)
print("\ncode, trained minus before training")
print("   j  ", *(f"{j:>5}" for j in js))
for i in (1, 8):
    same = [[x for x in subspace if (x["task"], x["i"], x["j"]) == ("code", i, j)] for j in js]
    print(f"i = {i} ", *(f"{mean(x, 'phi') - mean(x, 'phi_start'):>5.2f}" for x in same))

with ml.plots.style():
    figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    rows = [x for x in subspace if x["task"] == "code" and x["i"] in (1, 8)]
    plot_subspace_similarity(rows, ax)
    ax.legend(loc="upper left")
    plt.show()

# %% [markdown]
# **What to see.** Every solid line lies above its dashed one: some directions are found by both.
# For i = 8 the gap is widest on the left. For i = 1 it grows up to j = 16 and only then narrows:
# the strongest direction of one run lies partly within the leading directions of the other, but is
# not the strongest there.
#
# **What it does not show.** The paper's result for GPT-3, that ranks 8 and 64 share one direction
# with a similarity above 0.5. Here φ(1, 1) is well above chance, but far below that. It did not
# hold at this scale.
#
# ## Amplification
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
    a = analysis.amplification(W[path], delta[method][path], 4, rng=np.random.default_rng(0))
    print(
        f"{method:<26} {a.delta_norm:>6.2f} {a.projected:>8.2f} {a.own:>10.2f} {a.random:>8.2f} "
        f"{a.factor:>12.1f}"
    )
print(f"{'GPT-3, LoRA r = 4 (paper)':<26} {6.91:>6} {0.32:>8} {21.67:>10} {0.02:>8} {21.5:>12}")

print("\nfactor on code, mean over matrices and three seeds:")
for method, r in (("full", None), ("lora", 4)):
    rows = [x for x in shipped if (x["task"], x["method"], x["r"]) == ("code", method, r)]
    print(f"  {method:<5} {mean(rows, 'amplification'):.1f}")

# %% [markdown]
# As in the paper, W has far less along LoRA's directions than along its own, and ΔW makes it many
# times as strong. Full fine-tuning amplifies less. (Its ‖ΔW‖ also counts directions beyond the
# four; even so its factor is the smaller one.)
#
# But look at the column "chance", where the directions are random. In the paper W has 0.32 along
# those of ΔW and 0.02 by chance; from this it concludes that ΔW strengthens what W already has.
# Here W has little more along them than by chance. So that conclusion we cannot draw.
#
# ## Intruder dimensions
#
# Shuttleworth et al. (2024) look at the tuned weight W + ΔW instead of ΔW. Take one of its k = 10
# strongest output directions. If none of the output directions of W is like it, that is, if every
# |cosine| is below ε = 0.5, they call it an *intruder*: a strong direction that the base model did
# not have.
#
# Again chance comes first. How similar is a *random* direction to the most similar one of W?

# %%
for d in (64, 128, 768, 4096):
    likely = analysis.chance_best_cosine(d, np.random.default_rng(0), draws=500)
    print(f"d = {d:>5}: the best |cosine| of a random direction is {likely:.2f}")

print("\nintruders among the top 10, here, over all twelve matrices:")
for method, changes in delta.items():
    found = [analysis.intruder_dimensions(W[p], W[p] + D) for p, D in changes.items()]
    print(f"  {method:<5} {sum(found):>3} of {10 * len(found)}")

for path in ("layers.0.attn.q_proj", "layers.0.mlp.up_proj"):
    print(f"{path}: {min(W[path].shape)} output directions in {W[path].shape[1]} dimensions")

# %% [markdown]
# In a wide model a cosine of 0.5 is far above chance; at d = 64 it is not so far. So a count with a
# fixed ε cannot be compared between models of different widths. The table is for a W that has as
# many output directions as there are dimensions. `up_proj` has fewer, so its level of chance is
# lower, and within one model counts compare only between matrices of the same shape.

# %%
for task in ("code", "reverse"):
    rows = [x for x in shipped if x["task"] == task and x["r"] in (4, 16, 64)]
    norms, counts = ([x[key] for x in rows] for key in ("relative_norm", "intruders"))
    correlation = np.corrcoef(norms, counts)[0, 1]
    print(f"{task}: correlation of relative norm and intruders under LoRA: {correlation:.2f}")

with ml.plots.style():
    figure, panels = plt.subplots(
        2, 5, figsize=(9, 4.4), layout="constrained", sharex=True, sharey=True
    )
    for line, (task, width) in zip(panels, (("code", 128), ("reverse", 64)), strict=True):
        for ax, (method, r) in zip(line, settings, strict=True):
            rows = [x for x in shipped if (x["task"], x["method"], x["r"]) == (task, method, r)]
            color = ml.plots.COLORS["full"] if r is None else ml.plots.rank_color(r)
            marker, name = ("o", "full") if r is None else ("s", f"LoRA, r = {r}")
            for path in {x["path"]: None for x in rows}:
                same = [x for x in rows if x["path"] == path]
                x, y = mean(same, "relative_norm"), mean(same, "intruders")
                ax.plot(x, y, marker, ms=5, mfc="none", mec=color)
            x, y = mean(rows, "relative_norm"), mean(rows, "intruders")
            ax.plot(x, y, marker, color=color, ms=10, mec="white", zorder=3)
            ax.set(xscale="log", title=name if task == "code" else "")
            ax.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
            ax.set_xticks([], minor=True)
        line[0].set_ylabel(f"{task}, d = {width}\nintruders of 10")
    figure.supxlabel("relative norm ‖ΔW‖ / ‖W‖ (log scale)", fontsize=10.5)
    plt.show()

# %% [markdown]
# A small open marker is one matrix, mean of three seeds; a large one is the mean over all matrices.
# All panels have the same axes.
#
# **What to see.** On code, LoRA has more intruders than full fine-tuning at every rank. Between
# ranks 4, 16 and 64 there is little difference: their norms hardly differ either. On reverse LoRA
# has more from rank 4 on; with rank 1 it has fewer than full fine-tuning, as one new direction can
# hardly make more than one intruder. And within LoRA, matrices that changed more tend to have more
# of them; the correlation is positive on both tasks, though not strong.
#
# **What it does not show.** A cause: rank, norm and learning rate all differ between the methods.
# Nor does it show harm. Shuttleworth et al. connect intruders with forgetting; we have not measured
# that here. And "intruders are LoRA's mark" is too strong: full fine-tuning has them too where its
# ΔW is large, as on reverse.
#
# ## Exercises

# %% [markdown]
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
# ### Exercise 7.4: similarity of two spaces
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
# ### Exercise 7.5: count the intruders
#
# *Difficulty 3 of 5, 10 minutes.* How many of the k strongest output directions of `W_after` have a
# |cosine| below `epsilon` with every output direction of `W`? One of the check's cases has two
# planted.


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
# ### Exercise 7.6, a small project: how was it tuned?
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
def tuned_how(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> tuple[str, int]:
    """("LoRA", rank) or ("full", rank), from weights (d_in, d_out) in float32 alone."""
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
merged = copy.deepcopy(lora)
ml.merge_and_unload(merged)


def weights(model: ml.Transformer) -> dict[str, np.ndarray]:
    return {path: model.get_submodule(path).weight.data for path in W}


path = "layers.0.attn.q_proj"
error = weights(merged)[path].astype(np.float64) - W[path] - delta["lora"][path]
bound = np.finfo(np.float32).eps * np.linalg.norm(weights(merged)[path])
print(
    f"{path}: the rounding has a norm of {np.linalg.norm(error):.0e}, the tolerance is {bound:.0e}"
)
print("merged adapter, your answer:  ", tuned_how(weights(base), weights(merged)))
print("full fine-tuning, your answer:", tuned_how(weights(base), weights(full)))

# %% [markdown]
# It has limits. An adapter whose rank reaches the width of the matrix looks like full fine-tuning.
# So does DoRA, which also rescales the columns of W, so that its ΔW is not of low rank.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 07`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - What is of low rank in LoRA: W, ΔW, or the tuned weight W + ΔW?
# - Is the update of full fine-tuning of low rank?
# - Does LoRA's success show that it is?
# - Why must similarities of subspaces be shown beside the level of chance?
# - What is an intruder dimension, and what makes the count hard to compare between models?
# - Is the ΔW of LoRA smaller than that of full fine-tuning?
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
