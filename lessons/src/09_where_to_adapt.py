# %% [markdown]
# # 09 · Where to adapt, and the alternatives
#
# **The question.** Which numbers of a model should train, and is LoRA the way to choose them?
#
# **You will be able to**
#
# - name the modules that an adapter shall reach, and check which ones it did;
# - compare places at an equal budget, and say honestly whether one is better;
# - sort the methods into three families, and say what each one trains and costs at inference;
# - write BitFit, a bottleneck adapter, IA³ and VeRA yourself;
# - say how few numbers are enough, for learning from examples and from rewards.
#
# **Time:** 20 seconds to run, 25 minutes to read, 79 with the exercises. **Before this:** LoRA
# leaves a matrix W as it is and adds s A B to it, where A (d_in, r) and B (r, d_out) train (lesson
# 00), r (d_in + d_out) numbers (lesson 05). **Words:** [glossary](GLOSSARY.md), for what is not
# explained here.

# %%
import textwrap
from math import comb
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora import analysis
from minilora.learn import check
from minilora.learn.demos import alternatives, targets
from minilora.learn.demos.small_models import tiny_llama
from minilora.learn.light import light  # fewer steps in a browser, which is slow
from minilora.lora import lora_layers
from minilora.methods.registry import LABELS, METHODS
from minilora.plots import select
from minilora.plots.comparisons import plot_methods
from minilora.plots.house_style import FAMILY_COLORS, FAMILY_MARKERS
from minilora.studies.how_few_numbers import how_few_numbers_figure
from minilora.studies.methods import methods_entry
from minilora.studies.rl_rank_one import plot_along
from minilora.studies.which_weights import plot_which_weights

# %% [markdown]
# ## A picture
#
# To train few numbers of a large model there are three ways: to *select* some that are there, to
# *add* new modules, or to *reparameterize*: to write the change of a matrix with fewer numbers than
# the matrix has.


# %% tags=["hide-input"]
def box(ax, x, y, width, height, color, name=""):
    ax.add_patch(plt.Rectangle((x, y), width, height, fc=color, ec="0.3"))
    ax.text(x + width / 2, y + height / 2, name, ha="center", va="center")


NOTES = {
    "selective": "some of the model's own\nnumbers: here a bias",
    "additive": "small layers, or vectors,\nthat stay in the model",
    "reparameterized": "a change of W: A B is\nadded to it at the end",
}
with ml.plots.style():
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    for ax, (family, note) in zip(panels, NOTES.items(), strict=True):
        color = FAMILY_COLORS[family]
        box(ax, 1.3, 0, 4, 4, "0.88", "W")
        if family == "selective":
            box(ax, 1.3, -1.1, 4, 0.8, color, "b")
        elif family == "additive":
            box(ax, 5.7, 1, 0.8, 2, color, "D")
            box(ax, 6.9, 1, 0.8, 2, color, "U")
        else:
            box(ax, 0.2, 0, 0.8, 4, color, "A")
            box(ax, 1.3, 4.3, 4, 0.8, color, "B")
        ax.text(0.2, -1.6, note, va="top")
        ax.set(xlim=(0, 8.6), ylim=(-3.4, 5.3), title=family)
        ax.set_aspect("equal")
        ax.set_axis_off()
    ml.plots.show(
        figure,
        "Three times a large grey matrix W, frozen, and in colour what trains: a "
        "bias below it, two small layers behind it, and two thin matrices A and B "
        "along its sides.",
    )

# %% [markdown]
# Grey is frozen, colour trains. What is selected stays in its place, and what was reparameterized
# is merged into W, so that neither costs anything at inference. What is added stays in the way (but
# for IA³, as we shall see).
#
# ## The formula
#
# A layer computes y = x W + b. Each method changes one part of it (in our layout: x is a row, ⊙
# multiplies number by number):
#
# | method | the layer becomes | trains |
# |---|---|---|
# | BitFit | x W + b | b |
# | IA³ | (x W + b) ⊙ l or (x ⊙ l) W + b | l |
# | bottleneck | y + f(y D + c) U + e | D, c, U, e |
# | LoRA | x W + b + s (x A) B | A, B |
# | LoRA-FA | the same | B |
# | DoRA | x (m ⊙ V / ‖V‖) + b, V = W + s A B | A, B, m |
# | VeRA | x W + b + ((x A ⊙ d) B) ⊙ b′ | d, b′ |
# | LoRA-XS | x W + b + s ((x A) R) B | R |
#
# ‖V‖ has the length of each column. Two further methods add vectors in front of the
# text: prompt tuning at the input alone, prefix tuning in each layer, as keys and values. And LoRA
# has kin that begin or step differently (lesson 08). All have this in common:
#
# $$\theta = \theta_0 + \Delta(\phi), \qquad \Delta(\phi_0) = 0, \qquad |\phi| \ll |\theta_0|,$$
#
# that is, few new numbers φ, which at first change nothing. (Only the vectors in front of a text
# do change it, as soon as they are there.)
#
# ## Say which modules
#
# First LoRA, and where to put it: on its *target modules*. PEFT and this package read
# `target_modules` alike. A *list* has names, which are compared with the ends of paths. A *text* is
# a pattern (a regular expression) for a whole path, but for the one word `"all-linear"`. The model
# here is a tiny Llama, whose head is a matrix of its own.


