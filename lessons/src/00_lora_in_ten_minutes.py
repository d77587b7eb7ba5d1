# %% [markdown]
# # 00 · LoRA in ten minutes
#
# **The question.** What is LoRA, and how does it help in fine-tuning a model?
#
# **You will be able to**
#
# - say in a few sentences what LoRA is, and show that each of them is true of a running model;
# - fine-tune a language model in a few lines, with LoRA and without, and compare the two;
# - say what trains, what stays frozen, and what has to be stored;
# - merge an adapter, which is what LoRA adds, into a model, take it off again, and swap it;
# - refute the wrong answers that exams offer, and say what LoRA does *not* do.
#
# **Time:** 40 seconds to run, 28 minutes to read, 75 with the exercises. The ten minutes of the
# title, or eleven, are the text up to "LoRA by hand", without code, exercises and boxes to predict.
# **Before this:** you know what a matrix product is, and that a network learns by small steps
# against the gradient of a loss. **Words:** a [glossary](GLOSSARY.md) has them all.

# %%
import copy
import json
from dataclasses import replace
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora import reference
from minilora.learn import check
from minilora.learn.demos import definition
from minilora.learn.light import light
from minilora.lora import lora_layers
from minilora.lora_targets import plain_path

# %% [markdown]
# ## The exam card
#
# > **What is LoRA, and how does it help in fine-tuning models?**
# >
# > LoRA, *low-rank adaptation*, keeps the pretrained weights W fixed **(1)** and learns their
# > change as a product of two thin matrices, ΔW = s A B, whose rank r is much smaller than the
# > sides of W **(2)**. Only A and B train **(3)**, and they have far fewer numbers than W **(4)**.
# > It suits the projections of attention and of the feed-forward layers **(5)**. For inference,
# > ΔW is merged into W, or applied beside it and swapped **(6)**. So a model learns a new task on a
# > small budget, and what it could do before is not lost **(7)**.
#
# That is the right answer. (*Projections* are the layers that multiply by a matrix, and *inference*
# is the use of a model that has been trained.) Below, each of its seven claims is tried on a real,
# if small, language model, and then the wrong answers are.
#
# ## A picture

# %% tags=["hide-input"]
ml.plots.show(
    ml.plots.lora_picture(),
    "Left, full fine-tuning: x goes through a square W in blue, all of which "
    "trains. Right, LoRA: x goes through a grey, frozen W and beside it through a "
    "thin A and a thin B in orange.",
)

# %% [markdown]
# A layer turns a row x of d_in numbers into a row y of d_out numbers. Full fine-tuning changes its
# matrix W. LoRA leaves W alone and puts a narrow detour beside it. Blue is full fine-tuning and
# orange is LoRA, in every figure of these lessons that compares the two.
#
# ## The formula
#
# $$y = x (W + \Delta W), \qquad \Delta W = s A B, \qquad s = \alpha / r$$
#
# | | shape | |
# |---|---|---|
# | W | d_in × d_out | the pretrained weights, frozen |
# | A | d_in × r | trains, starts random |
# | B | r × d_out | trains, starts at zero |
# | r | | the rank, which you choose: 4, 8, 16, … |
# | α | | alpha, which you choose too: how much the detour counts |
#
# A and B together are called an *adapter*.
#
# The *rank* of a matrix is the smallest number of rows from which all its rows can be mixed, that
# is, built as weighted sums. Every row of A B is a mix of the r rows of B, so the rank of ΔW is at
# most r. Hence "low-rank".
#
# Nobody has to form A B in order to use it: (x A) B is the same, and works with two thin matrices.
# (Hu et al. 2021, section 4.1. The paper multiplies columns, so its A and B are the transposes of
# ours.) In this package the formula stands in `minilora/reference.py`, as a textbook writes it:

# %%
rng = np.random.default_rng(0)
shapes = ((5, 8), (8, 6), (8, 2), (2, 6))
x, W, A, B = (rng.standard_normal(shape) for shape in shapes)
a, b = ml.Tensor(A), ml.Tensor(B)
beside = reference.lora_linear(x, ml.Tensor(W), None, a, b, scale=2.0)
merged = x @ (W + 2.0 * A @ B)
same = np.allclose(beside.data, merged)
print("W beside A and B gives what one matrix does:", same)

