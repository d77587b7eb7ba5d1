# %% [markdown]
# # 03 · Full fine-tuning and what it costs
#
# **The question.** What does it take to train every number of a model: in memory, in arithmetic,
# and in what the model forgets?
#
# **You will be able to**
#
# - add up the memory of a training, and say what 12, 16 and 18 bytes a parameter consist of;
# - write a step of AdamW, a schedule of rates and gradient clipping, and say what each is for;
# - choose a learning rate with an eye on what is forgotten for what is learned;
# - tell overfitting, underfitting and forgetting apart by their curves;
# - say which parts of the bill LoRA makes small, and which it does not.
#
# **Time:** 40 seconds to run, 25 minutes to read, 111 with the exercises. **Before this:** lesson
# 02, or: you know that a transformer is a stack of blocks of matrices, and that its loss is a mean
# of -log p in nats per character. **Words:** [glossary](GLOSSARY.md).

# %%
import copy
import textwrap

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora.analysis.profiler import profile
from minilora.learn import check
from minilora.learn.demos.memory import activations_computed_again
from minilora.learn.light import light
from minilora.studies import STUDIES, shipped_rows
from minilora.studies.forgetting_frontier import forgetting_frontier_figure
from minilora.studies.learning_rate_sweep import plot_learning_rate_sweep

# %% [markdown]
# ## A picture
#
# *Full fine-tuning* goes on training a pretrained model, with all its numbers, on a new text. Each
# of these numbers, a *parameter*, then takes up more memory than its own few bytes:
#
# - its **weight**;
# - its **gradient**, which says how the loss changes with it;
# - two **moments**, running averages that the optimizer AdamW keeps;
# - in many recipes a **copy** of the weight in float32, because a weight in 16 bits is too coarse
#   to take up a small step.
#
# float32 has 32 bits, which are 4 bytes. bfloat16 and float16 have 2 bytes. Training that computes
# in 16 bits and keeps its averages in 32 is called *mixed precision*.

# %%
RECIPES = {  # bytes of (weight, gradient, copy, moments)
    "use only, 16 bits": (2, 0, 0, 0),
    "plain SGD, 16 bits": (2, 2, 0, 0),
    "AdamW, 16 bits, no copy": (2, 2, 0, 8),
    "AdamW, mixed precision": (2, 2, 4, 8),
    "the same, gradients in float32": (2, 4, 4, 8),
    "AdamW, all in float32 (here)": (4, 4, 0, 8),
}
PARTS = ("weight", "gradient", "float32 copy", "two moments")
for name, parts in RECIPES.items():
    total = sum(parts)
    print(f"{name:<31} {total:>3} bytes a parameter, 7 billion: {7 * total:>4} GB")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    greys = ("0.25", "0.5", "0.72", "0.88")
    for y, parts in enumerate(RECIPES.values()):
        left = 0
        for part, grey in zip(parts, greys, strict=True):
            ax.barh(y, part, left=left, color=grey, edgecolor="white")
            left += part
        ax.text(left + 0.2, y, f"{left}", va="center")
    for name, grey in zip(PARTS, greys, strict=True):
        ax.barh(0, 0, color=grey, label=name)
    ax.set_yticks(range(len(RECIPES)), list(RECIPES))
    ax.set(xlabel="bytes a parameter", xlim=(0, 20), xticks=range(0, 21, 4))
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.legend(loc="upper right")
    ml.plots.show(
        figure,
        "Stacked bars: 2 bytes a parameter to use a model, 4 with SGD, 12, 16 or 18 with AdamW.",
    )

# %% [markdown]
# **What to see.** The weights are the small part. Of 12, 16 or 18 bytes a parameter, 8 are AdamW's
# moments. So a model of 7 billion parameters, which needs 14 GB to be *used* in 16 bits, needs 84,
# 112 or 126 GB to be *trained*. (112 is the count of Rajbhandari et al. 2020, ZeRO, section 3.1.)
#
# **What it does not show.** *Activations*, the outputs of the layers. They are not counted per
# parameter but per token, and come below.
#
# ## The formula
#
# $$\text{bytes} = \underbrace{n\, b_w}_{\text{weights}}
# + \underbrace{n_{train}\, b_g}_{\text{gradients}}
# + \underbrace{n_{train}\, (4 + 4 + c)}_{\text{optimizer}}
# + \underbrace{\text{tokens} \cdot a}_{\text{activations}}$$
#
# Of n numbers, $n_{train}$ train; $b_w$ and $b_g$ are the bytes of a weight and of a gradient, c is
# 4 with a float32 copy and else 0, and a is what one token leaves behind on its way through the
# model. In full fine-tuning all n train. A *frozen* number, one that does not train, has a weight
# and nothing else.
#
# ### Exercise 3.1: the ledger
#
# *Difficulty 2 of 5, 8 minutes.* Return three numbers of bytes: of all weights, of all gradients,
# and of the optimizer with both its moments and, if `copy` is true, its float32 copy.