# %%
def adapted(wanted) -> str:
    """What an adapter with these targets reaches, or why it is refused."""
    model = tiny_llama()
    config = ml.LoraConfig(r=2, target_modules=wanted)
    try:
        ml.add_adapter(model, config, rng=np.random.default_rng(0))
    except ValueError as error:
        return f"refused: {str(error)[:44]} ..."
    paths = list(lora_layers(model))
    return f"{len(paths):>2} matrices, from {paths[0]} to {paths[-1]}"


for wanted in (["q_proj"], "q_proj", r".*\.q_proj", ["query", "value"], "all-linear"):
    print(f"{wanted!s:<20} {adapted(wanted)}")

# %% [markdown]
# `"q_proj"` without brackets matches no path, since paths are longer; `query` and `value` are the
# names that BERT uses. Both are refused here, and in PEFT too. Where only *some* of your names
# match, PEFT adapts those without a word: so look at what was adapted, and count what trains.
#
# `"all-linear"` is every linear layer of the blocks, and not the head. Three kinds of parameters
# are left out by it, each for a reason, and each can be had:


# %%
def show(demo) -> None:
    """A measurement behind an exam card: what was done, and what came out."""
    print(textwrap.fill(demo.does, 80))
    for name, value in demo.measure().items():
        print(f"  {name}: {value:.3g}")
    print()


show(targets.low_rank_of_a_norm)
show(targets.a_new_head)
show(targets.one_row_of_a_tied_embedding)

# %% [markdown]
# - A **norm** has a vector of C numbers. As a matrix of one column even rank 1 would need C + 1:
#   there is nothing to save. If norms shall learn, they train whole.
# - A **new head**, of random numbers, stays random beside an adapter: adding the adapter freezes
#   everything else. `modules_to_save=["head"]` trains it whole, in a copy that is saved with A and
#   B. For a head of 5 classes on a model of width 768 that is 3,840 numbers, beside 294,912 of LoRA
#   (r = 8 on q and v of 12 blocks); for a head of 50,000 tokens, 38 million.
# - A **tied embedding** is also the head. A row that changes moves the logit of its word in every
#   text, even where the word does not occur.
#
# ## The same budget in different places
#
# A fair comparison gives each place as many numbers. Few matrices get a high rank, many a low one.
#
# ### Exercise 9.1: the rank for a place
#
# *Difficulty 2 of 5, 6 minutes.* `shapes` has (d_in, d_out) of every matrix of a block, by name;
# `targets` are some of these names, and the model has `n_layer` blocks. Which rank of LoRA on
# `targets` trains a number of numbers that is nearest to `budget`? Of two that are equally near
# take the lower one; the answer is at least 1.


# %%
def nearest_rank(
    shapes: dict[str, tuple[int, int]], n_layer: int, targets: list[str], budget: int
) -> int:
    """The rank at which LoRA on these targets is nearest to the budget."""
    # SOLUTION
    per_rank = n_layer * sum(sum(shapes[name]) for name in targets)
    below, rest = divmod(budget, per_rank)
    return max(1, below + (per_rank - rest < rest))
    # END SOLUTION


# %%
check.nearest_rank(nearest_rank)

# %% [markdown]
# The ranks of the study below, by your function (until you solve the exercise, they show None):