# %% [markdown]
# ### Exercise 0.1: the layer
#
# *Difficulty 1 of 5, 3 minutes.* Write the formula in NumPy, where `@` is the matrix product.
# Replace the `...`, then run both cells.


# %%
def lora_forward(
    x: np.ndarray, W: np.ndarray, A: np.ndarray, B: np.ndarray, alpha: float, r: int
) -> np.ndarray:
    """y = x (W + s A B) with s = alpha / r.   x (..., d_in) -> y (..., d_out)"""
    # SOLUTION
    return x @ W + (alpha / r) * (x @ A) @ B
    # END SOLUTION


# %%
check.lora_forward(lora_forward)

# %% [markdown]
# ## A model to tune
#
# `docs-tiny` is a transformer of two *blocks*, which are groups of layers, built alike. It has read
# the English documentation that comes with Python, and writes text one character at a time. Its new
# task: Python code.
#
# How well a model knows a text is measured by its *loss*: the mean of -log p, where p is the
# probability that it gave to the character that really came next. Lower is better. The unit is
# called nats per character.

# %%
english, code = ml.load_corpus("prose"), ml.load_corpus("code")
base = ml.load_model("docs-tiny")
WINDOWS = light(256)  # of 64 characters, for a loss; light: fewer in a browser


def losses(model):
    """Of the new task and of English, on texts that no model was trained on."""
    texts = code.test, english.test
    return tuple(ml.text_loss(model, text, WINDOWS) for text in texts)


base_code, base_english = losses(base)
print(f"loss on Python code {base_code:.3f}, on English {base_english:.3f}")
print(f'\nWhat it writes after "def ":\n{ml.write(base, "def ", 160, seed=0)}')

# %% [markdown]
# It continues the first word of a Python function with something like English. Nothing else is to
# be expected: it has seen hardly any code.
#
# *With your own text*: put the path of a file in the first line, `code = ml.load_text("my.txt")`,
# and all cells below will tune the model to that file, which should have at least some hundred
# thousand characters. (What the lesson says of the results is about Python code.)
#
# ## Add LoRA: claims 3 and 4
#
# The next lines are all it takes. We load the model again, because `base` is to stay as it is, and
# put an adapter of rank 4 on every matrix of both blocks.

# %%
config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")


def adapted(config=config, name="code"):
    """The base model, just loaded, with a new adapter."""
    model = ml.load_model("docs-tiny")
    ml.add_adapter(model, config, name, rng=np.random.default_rng(3))
    return model


print(adapted())

# %% [markdown]
# Every matrix has become a `LoraLinear`, with its adapter beside it: 18,432 numbers train, all of
# them in the adapters. (The two blocks are alike, so they are shown once.) Now one of the matrices,
# and the count of them all.

# %%
model = adapted()
q = model.layers[0].attn.q_proj
adapter = q.adapters["code"]
for name, array in (("W", q.base.weight), ("A", adapter.A), ("B", adapter.B)):
    trains = "trains" if array.requires_grad else "frozen"
    print(f"{name}  {array.shape!s:<11} {array.size:>6,} numbers, {trains}")

full_count = ml.count_parameters(base)[0]
lora_count, lora_total = ml.count_parameters(model)
print(f"\nwhole model: {full_count:,} numbers trained, now {lora_count:,} do")
print(f"             that is {lora_count / full_count:.1%}")

# %% [markdown]
# **Claim 4 holds**, for the matrix and for the model. Lesson 05 counts larger models, for which the
# share is far smaller.
#
# ### Exercise 0.2: the share that trains
#
# *Difficulty 2 of 5, 5 minutes.* A model has `total` numbers. LoRA of rank r is put on matrices
# whose sides (d_in, d_out) are in `shapes`. Which share of all numbers, adapters included, trains
# then? A share lies between 0 and 1. (PEFT, the usual library for LoRA, reports this share in
# per cent.)


# %%
def trained_share(total: int, shapes: list[tuple[int, int]], r: int) -> float:
    """Numbers that train, divided by all numbers, both with LoRA in place."""
    # SOLUTION
    trained = sum(r * (d_in + d_out) for d_in, d_out in shapes)
    return trained / (total + trained)
    # END SOLUTION