# %%
def memory_ledger(
    frozen: int, trained: int, weight_bytes: int, gradient_bytes: int, copy: bool
) -> tuple[int, int, int]:
    """(weights, gradients, optimizer), in bytes, of so many numbers."""
    # SOLUTION
    weights = weight_bytes * (frozen + trained)
    optimizer = (4 + 4 + (4 if copy else 0)) * trained
    return weights, gradient_bytes * trained, optimizer
    # END SOLUTION


# %%
check.memory_ledger(memory_ledger)

# %% [markdown]
# ## The ledger beside a measurement
#
# Now on a real model. `docs-tiny` is a transformer of two blocks that has read English
# documentation; its new text is Python code. (For your own text, put
# `code = ml.load_text("FILE.txt")` in place of the next line.) We take one step and count the bytes
# of every array there is.

# %%
code, english = ml.load_corpus("code"), ml.load_corpus("prose")
base = ml.load_model("docs-tiny")


def with_lora(model):
    config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


def one_step(model, rows):
    """A training of one step on `rows` texts of 64 characters."""
    once = ml.TrainConfig(steps=1, lr=1e-3)
    return ml.Training(model, code.batches(rows, 64), once)


# %%
models = {"full": copy.deepcopy(base), "LoRA": with_lora(copy.deepcopy(base))}
ids, targets = code.batches(12, 64)(np.random.default_rng(0))
n = base.parameters()[0].data.itemsize  # 4: everything is float32 here
print(f"{'bytes of':<28} {'full':>12} {'LoRA':>12}")
counted = {}
for name, model in models.items():
    optimizer = ml.AdamW(model.trainable_parameters())
    ml.cross_entropy(model(ids), targets).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    counted[name] = {
        "weights": sum(p.data.nbytes for p in model.parameters()),
        "gradients": sum(g.nbytes for g in gradients),
        "moments": optimizer.state_bytes,
        "file to keep": ml.disk_bytes(model),
        "numbers that train, x 4": n * ml.count_parameters(model)[0],
    }
for what in counted["full"]:
    print(f"{what:<28} {counted['full'][what]:>12,} {counted['LoRA'][what]:>12,}")

# %% [markdown]
# The ledger is exact: in full fine-tuning weights, gradients and moments stand as 4 : 4 : 8 bytes,
# the last line of the table above. With LoRA, which lesson 00 introduced and lesson 04 builds, the
# weights remain, and even grow by A and B. Gradients and moments are those of A and B alone.
#
# So this sentence from an official course is wrong: "Only adapter parameters are stored in GPU
# memory" (Hugging Face LLM course, chapter 11). Every step computes with all of W, so W is there.
#
# Now the activations. `ml.step_memory` measures the highest point of a step beyond the weights.

# %%
ROWS = (1, 2, 4, 8, 16)
peaks = {
    name: [ml.step_memory(one_step(model, rows)) / 1e6 for rows in ROWS]
    for name, model in models.items()
}
print(f"{'MB, by texts in the batch':<28}", *(f"{rows:>6}" for rows in ROWS))
for name, values in peaks.items():
    print(f"{name:<28}", *(f"{value:>6.1f}" for value in values))
slope = {name: (v[-1] - v[-2]) / (ROWS[-1] - ROWS[-2]) for name, v in peaks.items()}
print("\nMB for one more text of 64 characters: "
      f"full {slope['full']:.2f}, LoRA {slope['LoRA']:.2f}")  # fmt: skip
share = [lora / full for full, lora in zip(*peaks.values(), strict=True)]
print(f"LoRA's peak, of full's: {share[0]:.0%} with one text, ", end="")
print(f"{share[-1]:.0%} with sixteen")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, key, marker in (("full", "full", "o"), ("LoRA", "lora", "s")):
        ax.plot(ROWS, peaks[name], marker=marker, color=ml.plots.COLORS[key], label=name)
    ax.axhline(counted["full"]["moments"] / 1e6, color="black", ls=":", lw=1)
    ax.text(16.3, counted["full"]["moments"] / 1e6 + 0.5, "full's moments", ha="right")
    ax.set(xlabel="texts in the batch", ylabel="peak of a step, MB", ylim=(0, None))
    ax.set_xticks(ROWS)
    ax.legend(loc="upper left")
    ml.plots.show(
        figure,
        "Peak memory rises in a straight line with the batch, for full fine-tuning "
        "and LoRA with nearly the same slope; full starts higher.",
    )

# %% [markdown]
# **What to see.** Two lines of nearly the same slope: every text in the batch leaves nearly as many
# activations with LoRA as without, because gradients have to pass through every layer to reach the
# lowest adapter. What LoRA saves is the distance between the lines, which does not depend on the
# batch. So the saving in per cent is large for small batches and small for large ones.
#
# **What it does not show.** A large model, in which weights and moments are a larger part: there
# the distance between the lines counts for more.
#
# **Does it hold at scale?** Yes, in direction. In PEFT's benchmark a Llama-3.2-3B took 36.2 GiB at
# its peak in full fine-tuning and 20.8 GiB with LoRA of rank 32: 57 per cent, for 0.3 per cent of
# the trained numbers, and 44 per cent of the time (method_comparison/MetaMathQA, 2026).