# %%
shapes = analysis.matrix_shapes(analysis.ARCHITECTURES["docs-tiny"])
PLACES = {
    "q": ["q_proj"], "v": ["v_proj"], "q,v": ["q_proj", "v_proj"],
    "q,k,v,o": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "MLP": ["up_proj", "down_proj"],
    "all": list(shapes),
}  # fmt: skip
placed = ml.studies.shipped_rows("which_weights")
for place, names in PLACES.items():
    used = select(placed, task="code", place=place)[0]
    yours = nearest_rank(shapes, 2, names, 18_432)
    rank = f"{place:<8} r = {used['r']:>2}"
    print(f"{rank}: {used['trainable']:,} numbers; yours {yours!s:>4}")

# %% [markdown]
# Two tasks: `docs-tiny`, which has read English, learns Python code, and `words-tiny`, which knows
# other games with letters, learns to sort the letters of a word.

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    for task, ax in zip(("code", "sort"), panels, strict=True):
        plot_which_weights(select(placed, task=task), ax)
        ax.set_ylabel("")
    panels[0].set_title("Python code: ≈ 18,000 numbers")
    panels[1].set_title("Sort a word: ≈ 9,700 numbers")
    ml.plots.show(
        figure,
        "Quality by the matrices that are adapted, on code and on sorting: adapting "
        "all at a low rank is best in both, q alone worst; the MLP is second on "
        "code and fourth on sorting.",
    )

# %% [markdown]
# **What to see.** All matrices at a low rank are best on both tasks, and q alone is far behind,
# with nine times the rank. Between them the order depends on the task: the MLP is ahead of the four
# matrices of attention on code, and behind them on sorting. To sort, letters have to look at each
# other; to write Python instead of English, other characters must follow, wherever one looks. (That
# is our reading; the figure does not prove it.)
#
# **What it does not show.** Each place at its own best learning rate: all have the same. And two
# tasks and two tiny models are few.
#
# Why is it good to spread? A change that is needed in one matrix cannot be made up for in another.
# Here both matrices of a small network have to change, each by a change of rank 2:

# %%
show(targets.where_the_budget_goes)

# %% [markdown]
# ### Exercise 9.2: is one place better?
#
# *Difficulty 3 of 5, 8 minutes.* `results` has the errors of every place, one for each seed; low is
# good. Return the name of the place of which even the worst seed is better than every seed of every
# other place. If there is none, return `"no difference shown"`. (Equal errors are not better.)


# %%
def best_place(results: dict[str, list[float]]) -> str:
    """The place that is better than all others whatever the seed, if there is one."""
    # SOLUTION
    best = min(results, key=lambda place: max(results[place]))
    others = [e for place, errors in results.items() if place != best for e in errors]
    return best if max(results[best]) < min(others) else "no difference shown"
    # END SOLUTION


# %%
check.best_place(best_place)

# %% [markdown]
# On the results above (until you solve the exercise, it answers None):

# %%
for task, good in (("code", min), ("sort", max)):
    sign = 1 if good is min else -1  # of sort we have right answers
    rows = select(placed, task=task)
    results = {}
    for place in PLACES:
        of_place = select(rows, place=place)
        results[place] = [sign * row["test"] for row in of_place]
    print(f"{task}, all six places: {best_place(results)!s}")
    two = {place: results[place] for place in ("q,k,v,o", "MLP")}
    print(f"{task}, attention or MLP: {best_place(two)!s}")
    for place in ("q,k,v,o", "MLP", "all"):
        seeds = "  ".join(f"{abs(value):.3f}" for value in results[place])
        print(f"  {place:<8} {seeds}")
chance = 2 / comb(6, 3)
print(f"two equal places, three seeds each: apart by chance in {chance:.0%} of cases")

# %% [markdown]
# On code all six matrices and the MLP alone cannot be told apart. On sorting the ranges of "all"
# and of attention's four are apart, by half a word in a hundred: with three seeds each, that
# happens by chance in one case of ten, and we have looked at several pairs. So this rule is a weak
# one; what it does not show, do not claim. (Whoever picks the best of many runs is fooled in the
# same way: the winner's curse, in lesson 08.)
#
# **Does it hold at scale?** In part. On GPT-3, with 18 million numbers for each, in per cent of
# right answers (Hu et al. 2021, Table 5):
#
# | | q | k | v | o | q, k | q, v | q, k, v, o |
# |---|---|---|---|---|---|---|---|
# | r | 8 | 8 | 8 | 8 | 4 | 4 | 2 |
# | WikiSQL | 70.4 | 70.0 | 73.0 | 73.2 | 71.4 | 73.7 | 73.7 |
# | MultiNLI | 91.0 | 90.8 | 91.0 | 91.3 | 91.3 | 91.3 | 91.7 |
#
# Here, too, two or four places are at least as good as the best single one, and q alone is behind,
# if not by much. More rank does not help q: with r = 1 and 64 it has 68.8 and 70.0 on WikiSQL,
# while all four have 74.1 and 73.9 (Table 6). The paper did not try the MLP. On Llama-2-7B the MLP
# matters more than attention (Biderman et al. 2024), and on Llama-3.2-3B it has .494 on
# grade-school arithmetic with 9.5 million numbers, q and v .478 with 9.2 million (PEFT's MetaMathQA
# benchmark, one seed, standard error .014: no difference shown). QLoRA's advice, "all linear
# layers", needs no knowledge of the task.
#
# ### Predict, change, run: two places
#
# Two places learn code for 100 steps, with about 18,000 numbers each. Which ends with the lower
# loss? Write its name as your guess.