# %%
check.trained_share(trained_share)

# %% [markdown]
# Because B starts at zero, ΔW does too. So before training the model with the adapter *is* the base
# model, to the last bit. And when we compute gradients for a batch, only A and B get any.

# %%
batches = code.batches(12, 64)  # 12 texts of 64 characters, each time others
ids, targets = batches(np.random.default_rng(0))
model = adapted()
same = np.array_equal(model(ids).data, base(ids).data)
print(f"same output as the base, bit for bit: {same}")

ml.cross_entropy(model(ids), targets).backward()
has_gradient = [name for name, p in model.named_parameters() if p.grad is not None]
has_none = [name for name, p in model.named_parameters() if p.grad is None]
print(f"\narrays with a gradient: {len(has_gradient)}, such as {has_gradient[0]}")
print(f"arrays without:         {len(has_none)}, such as {has_none[0]}")
assert all(name.endswith((".A", ".B")) for name in has_gradient)

# %% [markdown]
# **Claim 3 holds.** The `assert` at the end would stop the notebook if anything but an A or a B had
# a gradient.
#
# ## Train, both ways
#
# Now both methods start from the same model and see the same 300 batches, each of 12 texts of 64
# characters. Full fine-tuning takes 0.001 as its learning rate, the size of a step, and LoRA 0.01:
# it usually needs a larger one (`minilora study learning_rate_sweep` shows how much larger).
#
# A *seed* fixes the random choices: where A starts and which batches come.

# %%
SEED = 3  # a fourth run: the results that come with minilora are of seeds 0, 1, 2


def train(model, lr, steps=300, corpus=code, **options):
    config = ml.TrainConfig(steps=light(steps), lr=lr, seed=SEED)
    return ml.train(model, corpus.batches(12, 64), config, **options)


def watch(model):
    """On the validation text; the test text is for the result alone."""
    return ml.text_loss(model, code.val, WINDOWS)


full_model, lora_model = ml.load_model("docs-tiny"), adapted()
curves = {
    "full": train(full_model, lr=1e-3, evaluate=watch, evaluate_every=25).evaluations,
    "lora": train(lora_model, lr=1e-2, evaluate=watch, evaluate_every=25).evaluations,
}

# %%
results = json.loads((ml.studies.SHIPPED / "compare.json").read_text("utf-8"))
shipped = results["tasks"][0]


def of_three(method, key):
    """The three seeds' results that come with minilora."""
    return [run[key] for run in shipped["runs"] if run["method"] == method]


live = {"full": losses(full_model), "lora": losses(lora_model)}
print(f"{'loss on Python code':<20} {'this run':>9}   ", end="")
print("three seeds: mean (lowest to highest)")
print(f"{'base model':<20} {base_code:>9.3f}   {shipped['base']['test']:.3f}")
for method, name in (("full", "full fine-tuning"), ("lora", "LoRA, r = 4")):
    seeds = of_three(method, "test")
    spread = f"{mean(seeds):.3f} ({min(seeds):.3f} to {max(seeds):.3f})"
    print(f"{name:<20} {live[method][0]:>9.3f}   {spread}")

# %%
share = (base_code - live["lora"][0]) / (base_code - live["full"][0])
start = shipped["base"]["test"]
learned = {method: start - mean(of_three(method, "test")) for method in live}
share_of_three = learned["lora"] / learned["full"]
print(f"LoRA's part of full's improvement: {share:.0%}; ", end="")
print(f"of three seeds: {share_of_three:.0%}")

# %% [markdown]
# How did they get there? The curves below are on a second text that was not trained on, the
# *validation* text, which happens to be harder: compare the curves with each other, not with the
# table.

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(6.8, 3.7), layout="constrained")
    ml.plots.plot_learning_curves(shipped, ax)
    this_run = {"ls": "", "marker": "o", "ms": 9, "mfc": "none", "mec": "0.25"}
    for curve in curves.values():
        ax.plot(*zip(*curve, strict=True), **this_run)
    ax.plot([], [], **this_run, label="this run")
    ax.set(ylim=(1.6, 3.6), title="Learning Python code in 300 steps")
    ax.legend()
    ml.plots.show(
        figure,
        "Validation loss over 300 steps. Full fine-tuning and LoRA fall steeply "
        "from 3.1 and level off, LoRA a little above; a model from random weights "
        "stays far above both.",
    )