# %% [markdown]
# ### Predict, change, run: memory
#
# Guess the peak of a full step from the table above, then run. What should be seen: it is a
# straight line, so a guess that goes on with the line is near enough.

# %%
TEXTS = 32  # change me: 3, 24, 48
GUESS = ...  # MB
check.predict(GUESS, ml.step_memory(one_step(models["full"], TEXTS)) / 1e6, unit="MB")

# %% [markdown]
# ### What has to be kept
#
# The way back needs some of what the way forward computed. A Linear layer y = x W has the gradients
#
# $$\frac{\partial L}{\partial W} = x^T G, \qquad \frac{\partial L}{\partial x} = G W^T,$$
#
# where G is the gradient of y. The first needs x, so x is kept, *if W trains*. The second needs
# only W. A nonlinearity such as GELU needs its own input, if a gradient passes through it at all.
#
# *Gradient checkpointing* keeps only the inputs of a few places, and computes the rest again on the
# way back (Chen et al. 2016). The package has a small example of eight layers:

# %%
for what, value in activations_computed_again.measure().items():
    print(f"{what:<42} {value:.2g}")

# %% [markdown]
# The same gradients, about a third of the memory, for a second forward pass. It saves where LoRA
# does not, so the two go together.
#
# ### Exercise 3.2: count the activations
#
# *Difficulty 3 of 5, 12 minutes.* A network has a Linear layer from `widths[0]` to `widths[1]`
# numbers, GELU, a Linear from `widths[1]` to `widths[2]`, GELU, and so on; after the last Linear
# there is no GELU. `trains[i]` says whether the W of Linear i trains. How many numbers are kept of
# `tokens` tokens for the way back?
#
# - A Linear keeps its input if its own W trains.
# - A GELU keeps its input if a gradient has to pass through it: if any W *before* it trains.


# %%
def kept_numbers(tokens: int, widths: list[int], trains: list[bool]) -> int:
    """Activations kept for the way back through Linear layers with GELU between."""
    # SOLUTION
    kept = 0
    for i, trained in enumerate(trains):
        if trained:
            kept += widths[i]
        if any(trains[: i + 1]) and i < len(trains) - 1:
            kept += widths[i + 1]
    return tokens * kept
    # END SOLUTION


# %%
check.kept_numbers(kept_numbers)

# %% [markdown]
# ## One step of AdamW
#
# *SGD*, stochastic gradient descent, moves every number against its gradient:
# $p \leftarrow p - \eta g$. The *learning rate* η is the same for all. *AdamW* (Kingma and Ba 2015;
# Loshchilov and Hutter 2019) gives every number a step of its own size. In step t = 1, 2, …
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1-\beta_2)\, g^2,$$
#
# $$\hat m = \frac{m}{1-\beta_1^t}, \quad \hat v = \frac{v}{1-\beta_2^t}, \qquad
# p \leftarrow (1 - \eta\lambda)\, p - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}.$$
#
# m and v are the two *moments*: running averages of the gradient and of its square, both zero at
# first. An average that starts at zero is too small in the beginning; the division by $1-\beta^t$
# corrects this, and is called *bias correction*. λ is the *weight decay*, which pulls every weight
# to zero, whatever its gradient. ε keeps the division from being one by zero.
#
# Without decay the very first step is η times the *sign* of the gradient, as $\hat m = g$ and
# $\hat v = g^2$. We look:

# %%
p = ml.Tensor(np.array([1.0, 1.0, 1.0]), requires_grad=True)
optimizer = ml.AdamW([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
for g in ([100.0, -1.0, 0.01], [100.0, -1.0, 0.01], [-100.0, 1.0, -0.01]):
    before = p.data.copy()
    p.grad = np.array(g)
    optimizer.step()
    print(f"gradient {g!s:<22} moves p by {np.round(p.data - before, 4)}")

# %% [markdown]
# Gradients of 100 and of 0.01 give the same steps: AdamW does not care how large a gradient is,
# only how it compares with its own past. In the third step the gradient has turned round, the
# average m has not yet, and p still moves on a little.
#
# ### Exercise 3.3: a step of AdamW
#
# *Difficulty 3 of 5, 15 minutes.* Return the new p, m and v, as new arrays. `t` is 1 in the first
# step. The check also takes five steps beside `ml.AdamW`.


# %%
def adamw_step(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int,
    lr: float, betas: tuple[float, float], eps: float, decay: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """(p, m, v) after step t with the gradient g, all of one shape."""
    # SOLUTION
    b1, b2 = betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
    return (1 - lr * decay) * p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    # END SOLUTION


# %%
check.adamw_step(adamw_step)

# %% [markdown]
# The decay has a trap. Somebody "freezes" W by setting its gradient to zero before every step, and
# leaves it in the optimizer. AdamW's decay needs no gradient:

# %%
W = ml.Tensor(np.ones((2, 2)), requires_grad=True)
optimizer = ml.AdamW([W], lr=0.02, weight_decay=0.01)
for _ in range(100):
    W.grad = np.zeros((2, 2))
    optimizer.step()
print("after 100 steps with a gradient of zero, ", end="")
print(f"every entry of W is {W.data[0, 0]:.4f}")
print(f"and its moments take up {optimizer.state_bytes} bytes, ", end="")
print(f"twice the {W.data.nbytes} of W")

# %% [markdown]
# W has shrunk by 2 per cent, and its moments are in memory although they stay zero. To freeze means
# `requires_grad = False`, and to give the optimizer only what trains, as
# `model.trainable_parameters()` does. Then it keeps moments for these numbers and no others: for
# LoRA, two for each entry of A and B.
#
# ### SGD beside it, in a bowl
#
# Why pay 8 bytes a parameter for that? Take the simplest loss there is, a bowl
# $L(x) = \frac12 \sum_i h_i x_i^2$ with a curvature $h_i$ in each direction. SGD multiplies $x_i$
# by $1 - \eta h_i$ in every step. In the steepest direction that is stable only for
# $\eta < 2 / h_{max}$; and in the flattest it then needs some $h_{max} / h_{min}$ steps. This ratio
# is the *condition number* of the bowl. *Momentum* averages the gradients:
# $v \leftarrow 0.9\, v + g$, $x \leftarrow x - \eta v$.


# %%
def descend(kind, h, rate, steps, start=(-2.0, 1.0)):
    """The points x (steps + 1, 2) of a descent in the bowl."""
    x = ml.Tensor(np.array(start), requires_grad=True)
    make = {
        "SGD": lambda: ml.SGD([x], lr=rate),
        "SGD with momentum": lambda: ml.SGD([x], lr=rate, momentum=0.9),
        "AdamW": lambda: ml.AdamW([x], lr=rate, betas=(0.9, 0.99), weight_decay=0.0),
    }
    optimizer, points = make[kind](), [x.data.copy()]
    for _ in range(steps):
        x.grad = np.asarray(h) * x.data
        optimizer.step()
        points.append(x.data.copy())
    return np.array(points)


def bowl_loss(h, points):
    return 0.5 * (points**2 @ np.asarray(h))


def steps_needed(kind, h, rate, target=1e-3, limit=20_000):
    """How many steps until the loss is below the target."""
    below = bowl_loss(h, descend(kind, h, rate, limit)) < target
    return int(np.argmax(below)) if below.any() else limit


h = (1.0, 100.0)
KINDS = {"SGD": 0.019, "SGD with momentum": 0.01, "AdamW": 0.1}
for kind, rate in KINDS.items():
    steps = steps_needed(kind, h, rate, limit=500)
    print(f"{kind:<18} at rate {rate:<5} {steps:>4} steps")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(
        1, 3, figsize=(8.2, 2.6), layout="constrained", sharex=True, sharey=True
    )
    grid = np.stack(np.meshgrid(np.linspace(-2.4, 1.4, 80), np.linspace(-1.4, 1.4, 80)), -1)
    for ax, (kind, rate) in zip(panels, KINDS.items(), strict=True):
        levels = np.geomspace(0.1, 100, 6)
        ax.contour(
            *np.moveaxis(grid, -1, 0), bowl_loss(h, grid), levels, colors="0.8", linewidths=0.8
        )
        ax.plot(*descend(kind, h, rate, 30).T, "o-", ms=3, lw=1, color=ml.plots.COLORS["full"])
        ax.plot(0, 0, "k*", ms=9)
        ax.set(title=kind, xlabel="x₁ (flat)", xlim=(-2.4, 1.4), ylim=(-1.4, 1.4))
    panels[0].set_ylabel("x₂ (steep)")
    ml.plots.show(
        figure,
        "Three paths of 30 steps in a narrow bowl: SGD zigzags across and creeps "
        "along, momentum swings around the middle, AdamW goes there in a smooth "
        "curve.",
    )

# %% [markdown]
# **What to see.** Thirty steps of each, from the same point to the star. SGD jumps from side to
# side of the steep direction, where its rate is nearly too high, and creeps along the flat one,
# where the same rate is too low. AdamW divides by the size of each gradient, so both directions get
# steps of the same size.
#
# **What it does not show.** A loss with valleys that turn, and gradients that are noisy because
# every batch is another one.
#
# ### Predict, change, run: how narrow is the bowl?
#
# How many steps does SGD need at its best rate, $2 / (h_{min} + h_{max})$? Guess for another
# condition number. What should be seen: steps grow nearly in proportion to it.

# %%
CONDITION = 30  # change me: 3, 300, 1000
GUESS = ...  # steps
needed = steps_needed("SGD", (1.0, CONDITION), 2 / (1 + CONDITION))
check.predict(GUESS, needed, unit="steps")

# %% [markdown]
# ### SGD beside it, on a language model
#
# Here is the training loop, by hand. One round is: forward pass and loss, backward pass, clip, set
# the rate, step, forget the gradients. The order matters: clipping changes gradients, so it stands
# between the backward pass, which makes them, and the step, which uses them. And `backward` *adds*
# to what is there, so the gradients are forgotten before the next round.


# %%
STEPS = light(100)


def fine_tune(make, rate, steps=STEPS, corpus=code):
    """Train all of docs-tiny by hand.

    Returns the model, and (loss, gradient length, rate) of each step."""
    model = ml.load_model("docs-tiny")
    params = model.trainable_parameters()
    optimizer, batches, log = make(params, rate), corpus.batches(12, 64), []
    for i in range(steps):
        ids, targets = batches(np.random.default_rng((0, i)))
        loss = ml.cross_entropy(model(ids), targets)
        loss.backward()
        length = ml.clip_grad_norm(params, 1.0)
        optimizer.lr = rate * ml.warmup_cosine(i, steps)
        optimizer.step()
        optimizer.zero_grad()
        log.append((loss.item(), length, optimizer.lr))
    return model, np.array(log)


def adamw(params, rate):
    return ml.AdamW(params, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)


# %%
runs = {("AdamW", 1e-3): fine_tune(adamw, 1e-3)}
for rate in (1e-3, 0.1, 1.0):
    runs["SGD", rate] = fine_tune(ml.SGD, rate)

print(f"{'':<8} {'rate':>6} {'code, validation':>17} {'English':>8}", end="")
print(f" {'optimizer, MB':>14}")
print(f"{'base':<15} {ml.text_loss(base, code.val):>17.3f} "
      f"{ml.text_loss(base, english.test):>8.3f}")  # fmt: skip
for (name, rate), (model, _) in runs.items():
    make = adamw if name == "AdamW" else ml.SGD
    state = make(model.parameters(), rate).state_bytes / 1e6
    print(f"{name:<8} {rate:>6g} {ml.text_loss(model, code.val):>17.3f} "
          f"{ml.text_loss(model, english.test):>8.3f} {state:>14.1f}")  # fmt: skip

# %% [markdown]
# Two things. At AdamW's rate SGD hardly learns: a rate means something else for each optimizer. And
# at its *own* rate, a thousand times as high, plain SGD is as good here within a few hundredths of
# a nat, with no state at all. That AdamW is needed to fine-tune a transformer does **not** hold at
# this scale. (It is one seed and few rates, and SGD is helped by clipping, as we shall see below.)
# SGD's best rate must be searched for, though: it depends on how long the gradients happen to be,
# and AdamW's does not.
#
# One moment, momentum, costs 4 bytes a parameter; plain SGD none: 2 + 2 = 4 bytes a parameter in 16
# bits, where AdamW has 12.
#
# ### Exercise 3.4, a small project: a race
#
# *Difficulty 4 of 5, 25 minutes.* In a bowl with curvatures `h` from the point `start`: for SGD,
# for momentum (v = 0.9 v + g, x = x - lr v) and for AdamW (betas (0.9, 0.99), eps 1e-8, no decay),
# try all `rates` and find the one that needs the fewest updates until the loss
# $\frac12 \sum h_i x_i^2$ is *below* `target`. A rate that needs more than `limit` updates does not
# count; of two that are equally good take the smaller. Each pair is (rate, updates). Your
# `adamw_step` is welcome.


# %%
def race(
    h: np.ndarray, start: np.ndarray, rates: list[float], target: float, limit: int
) -> list[tuple[float, int]]:
    """The best (rate, updates) of SGD, of momentum and of AdamW, in this order."""

    # SOLUTION
    def updates(kind: str, lr: float) -> int | None:
        x, m, v = start, np.zeros_like(start), np.zeros_like(start)
        for t in range(1, limit + 1):
            g = h * x
            if kind == "adamw":
                x, m, v = adamw_step(x, g, m, v, t, lr, (0.9, 0.99), 1e-8, 0.0)
            else:
                m = 0.9 * m + g if kind == "momentum" else g
                x = x - lr * m
            if 0.5 * np.sum(h * x**2) < target:
                return t
        return None

    best = []
    for kind in ("sgd", "momentum", "adamw"):
        tried = [(updates(kind, lr), lr) for lr in rates]
        needed, lr = min(pair for pair in tried if pair[0] is not None)
        best.append((lr, needed))
    return best
    # END SOLUTION


# %%
check.race(race)

# %% [markdown]
# ## Warm-up, cosine, clipping
#
# Three precautions surround the step in nearly every recipe.
#
# **Warm-up.** The rate rises over the first steps, because v is an average of few gradients then
# and the steps are unreliable. **Cosine.** Afterwards the rate falls along half a wave to a small
# part, `final`, of its peak, so that the training comes to rest. In this package
# (`ml.warmup_cosine`) the two are factors of the rate at each step, step = 0, 1, …:
#
# $$\eta_{step} = \eta\, \min\!\Big(1, \frac{step + 1}{warmup}\Big)
# \Big(final + (1 - final)\, \frac{1 + \cos(\pi\, step / steps)}{2}\Big)$$
#
# **Clipping.** If the gradients of all parameters, taken together as one long vector, are longer
# than a limit, they are all multiplied by one factor that makes them that long (Pascanu et al.
# 2013). The direction stays, and one unlucky batch cannot throw the model far off.

# %% tags=["hide-input"]
log = runs["SGD", 1.0][1]
with ml.plots.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7), layout="constrained")
    left.plot(log[:, 2], color=ml.plots.COLORS["full"])
    left.axvline(20, color="black", ls=":", lw=1)
    left.text(21, 0.05, "warm-up ends")
    left.set(xlabel="step", ylabel="rate, of its peak", ylim=(0, 1), title="The schedule")
    for (name, rate), mark in ((("AdamW", 1e-3), "-"), (("SGD", 1.0), "--")):
        right.plot(
            runs[name, rate][1][:, 1], mark, color=ml.plots.COLORS["full"], label=name, lw=1.3
        )
    right.axhline(1, color="black", ls=":", lw=1)
    right.text(99, 0.97, "limit", ha="right", va="top")
    right.set(xlabel="step", ylabel="joint length", title="Gradients before clipping")
    right.set(ylim=(0, None))
    right.legend()
    ml.plots.show(
        figure,
        "Left: the rate rises for 20 steps and falls along half a wave. Right: "
        "gradients are longest in the first steps, and above the limit to the end.",
    )

# %%
for (name, rate), (_, log) in runs.items():
    lengths = log[:, 1]
    clipped = f"{(lengths > 1).sum():>3} of {len(lengths)} steps clipped"
    print(f"{name:<6} rate {rate:<6g} {clipped}, ", end="")
    print(f"longest gradient {lengths.max():.1f}")

# %% [markdown]
# Here every step was clipped, in every run: with a limit of 1, SGD's steps all have the length of
# the rate. That is not SGD as the formula has it, but SGD with its length set by the schedule; and
# AdamW, which divides by the size of the gradients, hardly notices clipping by a constant factor.
#
# ### Exercise 3.5: the schedule
#
# *Difficulty 2 of 5, 6 minutes.* The formula above. `warmup` may be 0; then there is no warm-up.


# %%
def learning_rate_at(
    step: int, steps: int, peak: float, warmup: int, final: float
) -> float:  # fmt: skip
    """The learning rate in a step, from 0 on, of a training of so many steps."""
    # SOLUTION
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = final + (1 - final) * (1 + np.cos(np.pi * step / steps)) / 2
    return peak * rise * fall
    # END SOLUTION


# %%
check.learning_rate_at(learning_rate_at)

# %% [markdown]
# ### Exercise 3.6: clip by the joint length
#
# *Difficulty 2 of 5, 8 minutes.* Return a list of new arrays. If the joint length of all arrays,
# the root of the sum of all squares, is above `max_norm`, they are scaled together to that length;
# else they keep their values. All of them may be zero.


# %%
def clip_together(gradients: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """The gradients, of any shapes, with a joint length of at most max_norm."""
    # SOLUTION
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    factor = max_norm / norm if norm > max_norm else 1.0
    return [factor * g for g in gradients]
    # END SOLUTION


# %%
check.clip_together(clip_together)

# %% [markdown]
# ## The learning rate: learning and forgetting
#
# In the table above the loss on English, the *old* task, rose in every run. Nothing in a network is
# stored apart by task: a change that serves the new one alters the outputs everywhere. If the loss
# on the old task rises while training and validation loss of the new one both fall, that is
# *catastrophic forgetting* (McCloskey and Cohen 1989). It is another thing than overfitting, which
# shows on the new task itself.
#
# Every run is a trade: how much forgotten for how much learned? The study `forgetting_frontier`
# looks at both losses all along the way, for three rates of full fine-tuning and two of LoRA.

# %%
frontier = shipped_rows("forgetting_frontier")
print("at the end of 600 steps, mean of three seeds")
print(f"{'':<6} {'rate':>7} {'code, validation':>18} {'English, test':>15}")
for method in ("full", "lora"):
    for rate in ml.plots.distinct(ml.plots.select(frontier, method=method), "lr"):
        rows = ml.plots.select(frontier, method=method, lr=rate)
        new, old = (np.mean([row[key] for row in rows]) for key in ("val", "old"))
        print(f"{method:<6} {rate:>7g} {new:>18.3f} {old:>15.3f}")

# %% tags=["hide-input"]
ml.plots.show(
    forgetting_frontier_figure(frontier),
    "Loss on English against loss on code during training: full fine-tuning at its "
    "lowest rate lies below all other curves, at its highest above them.",
)

# %% [markdown]
# **What to see.** A path that starts on the right and goes left, learning, and up, forgetting.
# Lower and further left is better. Gentle full fine-tuning, at 0.0003, lies lowest: for the same
# loss on code it has lost the least English. At 0.002 it lies highest. So the *rate* decides, and
# "LoRA forgets less" does **not** hold at this scale: against full fine-tuning at its usual rate it
# may, against the gentle one it does not.
#
# **What it does not show.** Mixing old data into the new, which lessens forgetting too, nor the
# other side of LoRA: W is untouched, so the old model is back, bit for bit, when the adapter is
# switched off. *While it is on*, ΔW is added for every input, old ones too, and the model forgets
# like any other. Frozen weights make forgetting reversible, not absent.

# %%
print(textwrap.fill(STUDIES["forgetting_frontier"].at_scale, 80))

# %% [markdown]
# **Does it hold at scale?** These lines are the study's answer: it is disputed, and the gentle full
# run there, too, lost less than LoRA on q and v.
#
# Which rate is best for the new task alone? The study `learning_rate_sweep` has measured it:

# %%
rows = ml.plots.select(shipped_rows("learning_rate_sweep"), task="code")
for method in ("full", "lora"):
    same = ml.plots.select(rows, method=method)
    means = {}
    for rate in ml.plots.distinct(same, "lr"):
        of_rate = ml.plots.select(same, lr=rate)
        means[rate] = np.mean([row["val"] for row in of_rate])
    print(f"{method}, best at {min(means, key=means.get):g}")
    for rate, mean in means.items():
        print(f"  {rate:<7g} {mean:.3f}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(6.4, 3.1), layout="constrained")
    plot_learning_rate_sweep(rows, ax)
    ax.legend()
    ml.plots.show(
        figure,
        "Validation loss by learning rate: a flat valley around 0.002 for full "
        "fine-tuning, one around 0.01 for LoRA, which lies higher.",
    )

# %% [markdown]
# Two flat valleys, far apart. LoRA's best rate is five times full fine-tuning's here; at scale it
# was about ten times (Biderman et al. 2024). Lesson 08 asks why. Note that the rate which is best
# for the new task, 0.002, is the one that forgot most.
#
# ### Predict, change, run: the rate and the old task
#
# Sixty steps of full fine-tuning at a rate of your choice. What will the loss on English be
# afterwards? (The base model's is in the table above.) What should be seen: at 0.0001 hardly more
# than before; at 0.01 the English is gone.

# %%
RATE = 1e-3  # change me: 1e-4, 3e-3, 1e-2
GUESS = ...  # nats per character
tuned, _ = fine_tune(adamw, RATE, light(60))
check.predict(GUESS, ml.text_loss(tuned, english.test), unit="nats", within=0.05)

# %% [markdown]
# ## Little data: overfitting
#
# Every text here has three parts. The training set is what the model learns from. The *validation
# set* is for choosing: a rate, or when to stop. The *test set* is for the number one reports, and
# nothing is chosen by it, or the number would flatter.
#
# Now a training set of only 5,000 characters and the same model. A step reads 12 windows of 63
# characters, so 150 steps read the whole text more than twenty times: twenty *epochs*. We look at
# the loss on what is trained on and on the validation set, every 15 steps.

# %%
few = code.train[:5000]


def small_batches(rng):
    return ml.random_windows(few, 12, 63, rng)


seen = {"training": [], "validation": []}


def look(model):
    seen["training"].append(ml.text_loss(model, few, 64))
    seen["validation"].append(ml.text_loss(model, code.val, 128))
    return seen["validation"][-1]


for values in seen.values():
    values.clear()
history = ml.train(
    ml.load_model("docs-tiny"), small_batches, ml.TrainConfig(light(150), lr=1e-3),
    evaluate=look, evaluate_every=15, quiet=True,
)  # fmt: skip
steps = [step for step, _ in history.evaluations]
best = int(np.argmin(seen["validation"]))
for name, values in seen.items():
    print(f"{name:<11} start {values[0]:.2f}, ", end="")
    print(f"at step {steps[best]} {values[best]:.2f}, end {values[-1]:.2f}")

# %% tags=["hide-input"]
small = shipped_rows("small_data")
with ml.plots.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.1), layout="constrained")
    for (name, values), mark in zip(seen.items(), ("--", "-"), strict=True):
        left.plot(steps, values, mark, color=ml.plots.COLORS["full"], label=name)
    left.plot(steps[best], seen["validation"][best], "ko", ms=7, mfc="none")
    left.set(xlabel="step", ylabel="nats per character", title="Full, 5,000 characters")
    left.legend()
    for i, size in enumerate((5_000, 20_000, 100_000, 600_000)):
        rows = ml.plots.select(small, method="full", characters=size)
        curves = np.mean([row["curve"] for row in rows], axis=0)
        color = ml.plots.shade(ml.plots.COLORS["full"], (0.6, 0.3, 0.0, -0.45)[i])
        right.plot(*curves.T, color=color, marker="os^D"[i], ms=4, label=f"{size:,} characters")
    right.set(xlabel="step", title="Validation, by size of the text")
    right.set(ylim=(1.7, 4.4))
    right.legend(fontsize=9, ncols=2, loc="upper center")
    ml.plots.show(
        figure,
        "Left: training loss falls to the end, validation loss turns and rises. "
        "Right: with 5,000 characters the validation loss rises steeply, with "
        "600,000 it falls to the end.",
    )

# %%
print("test loss after 300 steps, mean of three seeds")
SIZES = (5_000, 20_000, 100_000, 600_000)
print(f"{'':<12}", *(f"{size:>10,}" for size in SIZES), " characters")
for method, r in (("full", None), ("lora", 4), ("lora", 1)):
    means = []
    for size in SIZES:
        rows = ml.plots.select(small, method=method, r=r, characters=size)
        means.append(np.mean([row["test"] for row in rows]))
    name = "full" if r is None else f"LoRA, r = {r}"
    print(f"{name:<12}", *(f"{value:>10.2f}" for value in means))

# %% [markdown]
# **What to see.** The training loss falls to the end; the validation loss turns early and rises.
# From there on the model learns the noise of its few examples: that is *overfitting*, and the ring
# is where to stop. A gap between the two curves alone is no sign of it; the rise is. With more text
# the rise comes later or not at all. Remedies: stop at the lowest point, more text, fewer passes, a
# lower rate, fewer numbers that train.
#
# The table has the last of these: with 5,000 characters the fewer numbers train, the less harm is
# done; with 600,000 it is the other way round.
#
# **What it does not show.** Whether each method at a rate chosen for 5,000 characters would do
# better; all of them have the rate of their usual text.
#
# ### Exercise 3.7: a diagnosis
#
# *Difficulty 3 of 5, 12 minutes.* You get the training and the validation losses of a run at the
# same steps. Return a word and the index of the best step. The word is, asked in this order:
#
# 1. "diverging" if the training loss ends above its start, or is no finite number at the end;
# 2. "underfitting" if the training loss ends above 90 per cent of its start;
# 3. "overfitting" if the validation loss ends more than 2 per cent above its lowest;
# 4. "learning" otherwise.
#
# The best step has the lowest validation loss (nan is not the lowest).


# %%
def diagnose(train: list[float], val: list[float]) -> tuple[str, int]:
    """(word, index of the best step) of two curves."""
    # SOLUTION
    best = int(np.nanargmin(val))
    if not np.isfinite(train[-1]) or train[-1] > train[0]:
        return "diverging", best
    if train[-1] > 0.9 * train[0]:
        return "underfitting", best
    if val[-1] > 1.02 * val[best]:
        return "overfitting", best
    return "learning", best
    # END SOLUTION


# %%
check.diagnose(diagnose)

# %% [markdown]
# ## What LoRA takes off the bill
#
# The memory we have seen: gradients and moments shrink to those of A and B; weights stay;
# activations nearly stay. And the arithmetic? A Linear layer costs three products of the same size:
# x W forward, and $G W^T$ and $x^T G$ on the way back. For a frozen W the last one is not needed.
# We count the operations of all matrix products in one step:

# %%
operations = {}
for name, model in models.items():
    with profile() as costs:
        ml.cross_entropy(model(ids), targets).backward()
    model.zero_grad()
    operations[name] = (
        sum(cost.forward_flops for cost in costs.ops.values()),
        sum(cost.backward_flops for cost in costs.ops.values()),
    )
print(f"{'million operations':<20} {'forward':>9} {'backward':>9} {'step':>9}")
for name, (forward, backward) in operations.items():
    print(f"{name:<20} {forward / 1e6:>9,.0f} {backward / 1e6:>9,.0f} "
          f"{(forward + backward) / 1e6:>9,.0f}")  # fmt: skip
share = sum(operations["LoRA"]) / sum(operations["full"])
print(f"LoRA's step, of full's: {share:.0%}; its forward pass: "
      f"{operations['LoRA'][0] / operations['full'][0]:.1%}")  # fmt: skip

# %% [markdown]
# So LoRA does **not** bring a cheaper forward pass; it is a little dearer, as A and B come on top.
# What it drops is the gradient of W, about a third of a step at best. What it does bring: a start
# that is the base model bit for bit, an optimizer of a few per cent, a small file, and the base
# back when the adapter is off.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 03`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - How many GB does full fine-tuning of 7 billion parameters take, and what for?
# - What does each part of the memory grow with? Which parts does LoRA make small, and what remains?
# - For which numbers does AdamW keep moments? What does plain SGD save?
# - In what order are the parts of a training step?
# - What happens to a weight whose gradient is set to zero in every step?
# - What does gradient checkpointing do? By how much does LoRA reduce the arithmetic?
# - What is a sign of overfitting? Of forgetting?
# - Does LoRA forget less than full fine-tuning, and which change makes a run forget most?
#
# ## Where to read on
#
# - Rajbhandari et al. 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
#   section 3 (where the memory goes).
# - Kingma and Ba 2015, *Adam*; Loshchilov and Hutter 2019, *Decoupled Weight Decay Regularization*.
# - Chen et al. 2016, *Training Deep Nets with Sublinear Memory Cost* (checkpointing).
# - Biderman et al. 2024, *LoRA Learns Less and Forgets Less*.
# - In this package: `minilora/optim.py`, `minilora/training/loop.py`; `minilora profile` and
#   `minilora study forgetting_frontier` in a terminal.