# %%
FIRST, SECOND = "v", "MLP"  # change me: q, v, "q,v", "q,k,v,o", MLP, all
GUESS = ...

reached = {}
for place in (FIRST, SECOND):
    r = select(placed, task="code", place=place)[0]["r"]
    where = {"target_modules": PLACES[place], "r": r, "lora_alpha": 2 * r}
    run = ml.tune("code", "lora", lr=1e-2, steps=light(100), quiet=False, **where)
    reached[place] = run.task.test(run.model)
    print(f"{place}, r = {r}: {reached[place]:.3f} nats per character")
check.predict(GUESS, min(reached, key=reached.get))

# %% [markdown]
# You should see the order of the figure, at higher losses, as it is a third of the training. One
# run each is no proof: try `"q,k,v,o"` and `"all"`, which are close. To adapt to **your own text**,
# put a path such as `"notes.txt"` in place of `"code"`.
#
# ## The first family: select
#
# *BitFit* trains the biases and nothing else (Ben Zaken et al. 2022). Others train the last block,
# the norms, or the head.
#
# ### Exercise 9.3: BitFit's selection
#
# *Difficulty 1 of 5, 4 minutes.* From the names of a model's parameters, such as
# `layers.0.attn.q_proj.bias`, return those that BitFit trains: the ones whose own name, after the
# last point, is `bias`.


# %%
def bitfit_names(names: list[str]) -> list[str]:
    """The names of the parameters that BitFit trains."""
    # SOLUTION
    return [name for name in names if name.split(".")[-1] == "bias"]
    # END SOLUTION


# %%
check.bitfit_names(bitfit_names)

# %% [markdown]
# How many numbers that is, in `docs-tiny` and in a Llama (by the package's own BitFit):


# %%
def trains(method: str, model: ml.Transformer, **options) -> int:
    """How many numbers train once the model is prepared for this method."""
    usual = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    lora = ml.LoraConfig(**usual | options)
    METHODS[method].prepare(model, lora, np.random.default_rng(0))
    return ml.count_parameters(model)[0]


print(f"docs-tiny: {trains('bitfit', ml.load_model('docs-tiny')):,} numbers")
try:
    trains("bitfit", tiny_llama())
except ValueError as error:
    print("a Llama:", error)

# %% [markdown]
# ## The second family: add
#
# **Bottleneck adapters** (Houlsby et al. 2019) are a small network behind a layer: down from C
# numbers to m, a nonlinearity f, up to C again, and a shortcut around it.
#
# ### Exercise 9.4: a bottleneck
#
# *Difficulty 2 of 5, 6 minutes.* y (n, C) are the outputs of a layer. Return y + f(y D + c) U + e,
# where f is ReLU, which puts 0 in place of what is negative. D is (C, m), c (m,), U (m, C), e (C,).


# %%
def bottleneck(y, D, c, U, e):
    """The outputs of a layer after its bottleneck adapter."""
    # SOLUTION
    return y + np.maximum(y @ D + c, 0) @ U + e
    # END SOLUTION


# %%
check.bottleneck(bottleneck)

# %% [markdown]
# With U = 0 and e = 0 the output is y: the adapter starts as nothing, as LoRA does with B = 0. But
# it cannot be merged. If the layer with its adapter, call it g, were of the form g(x) = x M + b,
# then g(x) + g(y) = g(x + y) + g(0) would hold; how far off is it, and how many operations does a
# token take?

# %%
show(alternatives.bottleneck_at_inference)