# %% [markdown]
# **What to see.** Both curves fall steeply at once and level off, far below the dotted one, which
# is a model of the same size that started from random weights: that distance is what the base model
# is worth. LoRA's curve stays a little above full fine-tuning's, in this run and in the other
# three. It gets most of the way with a small part of the numbers; it does *not* get all of it.
#
# **What it does not show.** What either of them lost on the way: that comes under claim 7. Nor what
# happens with other ranks, tasks and models: on an easy task LoRA may reach full fine-tuning, and
# on a hard one it may stay further behind (lesson 06).
#
# **Does it hold at scale?** Yes, with the same "it depends". On Llama-3.2-3B, learning to solve
# school mathematics, LoRA of rank 32 gets .478 of the answers right and full fine-tuning .472, that
# is the same, as the standard error is .014 (PEFT's MetaMathQA benchmark, one seed). On
# Llama-2-7B, learning to write code from much text, even rank 256 stays behind, .224 to .263;
# after learning from instructions the two are equal, .498 and .497 (Biderman et al. 2024,
# HumanEval).
#
# ### Predict, change, run: the learning rate
#
# Full fine-tuning's rate was 0.001. What will LoRA's loss on Python code be after 100 steps with
# that rate? Put a number in place of the `...`, run the cell, then try the other rates.

# %%
RATE = 0.001  # change me: 0.01, 0.1
GUESS = ...  # the loss on Python code after 100 steps, in nats per character

model = adapted()
train(model, lr=RATE, steps=100)
print(f"the base model's loss is {base_code:.2f}")
loss = round(ml.text_loss(model, code.test, WINDOWS), 2)
check.predict(GUESS, loss, "nats per character", within=0.05)

# %% [markdown]
# You should see that 0.01 gets LoRA further than 0.001, and that with 0.1 it ends above the base
# model, having learned nothing. An exam's "LoRA needs a lower learning rate" has it the wrong way
# round.
#
# And what do the models write now?

# %%
for name, model in (("base", base), ("full", full_model), ("LoRA", lora_model)):
    print(f"--- {name}\n{ml.write(model, 'def ', 160, seed=0)}\n")

# %% [markdown]
# Neither is a programmer after 300 steps. But the English is gone: there are names with
# underscores, brackets, `self`, and lines that are indented.
#
# ## What has changed: claims 1 and 2
#
# We compare every weight with the base model's, bit by bit. Then we look at the change itself: in
# one matrix of a feed-forward layer, how high is its rank?

# %%
before = {name: p.data for name, p in base.named_parameters()}


def changed(model):
    """How many of the base model's numbers are no longer what they were."""
    now = {plain_path(name): p.data for name, p in model.named_parameters()}
    return sum(  # compared as bits, so that not even -0 passes for 0
        int((now[name].view(np.int32) != array.view(np.int32)).sum())
        for name, array in before.items()
    )


print(f"numbers of the base that changed, of {full_count:,}:")
print(f"  full fine-tuning {changed(full_model):>8,}")
print(f"  LoRA             {changed(lora_model):>8,}")

# %%
path = "layers.0.mlp.up_proj"
W = base.get_submodule(path).weight.data
full_delta = full_model.get_submodule(path).weight.data - W
lora_delta = ml.get_delta_weight(lora_model, path)  # s A B
for name, delta in (("full fine-tuning", full_delta), ("LoRA", lora_delta)):
    rank = np.linalg.matrix_rank(delta)
    print(f"the change of {path}, {name}: {delta.shape}, rank {rank}")

deltas = [layer.delta_weight("code") for layer in lora_layers(lora_model).values()]
ranks = {int(np.linalg.matrix_rank(delta)) for delta in deltas}
print(f"\nranks of LoRA's change in all {len(deltas)} matrices: {sorted(ranks)}")