# %% [markdown]
# LoRA has only matrix products, so that it folds into W; the nonlinearity has to be computed for
# every token. (How much that is depends on m.)
#
# **Prompt tuning** and **prefix tuning** put vectors in front of the text. Prompt vectors enter
# once, at the input, and the layers process them like words. A prefix has keys and values of its
# own in each layer. Both are free vectors, no words of the vocabulary, and both make attention read
# more positions.

# %%
show(alternatives.prompt_and_prefix)

# %% [markdown]
# **IA³** (Liu et al. 2022) multiplies: the outputs of k and v, and what the MLP's second matrix
# reads, each by a factor that starts at 1. It counts as additive, as new numbers come in. But a
# factor of a *linear* layer can be merged.
#
# ### Exercise 9.5: merge IA³
#
# *Difficulty 3 of 5, 8 minutes.* A layer computes x W + b, with W (d_in, d_out). If `where` is
# `"outputs"`, IA³ makes (x W + b) ⊙ l of it; if it is `"inputs"`, (x ⊙ l) W + b. Return the new W
# and the new b of a plain layer that computes the same.


# %%
def ia3_merge(W, b, l, where):
    """(W, b) of a layer x W + b with the factors l of IA³ in it."""
    # SOLUTION
    if where == "outputs":
        return W * l, b * l
    return l[:, None] * W, b
    # END SOLUTION


# %%
check.ia3_merge(ia3_merge)

# %%
W = np.random.default_rng(0).standard_normal((24, 16))
l = np.random.default_rng(1).uniform(0.5, 1.5, 16)
change = W * l - W
rank = np.linalg.matrix_rank(change)
print(f"IA³'s ΔW has rank {rank}, and {l.size} numbers of its own")
cosines = np.sum(W * (W + change), axis=0) / (
    np.linalg.norm(W, axis=0) * np.linalg.norm(W + change, axis=0)
)
print("cosine of each column before and after: ", end="")
print(f"{cosines.min():.3f} to {cosines.max():.3f}")

# %% [markdown]
# So few numbers need not mean a low rank: this change has full rank, and yet every column keeps its
# direction. It is another small family of changes, not a part of LoRA's.
#
# ## The third family: reparameterize
#
# LoRA writes ΔW as A B. Its kin change what of that trains.
#
# - **DoRA** (Liu et al. 2024): A and B set the *direction* of each column of W, and a new number
#   its *length*. The lengths m start as those of W; it trains d_out numbers more.
# - **LoRA-FA** (Zhang et al. 2023): A stays as it was drawn, B trains.
# - **VeRA** (Kopiczko et al. 2024): A and B are random, frozen, and shared by all layers of a
#   shape. Each layer trains two vectors: d, r numbers that weigh the directions, and b, d_out
#   numbers that weigh the outputs. The random factors can be drawn again from a seed.
# - **LoRA-XS** (Bałazy et al. 2024): A and B come from the singular value decomposition of W
#   (lesson 07) and are frozen; a matrix R between them, r × r, trains.
#
# ### Exercise 9.6: VeRA
#
# *Difficulty 2 of 5, 6 minutes.* Return x W + ((x A ⊙ d) B) ⊙ b, for x (n, d_in), W (d_in, d_out),
# A (d_in, r), B (r, d_out), d (r,) and b (d_out,). The b is VeRA's factor, not a bias.


# %%
def vera(x, W, A, B, d, b):
    """The outputs of a layer with VeRA."""
    # SOLUTION
    return x @ W + (x @ A * d) @ B * b
    # END SOLUTION


# %%
check.vera(vera)

# %% [markdown]
# What DoRA adds, on a small layer that is trained: one number a column, and the trained columns
# have exactly these lengths.

# %%
show(alternatives.what_dora_adds)

# %% [markdown]
# ### Exercise 9.7: count what trains
#
# *Difficulty 3 of 5, 12 minutes.* How many numbers train, for one layer x W + b with W (d_in,
# d_out)? `method` is one of `"lora"`, `"lora-fa"`, `"vera"`, `"lora-xs"`, `"dora"` (of rank r),
# `"ia3"` (which multiplies this layer's outputs), `"bitfit"`, `"bottleneck"` (behind the layer, r
# numbers wide in the middle, with both biases), `"prefix"` (r keys and r values, each of d_out
# numbers).


# %%
def trained_numbers(method: str, d_in: int, d_out: int, r: int) -> int:
    """How many numbers a method trains for one layer."""
    # SOLUTION
    lora = r * (d_in + d_out)
    counts = {
        "lora": lora,
        "lora-fa": r * d_out,
        "vera": r + d_out,
        "lora-xs": r * r,
        "dora": lora + d_out,
        "ia3": d_out,
        "bitfit": d_out,
        "bottleneck": d_out * r + r + r * d_out + d_out,
        "prefix": 2 * r * d_out,
    }
    return counts[method]
    # END SOLUTION


# %%
check.trained_numbers(trained_numbers)

# %% [markdown]
# And in a whole model, `docs-tiny`, by each of the package's methods, with their usual sizes. (VeRA
# has r = 64 and LoRA-XS r = 16, as they can afford it; a bottleneck and a prefix get about as much
# as LoRA.)

# %%
RANKS = {"vera": 64, "lora-xs": 16}
counts = {}
for name in METHODS:
    counts[name] = trains(name, ml.load_model("docs-tiny"), r=RANKS.get(name, 4))
counts["LoRA, q, v, r = 1"] = trains(
    "lora", ml.load_model("docs-tiny"), r=1, target_modules=["q_proj", "v_proj"]
)
for name, n in sorted(counts.items(), key=lambda pair: pair[1]):
    family = METHODS[name].family if name in METHODS else "reparameterized"
    print(f"{n:>8,}  {LABELS.get(name, name):<22} {family}")

# %% [markdown]
# ## Every method, on two tasks
#
# Thirteen methods, each at a learning rate that was chosen for it, with three seeds.

# %% tags=["hide-input"]
everything = ml.studies.shipped_rows("methods")
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    for task, ax in zip(("code", "reverse"), panels, strict=True):
        plot_methods(methods_entry(select(everything, task=task)), ax, "test")
        ax.set_ylabel("")
    for family in ("full", "selective", "additive", "reparameterized"):
        look = {"color": FAMILY_COLORS[family], "marker": FAMILY_MARKERS[family], "ls": ""}
        panels[0].plot([], [], ms=7, label=family, **look)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    ml.plots.show(
        figure,
        "Thirteen methods on code and on reversing words: full fine-tuning is best "
        "on code, LoRA and its kin a little behind; on reversing LoRA's kin are all "
        "right, others far behind.",
    )

# %%
base = select(everything, task="code")[0]["base_test"]
full = mean(row["test"] for row in select(everything, task="code", method="full"))
print(f"{'':<22} code: gain, of full's   reverse: right   old tasks after it")
some = ("full", "lora", "dora", "adapter", "prefix", "bitfit", "prompt", "last-block")
for method in some:
    of_method = select(everything, method=method)
    code, words = (select(of_method, task=t) for t in ("code", "reverse"))
    gain = (base - mean(row["test"] for row in code)) / (base - full)
    right = mean(row["test"] for row in words)
    old = mean(row["old"] for row in words)
    print(f"{LABELS[method]:<22} {gain:>21.1%} {right:>16.1%} {old:>20.1%}")

# %% [markdown]
# **What to see.** On code LoRA's kin are as good as LoRA, or a little worse: DoRA, rsLoRA and LoRA+
# end where LoRA does, PiSSA and OLoRA a little higher. The last block, with half of all numbers, is
# ahead of them. On reversing words it fails, with five times as many numbers as LoRA: whoever
# leaves the first blocks as they are cannot learn this. The head alone and prompts fail too, and
# the bottleneck is as good as LoRA, or nearly.
#
# **What it does not show.** An order of methods for other tasks. And that some forget less is no
# praise: the last block keeps most of the old tasks here, and learns next to nothing.
#
# **Does it hold at scale?** Largely. On Llama-3.2-3B (PEFT's MetaMathQA benchmark, run July 2026,
# one seed, standard error .014): LoRA .478, full fine-tuning .472, DoRA .469, prefix tuning .416,
# IA³ .398, VeRA .354. Once their rates are tuned, nine variants of LoRA are within 1 to 2 per cent
# of each other (arXiv 2602.04998). On GPT-3 Hu et al. (2021, Table 4) have on WikiSQL: full 73.8,
# BitFit 71.3, prompts 63.1, prefixes 70.1, bottlenecks 73.2 and LoRA 73.4 to 74.0.
#
# ### Predict, change, run: a method's share
#
# A method learns code for 60 steps, and so does LoRA. Which share of LoRA's gain over the base
# model does it reach? (1 would be as much as LoRA.)

# %%
METHOD = "ia3"  # change me: bitfit, vera, adapter, prompt, last-block, dora
GUESS = ...