# %% [markdown]
# **Claims 1 and 2 hold.** W is untouched, and every ΔW has rank 4 where it could have 128. Note
# what is of low rank: the *change*. LoRA does not break W itself into thin matrices, though one
# often reads that it "decomposes the weights".
#
# In this matrix full fine-tuning's change has the highest rank possible, 128. So the two changes
# cannot be the same, though they do nearly the same; lesson 07 compares them.
#
# ### Exercise 0.3: the change
#
# *Difficulty 1 of 5, 3 minutes.* Compute ΔW from A, B, alpha and r.


# %%
def delta_weight(A: np.ndarray, B: np.ndarray, alpha: float, r: int) -> np.ndarray:
    """ΔW = s A B, which has the shape of W.   A (d_in, r), B (r, d_out)"""
    # SOLUTION
    return (alpha / r) * (A @ B)
    # END SOLUTION


# %%
check.delta_weight(delta_weight)

# %% [markdown]
# ## What it saves, and what it does not
#
# Which numbers must be computed, kept in memory, and stored? The optimizer, AdamW, keeps two
# numbers for each one that trains. We measure it, a training step, and the file.

# %%
costs = {}
for method, model in (("full", full_model), ("lora", lora_model)):
    training = ml.Training(model, batches, ml.TrainConfig(steps=1, lr=1e-3))
    costs[method] = {
        "numbers that train": sum(p.size for p in model.trainable_parameters()),
        "optimizer, kB": training.optimizer.state_bytes / 1e3,
        "file to keep, kB": ml.disk_bytes(model) / 1e3,
        "peak memory of a step, MB": round(ml.step_memory(training) / 1e6, 1),
    }