rate = {"ia3": 1e-1, "vera": 1e-1}.get(METHOD)  # None is the one that the study chose
run = ml.tune("code", METHOD, lr=rate, steps=light(60), quiet=False)
lora = ml.tune("code", "lora", steps=light(60), quiet=False)
losses = [run.task.test(model) for model in (run.base, run.model, lora.model)]
print(f"trains {run.row['trainable']:,} numbers, LoRA {lora.row['trainable']:,}")
print(f"loss of the base, {METHOD}, LoRA:", *(f"{loss:.3f}" for loss in losses))
share = (losses[0] - losses[1]) / (losses[0] - losses[2])
check.predict(GUESS, share, unit="of LoRA's gain")

# %% [markdown]
# You should see a large share, from a twelfth of LoRA's numbers: the first steps, from English to
# something like code, are cheap. Prompt tuning lags behind; the last block, with half of all
# numbers, is ahead of LoRA.
#
# ## How few numbers are enough?
#
# So let us go down, from all of them to a dozen.

# %% tags=["hide-input"]
few = ml.studies.shipped_rows("how_few_numbers")
with ml.plots.style():
    ml.plots.show(
        how_few_numbers_figure(few, ml.studies.shipped_rows("rank_sweep"), everything),
        "Quality against trained numbers on a logarithmic axis, on code, on "
        "reversing words and for a model of 3 billion: on code nearly one falling "
        "line, from 12 numbers to all.",
    )

# %%
print("code: numbers that train, and share of full fine-tuning's gain")
for r, method, place in (
    (1, "lora-xs", "all matrices"), (4, "lora-xs", "all matrices"),
    (1, "lora", "v_proj"), (None, "ia3", "all matrices"),
    (4, "lora", "down_proj"), (64, "vera", "all matrices"),
):  # fmt: skip
    same = select(few, task="code", method=method, r=r, place=place)
    best = [row for row in same if row["lr"] == same[0]["lr"]]  # with three seeds
    gain = (base - mean(row["test"] for row in best)) / (base - full)
    rank = f", r = {r}" if r else ""
    n = best[0]["trainable"]
    print(f"{n:>6,}  {gain:>6.1%}  {LABELS[method]}{rank}, on {place}")

# %% [markdown]
# **What to see.** On code it is nearly one line, whatever the method: each factor of ten in numbers
# brings about as much, until it bends. Twelve numbers, one for each matrix, bring a tenth of the
# gain. With about 3,000 numbers LoRA of a single matrix is as good as methods that were made for so
# few. On reversing, *which* numbers train matters more than how many: VeRA, with 3,840, is nearly
# always right, BitFit, with 2,880, seldom.
#
# **What it does not show.** What is kept frozen: VeRA, LoRA-FA and LoRA-XS have factors as large as
# LoRA's, or larger, beside what they train. They save in the optimizer and the file, and not in
# arithmetic. At this size a file of LoRA is 74 KB, and nobody needs a smaller one.
#
# **Does it hold at scale?** That fewer numbers learn less from examples, yes: on the right LoRA
# with 9.2 million reaches .478, LoRA-FA with 3.7 million .404, IA³ with .29 million .398, VeRA with
# .13 million .354, and TinyLoRA, with 3,584, only .012.
#
# ## Rewards instead of examples
#
# A model can also learn from *rewards*: it samples answers, and is told of each only whether it was
# right. This is *reinforcement learning*; the plainest way is *REINFORCE* (Williams 1992), which
# makes an answer likelier by as much as it was better than expected:
#
# $$L = -\frac{1}{n} \sum_i (R_i - \bar R_i) \log p(\text{answer}_i)$$
#
# $R_i$ is the reward of an answer, and $\bar R_i$ the mean reward of all answers to the same
# question. $R_i - \bar R_i$ is called the *advantage*.
#
# ### Exercise 9.8: the advantage
#
# *Difficulty 2 of 5, 4 minutes.* `rewards` is (questions, samples): a row has the rewards of all
# answers to one question. Return the advantages, in the same shape.


# %%
def advantages(rewards):
    """By how much each answer was better than the mean of its question."""
    # SOLUTION
    return rewards - rewards.mean(axis=1, keepdims=True)
    # END SOLUTION


# %%
check.advantages(advantages)

# %% [markdown]
# How much can a reward teach? Right or wrong is one bit at the most, however long the answer. An
# example says every letter. That is the argument of Schulman et al. (LoRA Without Regret, 2025) for
# few numbers being enough: there is little to store. In our study there are 240 steps of 128
# answers:

# %%
rewarded = ml.studies.shipped_rows("rl_rank_one")
print(f"rewards: at most {240 * 128:,} bits in all")
for row in select(rewarded, seed=0, lr=3e-3):
    print(f"LoRA of rank {row['r']} trains {row['trainable']:>6,} numbers of 32 bits")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    slow = [row for row in rewarded if row["lr"] == (3e-4 if row["method"] == "full" else 3e-3)]
    plot_along(slow, panels[0], 1, "New task: reverse a word", "validation: exactly right")
    plot_along(slow, panels[1], 2, "Old tasks", "test: exactly right")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    ml.plots.show(
        figure,
        "Reversing words from rewards, by step: full fine-tuning and LoRA of rank 4 "
        "rise from 24 to 71 per cent of validation words, rank 1 to 57; the old "
        "tasks fall to 63, 52 and 68.",
    )

# %%
for method, r, lr in (("full", None, 3e-4), ("lora", 4, 3e-3), ("lora", 1, 3e-3)):
    runs = select(rewarded, method=method, r=r, lr=lr)
    new, old = ([row[key] for row in runs] for key in ("test", "old"))
    name = LABELS[method] + (f", r = {r}" if r else "")
    print(f"{name:<17} new {mean(new):.1%} ", end="")
    print(f"({min(new):.1%} to {max(new):.1%}), ", end="")
    print(f"old {mean(old):.1%} ({min(old):.1%} to {max(old):.1%})")

# %% [markdown]
# **What to see.** (The left panel shows words of the validation split, the table those of the test
# split.) Rank 4 learns as much as full fine-tuning, with 9 per cent of its numbers, and rank 1
# less: its best seed stays below the worst of the others. So "rank 1 is enough" does not quite hold
# here. Nothing is rewarded for the old tasks, and all three forget them. Rank 4, which learns as
# much as full fine-tuning, forgets more.
#
# **What it does not show.** Whether learning has ended: the curves become flat as the learning rate
# falls. And the model had to reverse a quarter of the words already: where no answer is ever right,
# all advantages are zero, and nothing can be learned.
#
# **Does it hold at scale?** There rank 1 is enough: as good as full fine-tuning where a language
# model learns mathematics from rewards (Schulman et al. 2025), and 13 numbers bring a Qwen2.5 model
# to 91 per cent on GSM8K (Morris et al. 2026), while, of Llama-3.2-3B, 3,584 numbers trained on
# examples bring 1 per cent (the star in the figure before).
#
# ## When none of them is the answer
#
# Training changes *behaviour*. A fact that changes every day belongs in the prompt, where it can be
# exchanged, and cited; to find it and put it there is called retrieval, RAG for short. A form of
# answers that no prompt brings about is a case for fine-tuning. And if very much has to change,
# LoRA of a low rank stops short, however long it trains. The three measurements behind these cards:

# %%
show(alternatives.a_fact_that_changes)
show(alternatives.a_form_of_answers)
show(alternatives.where_full_wins)

# %% [markdown]
# ## The exam cards this prepares
#
# `minilora quiz --topic 09`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - Which family is selective, which additive, which reparameterized, and who belongs to it?
# - What do BitFit, IA³, VeRA, DoRA, a bottleneck, a prompt and a prefix train, and how many
#   numbers?
# - Which of them can be merged, and which cost time at inference?
# - What do `"all-linear"`, a list and a text reach? What if a name matches nothing?
# - What becomes of a new head, a norm, a tied embedding?
# - One matrix at a high rank, or many at a low one?
# - Prompt, retrieval, LoRA or full fine-tuning: when which?
#
# ## Where to read on
#
# - Hu et al. 2021, *LoRA*, section 7.1 and Tables 4 to 6 (placement, rank, the alternatives).
# - Houlsby et al. 2019 (bottleneck adapters); Li & Liang 2021 (prefix tuning); Lester et al. 2021
#   (prompt tuning); Ben Zaken et al. 2022 (BitFit); Liu et al. 2022 (IA³).
# - Liu et al. 2024 (DoRA); Kopiczko et al. 2024 (VeRA); Zhang et al. 2023 (LoRA-FA); Bałazy et al.
#   2024 (LoRA-XS); Morris et al. 2026 (13 numbers).
# - Lialin et al. 2023, *Scaling Down to Scale Up: A Guide to Parameter-Efficient Fine-Tuning* (the
#   families).
# - In this package: `minilora/methods/`, a file for each idea; `minilora study which_weights`.