print(f"{'':<26} {'full':>9} {'LoRA':>9} {'LoRA / full':>12}")
for what, full in costs["full"].items():
    lora, digits = costs["lora"][what], 1 if what.endswith("MB") else 0
    shown = f"{full:>9,.{digits}f} {lora:>9,.{digits}f} {lora / full:>12.0%}"
    print(f"{what:<26} {shown}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
    ml.plots.plot_costs(shipped, ax)
    ml.plots.show(
        figure,
        "LoRA's costs in per cent of full fine-tuning's: trained numbers, optimizer "
        "and file are around 5 per cent, memory and time of a step between 75 and "
        "80.",
    )

# %% [markdown]
# The figure is of the three shipped runs, which were timed on an otherwise idle machine; so this
# notebook has no seconds of its own. Table and figure agree to a per cent.
#
# What belongs to *trained numbers* nearly disappears: their gradients, the optimizer's memory, the
# file to keep of each task (LoRA's also holds names and some zeros, so its share is a little larger
# than that of the numbers; lesson 05). What belongs to *computing with the model* does not. LoRA
# still sends every batch through all of W, and keeps what each layer gave, the *activations*, for
# the way back. So time and memory of a step fall by little more than a fifth here. In a larger
# model, trained with fewer texts at a time, weights and optimizer are a larger part of the memory,
# and more of it is saved: in the benchmark of Llama-3.2-3B memory fell to 57 per cent and time to
# 44, while 0.3 per cent of the numbers trained.
#
# ## Where to put it: claim 5
#
# A block of a transformer has matrices of two kinds. Those of *attention* (q, k, v, o) let
# characters look at each other; those of the *feed-forward* layers (up, down) work on each
# character alone. LoRA can go to any of them. Here are three places with about the same number of
# trained numbers, 100 steps each (the third has a tenth fewer).

# %%
places = {
    "attention": ml.LoraConfig(5, 10, ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "feed-forward": ml.LoraConfig(4, 8, ["up_proj", "down_proj"]),
    "both": ml.LoraConfig(2, 4, "all-linear"),
}
print(f"{'':<13} {'rank':>4} {'numbers':>8} {'loss on code':>13}")
print(f"{'base model':<13} {'':>4} {0:>8} {base_code:>13.2f}")
for place, place_config in places.items():
    model = adapted(place_config)
    train(model, lr=1e-2, steps=100)
    numbers = ml.count_parameters(model)[0]
    loss = ml.text_loss(model, code.test, WINDOWS)
    print(f"{place:<13} {place_config.r:>4} {numbers:>8,} {loss:>13.2f}")

# %% [markdown]
# **Claim 5 holds**: either place alone takes the model most of the way. Here the feed-forward
# layers do a little better than attention. That is one task, one seed and few steps; other tasks
# prefer other places (`minilora study which_weights` has one).
#
# ## Merge, take off, swap: claims 6 and 7
#
# *Merging* adds ΔW to W. Then the detour is not needed, and the model does the same computation as
# the base model. *Unmerging* puts W back.

# %%
model = copy.deepcopy(lora_model)
beside = model(ids).data
ml.merge_adapter(model)
merged = model(ids).data
gap, size = abs(merged - beside).max(), abs(beside).max()
print(f"outputs up to {size:.0f}, ", end="")
print(f"merged and beside differ by less than 0.001: {gap < 1e-3}")
same_choice = (merged.argmax(-1) == beside.argmax(-1)).mean()
print(f"same choice of the likeliest character: {same_choice:.1%}")

ml.unmerge_adapter(model)
print(f"numbers of the base that differ after unmerging: {changed(model)}")

W = base.get_submodule(path).weight.data
rounded = ((W + lora_delta) - lora_delta != W).mean()
print(f"share that would differ in {path}, ", end="")
print(f"had we subtracted ΔW instead: {rounded:.0%}")

# %% [markdown]
# The last line says why unmerging means to *keep* W: additions are rounded, and taking ΔW off again
# does not undo the rounding.
#
# ### Exercise 0.4: merging
#
# *Difficulty 2 of 5, 4 minutes.* Return the merged matrix. Somebody may want W back later, so the
# array W that you are given must stay as it is.


# %%
def merge(W: np.ndarray, A: np.ndarray, B: np.ndarray, s: float) -> np.ndarray:
    """W + s A B in an array of its own."""
    # SOLUTION
    return W + s * (A @ B)
    # END SOLUTION


# %%
check.merge(merge)

# %% [markdown]
# An adapter need not be merged. Beside W, it can be switched off or swapped. Let us teach the same
# model a second thing, to write in capitals, with an adapter of its own.


# %%
def upper(ids):
    return ml.encode(ml.decode(ids).upper())


splits = ("train", "val", "test")
upper_case = {split: upper(getattr(english, split)) for split in splits}
capitals = replace(english, **upper_case)
two = copy.deepcopy(lora_model)
ml.add_adapter(two, config, "capitals", rng=np.random.default_rng(SEED))
history = train(two, lr=1e-2, steps=150, corpus=capitals)


# %%
def row(name):
    new, old = losses(two)
    values = [new, ml.text_loss(two, capitals.test, WINDOWS), old]
    print(f"{name:<18}" + "".join(f"{value:>14.3f}" for value in values))


print(f"{'loss on':<18}{'Python code':>14}{'CAPITALS':>14}{'English':>14}")
for name in ("code", "capitals"):
    ml.set_adapter(two, name)
    row(f"adapter {name}")
with ml.disable_adapter(two):
    row("no adapter")
    back = losses(two) == (base_code, base_english)
print(f"\nwithout an adapter, exactly the base model's losses: {back}")
print(f"numbers of the base that changed: {changed(two)}")

for name, prompt in (("code", "def "), ("capitals", "THE ")):
    ml.set_adapter(two, name)
    print(f"\n--- adapter {name}\n{ml.write(two, prompt, 160, seed=0)}")

# %% [markdown]
# **Claim 6 holds.** One base model, two small adapters, and each does its own task.
#
# **Claim 7 holds, if it is read with care.** A new task was learned with few numbers, and without
# the adapter the model is exactly what it was. But look at the column "English": *with* an adapter,
# the old task suffers. Does it suffer less than under full fine-tuning?

# %%
with ml.disable_adapter(lora_model):
    detached = losses(lora_model)[1]
print(f"{'loss on English':<24} {'this run':>9} {'three seeds, mean':>18}")
for name, now, key in (
    ("base model", base_english, None),
    ("full fine-tuning", live["full"][1], ("full", "old")),
    ("LoRA, attached", live["lora"][1], ("lora", "old")),
    ("LoRA, detached", detached, ("lora", "old_detached")),
):
    three = mean(of_three(*key)) if key else shipped["base"]["old"]
    print(f"{name:<24} {now:>9.3f} {three:>18.3f}")

# %% [markdown]
# It does not, here: while the adapter is attached, the model has forgotten as much as under full
# fine-tuning, or nearly. You will read that LoRA forgets less. With these learning rates it does
# not hold for this model, and at scale it is disputed: it held for Llama-2-7B (Biderman et al.
# 2024), and not for Llama-3.2-3B against full fine-tuning at a gentle rate (PEFT's benchmark). What
# LoRA does guarantee is another thing: nothing is overwritten, so nothing is lost for good, as long
# as W, or the base model's file, is kept.
#
# ### Predict, change, run: half an adapter
#
# s says how much the detour counts. It can be changed after training, too. With *half* of s, what
# will the loss on English be? It lies between the base model's and that with the whole adapter.

# %%
STRENGTH = 0.5  # change me: 0, 1, 1.5, 3: what s is multiplied by
GUESS = ...  # the loss on English, in nats per character

model = copy.deepcopy(lora_model)
for layer in lora_layers(model).values():
    layer.adapters["code"].s *= STRENGTH
new, old = losses(model)
print(f"loss on Python code {new:.2f}; it writes:")
print(ml.write(model, "def ", 120, seed=0) + "\n")
check.predict(GUESS, round(old, 2), "nats per character", within=0.05)

# %% [markdown]
# You should see that half an adapter costs little of the English and brings most of the code: the
# loss does not go along a straight line. More than the whole, and both get worse.
#
# ## Wrong answers, measured
#
# Exams offer answers of a few kinds beside the right one.

# %%
model = copy.deepcopy(lora_model)
types = {p.data.dtype.name for p in model.parameters()}
ml.merge_and_unload(model)  # for good: what is left is a plain model that knows code
types |= {p.data.dtype.name for p in model.parameters()}
zeros = [sum(int((p.data == 0).sum()) for p in m.parameters()) for m in (base, model)]
all_merged = ml.count_parameters(model)[1]

print('1. "It increases the number of trainable parameters."')
print(f"   trainable: {full_count:,} -> {lora_count:,}")
print(f"   all numbers: {full_count:,} -> {lora_total:,}; ", end="")
print(f"after merging {all_merged:,}")
print('2. "It is distillation, pruning, quantization, …"')
print("   a smaller model that imitates (distillation): ", end="")
print(f"{full_count:,} -> {all_merged:,} numbers")
print(f"   weights set to zero (pruning): {zeros[0]:,} zeros -> {zeros[1]:,}")
print("   fewer bits for a number (quantization): ", end="")
print(f"{', '.join(sorted(types))} throughout")

# %%
print('3. "It has no effect on efficiency."')
for what, value in costs["full"].items():
    name = what.partition(",")[0]  # without the unit
    print(f"   {name:<22} {costs['lora'][what] / value:>4.0%} of full fine-tuning's")
bad = definition.what_false_examples_do.measure()
print('4. "It can do with data of low quality." Error on what is true, ', end="")
print("on a small layer,")
print(f"   after true examples:      {bad['error after true examples only']:.4f}")
print(f"   half of them false:       {bad['error on what is true']:.4f}")
print(f"   the same, with r = 1:     {bad['error on what is true, at r = 1']:.4f}")
raw = definition.lora_on_random_weights.measure()
print('5. "It needs no pretrained model." Loss of learning to reverse ', end="")
print("words, 12 steps,")
print(f"   from a pretrained model:  {raw['loss from the pretrained base']:.1f}")
print(f"   from random weights:      {raw['loss from random weights']:.1f}")

# %% [markdown]
# 1. The first mixes up "trainable" and "all". A and B come on top, but W no longer trains.
# 2. Those are other techniques. Distillation and pruning make a model smaller, quantization makes
#    its numbers shorter, and LoRA does none of this: it is a way to *fine-tune*. It can be combined
#    with them, as in QLoRA, whose frozen W has 4 bits a number.
# 3. It is efficient in what has to be trained and stored, and much less so in the memory and the
#    time of a step. Its main advantage is the first: a small file for each task, one base for all.
# 4. A false example that has a pattern is learned like a true one, at any rank. (These two
#    measurements belong to exam cards. Every card has one: `minilora quiz`, and "s" shows it.)
# 5. What the change cannot do, W must: a low rank is enough to adapt, not to learn everything.
#
# Three more to be wary of: "inference is faster" (merged it does the same computation as the base;
# beside W there are two more products), "it is always as good as full fine-tuning" (here it is not
# quite), and invented names, such as "Layer-wise Optimization", for what L, o, R and A stand for.
#
# ## LoRA by hand
#
# Here the ten minutes end. What is left is to do once, without any library, what the training above
# did 300 times. It needs the gradients of A and B. G is the gradient of the loss with respect to y,
# and has the shape of y. One rule is enough: if Z = X M, then the gradient of M is
# Xᵀ (gradient of Z), and that of X is (gradient of Z) Mᵀ.
#
# ### Exercise 0.5: the gradients
#
# *Difficulty 3 of 5, 12 minutes.* Use the rule on y = x W + s (x A) B, first for B, then for A.
# Before you run the check, predict: at the start B is zero and A is not. Which of the two gradients
# is zero then?


# %%
def lora_gradients(
    x: np.ndarray, A: np.ndarray, B: np.ndarray, s: float, G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(gradient of A, gradient of B).

    x (n, d_in), A (d_in, r), B (r, d_out), G (n, d_out)"""
    # SOLUTION
    grad_A = s * x.T @ (G @ B.T)
    grad_B = s * (x @ A).T @ G
    return grad_A, grad_B
    # END SOLUTION


# %%
check.lora_gradients(lora_gradients)

# %% [markdown]
# Now compare your prediction with the model, before its first step.

# %%
model = adapted()
ml.cross_entropy(model(ids), targets).backward()
for letter in "AB":
    named = model.named_parameters()
    found = [p.grad for name, p in named if name.endswith(f".{letter}")]
    moved = sum(bool(np.any(np.asarray(grad) != 0)) for grad in found)
    print(f"gradients of {letter} that are not zero: {moved} of {len(found)}")

# %% [markdown]
# The gradient of A contains B, so in the first step only B moves, and from the second on both do.
# If both started at zero, both gradients would be zero, for ever.
#
# ### Exercise 0.6, a small project: train it
#
# *Difficulty 4 of 5, 20 minutes.* Train A and B without any library. In each step compute
# y = x (W + s A B), then G = (y - target) / n, where n is the number of rows of x. (This is the
# gradient of half the squared error, summed over a row and averaged over the rows.) Then compute
# both gradients, from the A and B that this step began with, and take lr times its gradient off
# each. Change none of the arrays you are given; you may call your `lora_gradients`.


# %%
def train_lora(
    x: np.ndarray, target: np.ndarray, W: np.ndarray, A: np.ndarray, B: np.ndarray,
    s: float, lr: float, steps: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A and B after `steps` steps of gradient descent.

    x (n, d_in), target (n, d_out)"""
    # SOLUTION
    for _ in range(steps):
        y = x @ W + s * (x @ A) @ B
        G = (y - target) / len(x)
        grad_A, grad_B = lora_gradients(x, A, B, s, G)
        A, B = A - lr * grad_A, B - lr * grad_B
    return A, B
    # END SOLUTION


# %%
check.train_lora(train_lora)

# %% [markdown]
# Lesson 04 makes a layer of this, with everything that belongs to it, and puts it into the model.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 00`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - What is LoRA, and how does it help in fine-tuning models? What does it compute?
# - What does "low rank" mean, and what is it that has a low rank?
# - What trains, what is frozen, and what has changed when training is over?
# - What is the main advantage? Does LoRA make the model smaller, or its answers faster?
# - How does it differ from distillation, pruning and quantization?
# - What becomes of false examples, and why does it take a pretrained base?
#
# ## Where to read on
#
# - Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*: sections 1 (the idea in a
#   page) and 4 (the method).
# - Biderman et al. 2024, *LoRA Learns Less and Forgets Less*: the same comparison for a model of 7
#   billion parameters. There LoRA does forget less.
# - Mangrulkar et al. 2022, *PEFT*: the library, whose names are used here too.
# - In this package: `minilora/lora.py`, which is all of LoRA in one file, and `minilora compare` in
#   a terminal, which makes the comparison above with as many seeds as you like.
