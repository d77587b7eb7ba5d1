# %% [markdown]
# # 08 · Learning rate, alpha, initialization
#
# **The question.** Which settings make LoRA learn, and how do you choose them without fooling
# yourself?
#
# **You will be able to**
#
# - say why LoRA's best learning rate is the higher one, and choose a rate from a grid with seeds;
# - say by how much the best of many scores flatters, and which number you may report;
# - explain what alpha does with SGD and with AdamW, and what rsLoRA and LoRA+ change;
# - say what happens if A and B both start at zero, or both at random;
# - write the start of PiSSA, and compare starts honestly: each at its own best rate.
#
# **Time:** 20 seconds to run, 20 minutes to read, 67 with the exercises. **Before this:** a LoRA
# layer computes y = x W + s (x A) B, with W frozen and s = alpha / r (lesson 04); AdamW moves every
# number about equally far in a step (lesson 03); the singular value decomposition (lesson 06).
# **Words:** [glossary](GLOSSARY.md), for what is not explained here.

# %%
from math import isfinite
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora.learn import check
from minilora.learn.demos import learners
from minilora.learn.light import light  # fewer steps in a browser, which is slow
from minilora.optim import SGD, AdamW
from minilora.plots import select
from minilora.plots.axes import legend_below
from minilora.plots.house_style import COLORS
from minilora.studies import without_regret
from minilora.studies.alpha_sweep import plot_alpha_rules, plot_alphas
from minilora.studies.learning_rate_sweep import learning_rate_sweep_figure
from minilora.studies.svd_starts import at_best_rate, plot_along, plot_rates

# %% [markdown]
# ## A picture
#
# The learning rate is how far a step goes. Here are eight steps down the same valley at three
# rates; the loss is w², so a step is w ← w - lr · 2 w.

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(
        1, 3, figsize=(9, 2.8), layout="constrained", sharex=True, sharey=True
    )
    line = np.linspace(-2.2, 2.2, 100)
    cases = {0.03: "too low: hardly moves", 0.3: "good", 1.05: "too high: grows"}
    for (rate, title), ax in zip(cases.items(), panels, strict=True):
        walk = 1.4 * (1 - 2 * rate) ** np.arange(9)
        ax.plot(line, line**2, color="0.6")
        ax.plot(walk, walk**2, "o-", color=COLORS["lora"], lw=1, ms=5)
        ax.plot(walk[0], walk[0] ** 2, "o", color="black", ms=7)
        ax.set(xlabel="w", ylim=(-0.2, 5), xlim=(-2.2, 2.2))
        ax.set_title(f"lr = {rate:g}, {title}", fontsize=10)
    panels[0].set_ylabel("loss")
    ml.plots.show(
        figure,
        "Three valleys with eight steps each: with a low rate the points creep "
        "down, with a good one they reach the bottom, with a high one they jump "
        "from side to side and climb.",
    )

# %% [markdown]
# The black point is the start. A rate that is too low is not wrong, only slow: the loss hardly
# falls, and the cure is a rate ten times as high. One that is too high overshoots, and every
# overshoot makes the next gradient larger, until the loss is inf. The cure is to begin again with
# a lower rate: what is inf or NaN stays so. A *warm-up* lets the rate rise from zero over the first
# steps (20 in all trainings here), since AdamW knows little of the gradients' sizes then; and
# *clipping* cuts a gradient that is longer than a limit.
#
# ## The formula
#
# What does the first step do, with B = 0? Let G be the gradient of the loss with respect to y. Then
# dB = s (x A)ᵀ G and dA = s xᵀ (G Bᵀ) = 0, so only B moves, and with SGD
#
# $$\Delta W = s A B = -\,lr \; s^2 \, A A^T x^T G.$$
#
# s comes in twice: in the gradient of B, and again on the way from B to ΔW.
#
# ### Exercise 8.1: the first step
#
# *Difficulty 2 of 5, 6 minutes.* Compute ΔW after one step of SGD from B = 0.


# %%
def first_change(
    x: np.ndarray, G: np.ndarray, A: np.ndarray, s: float, lr: float
) -> np.ndarray:  # fmt: skip
    """ΔW (d_in, d_out).   x (n, d_in), G (n, d_out): the loss's gradient for y"""
    # SOLUTION
    B = -lr * s * (x @ A).T @ G
    return s * A @ B
    # END SOLUTION


# %%
check.first_change(first_change)

# %% [markdown]
# Now measured, on one layer of 24 × 24, with everything doubled in turn: s by alpha, the rate, the
# loss. Shown is ‖ΔW‖ after one step, in times what it is without (‖ ‖: the root of the sum of
# squares).

# %%
teacher = learners.teacher(2)


def first_step(optimizer, alpha=4.0, lr=1e-3, times=1.0) -> float:
    model = learners.with_lora(teacher.W, r=4, lora_alpha=alpha)
    step = optimizer(model.trainable_parameters(), lr=lr)
    (learners.squared_error(model, teacher.x, teacher.y) * times).backward()
    step.step()
    return float(np.linalg.norm(ml.get_delta_weight(model, "0")))


for optimizer in (SGD, AdamW):
    one = first_step(optimizer)
    alpha, rate = first_step(optimizer, alpha=8), first_step(optimizer, lr=2e-3)
    loss = first_step(optimizer, times=2)
    print(f"{optimizer.__name__:<6} alpha x 2: {alpha / one:.2f}   ", end="")
    print(f"rate x 2: {rate / one:.2f}   loss x 2: {loss / one:.2f}")

# %% [markdown]
# With SGD twice the alpha is four times the ΔW, as the formula says. AdamW divides the size of the
# gradient out, and with it one s and any factor on the loss: there **alpha acts as a factor on the
# learning rate**. It is not one: it also scales a finished adapter. And it adds nothing to what an
# adapter can be: twice the alpha with half of B is the same ΔW.
#
# ## Why LoRA takes a higher rate
#
# One often reads that adapters are fragile and need a lower rate. Take one step of AdamW, both at
# the same rate:

# %%
full = learners.one_layer(teacher.W)
step = AdamW(full.trainable_parameters(), lr=1e-3)
learners.squared_error(full, teacher.x, teacher.y).backward()
step.step()
moved = float(np.linalg.norm(full[0].weight.data - teacher.W))
print(f"‖ΔW‖ of full fine-tuning: {moved:.4f}")
for r in (2, 4, 16):
    model = learners.with_lora(teacher.W, r=r, lora_alpha=r)
    step = AdamW(model.trainable_parameters(), lr=1e-3)
    learners.squared_error(model, teacher.x, teacher.y).backward()
    step.step()
    delta = float(np.linalg.norm(ml.get_delta_weight(model, "0")))
    print(f"‖ΔW‖ of LoRA, r = {r:<2} s = 1: {delta:.4f}")

# %% [markdown]
# AdamW moves every number by about the rate. In full fine-tuning these are the numbers of W. In
# LoRA they are those of B, which reach W only through A, whose entries are small: at the usual
# start (PEFT's default, Kaiming uniform with a = √5) they are uniform between -1/√d_in and
# 1/√d_in, so that x A is about as large as a number in x whatever the width. r plays no part in
# that bound. So at the same rate LoRA's first step is shorter, not more dangerous.
#
# What is the best rate? Every point here is a training of `docs-tiny` on Python code, or of
# `words-tiny` on reversing words, of which this package has the results.

# %%
swept = ml.studies.shipped_rows("learning_rate_sweep")
with ml.plots.style():
    figure = learning_rate_sweep_figure(swept)
    ml.plots.show(
        figure,
        "Quality by learning rate on code and on reversing: full fine-tuning is "
        "best at 0.002 on code, LoRA at 0.01; on reversing both solve the task over "
        "a wide range.",
    )


# %%
def losses_of(method: str) -> dict[float, list[float]]:
    """The validation losses on code of every rate, one for each seed."""
    rows = select(swept, task="code", method=method)
    rates = sorted({row["lr"] for row in rows})
    return {lr: [row["val"] for row in rows if row["lr"] == lr] for lr in rates}


grids = {method: losses_of(method) for method in ("full", "lora")}
for method, grid in grids.items():
    for lr, losses in grid.items():
        seeds = "  ".join(f"{loss:.3f}" for loss in losses)
        print(f"{method:<5} {lr:<7g} {seeds}   mean {mean(losses):.3f}")

# %% [markdown]
# **What to see.** The optimum is flat: for LoRA 0.01 and 0.02 differ by less than the seeds, and
# for full fine-tuning everything from 0.001 to 0.003 is within 0.01 nats. But it ends in a cliff:
# at 0.04 one of LoRA's three seeds is ruined, the other two are not. LoRA's best rate is 5 times
# full's, in a grid this coarse. On reversing words both have several perfect rates, so that no
# factor can be told there at all; and at 0.04 LoRA gets none right.
#
# **What it does not show.** Rates between those tried, other schedules, or longer trainings. And
# that "ten times" is a law: here it is not.
#
# **Does it hold at scale?** More so: the best rate was about 10 times that of full fine-tuning for
# Llama-2-7B (Biderman et al. 2024), and 9.8 times, nearly whatever the rank from 4 to 512, in "LoRA
# Without Regret" (Schulman et al. 2025).
#
# ### Exercise 8.2: the best rate
#
# *Difficulty 3 of 5, 8 minutes.* From the losses of each rate, one for each seed, choose the rate
# with the lowest mean. A seed that diverged has nan or inf, and then its rate is out; a loss that
# is merely high counts. If several means are equal, take the lowest rate. At least one rate is
# good.


# %%
def best_rate(losses: dict[float, list[float]]) -> float:
    """The rate that is best on average, and never diverged."""
    # SOLUTION
    good = [lr for lr in losses if all(isfinite(loss) for loss in losses[lr])]
    return min(sorted(good), key=lambda lr: mean(losses[lr]))
    # END SOLUTION


# %%
check.best_rate(best_rate)

# %% [markdown]
# ### Predict, change, run: full fine-tuning's rate for LoRA
#
# A LoRA run takes over the rate 0.002 of full fine-tuning. After 60 steps with 0.01 its validation
# loss on code is 2.05 nats; before training it is 3.1. What is it with 0.002? (`"code"` can be
# the path of your own text.)

# %%
RATE = 2e-3  # change me: 1e-2, 1e-1
GUESS = ...

tuned = ml.tune("code", "lora", lr=RATE, steps=light(60), r=4, lora_alpha=8)
before = tuned.task.val(tuned.base)
after = float("inf") if tuned.diverged else tuned.task.val(tuned.model)
print(f"before: {before:.2f} nats")
check.predict(GUESS, after, unit="nats per character", within=0.03)

# %% [markdown]
# The gradients are not zero and B moves, but the steps are short, and 60 of them do not get far.
# A higher rank or dropout is no cure for that. The first thing to change when a LoRA run hardly
# learns is its rate, tenfold; when it explodes, the same the other way.
#
# ## The winner's curse
#
# Whoever tries many settings and keeps the best score keeps luck, too: the lowest of many noisy
# numbers is low partly because its noise was. Pure noise shows it. All K settings are equally good
# here, with a loss of 2, and seeds differ by a standard deviation of 0.01, as ours do.
#
# ### Predict, change, run: the best of K equal settings
#
# By how many nats is the lowest of K scores below 2, on average?

# %%
K = 8  # change me: 1, 2, 100
GUESS = ...

scores = 2 + 0.01 * np.random.default_rng(0).standard_normal((10_000, K))
check.predict(GUESS, 2 - scores.min(axis=1).mean(), unit="nats too good")

# %% [markdown]
# With K = 8 it is 1.4 standard deviations, and it grows, slowly, with every setting that you try.
# More seeds, whose mean has less noise, make it smaller. So: **choose on validation, report
# on test**, data that chose nothing; then the luck of the choice does not count. The training loss
# is no judge at all, since it prefers whatever fits the noise best.
#
# ### Exercise 8.3: how much too good?
#
# *Difficulty 4 of 5, 12 minutes.* `losses[i, j]` is the loss of setting i with seed j. Let every
# seed alone choose the setting whose loss is lowest with it. Compare with what the *other* seeds
# say of that setting: their mean, minus the loss that was chosen. Return the mean of this over all
# seeds.


# %%
def too_good(losses: np.ndarray) -> float:
    """By how much a chosen loss is too low, on average. losses (settings, seeds)."""
    # SOLUTION
    gaps = []
    for j in range(losses.shape[1]):
        i = np.argmin(losses[:, j])
        gaps.append(np.delete(losses[i], j).mean() - losses[i, j])
    return mean(gaps)
    # END SOLUTION


# %%
check.too_good(too_good)

# %% [markdown]
# Our own sweep has five rates of LoRA, with three seeds each. What does it say?


# %%
def chosen_against_others(losses: np.ndarray) -> list[float]:
    """For every seed: the others' mean at the rate it chooses, minus its own loss."""
    seeds = range(losses.shape[1])
    chosen = [int(np.argmin(losses[:, j])) for j in seeds]
    pairs = ((losses[i], j) for j, i in enumerate(chosen))
    return [float(np.delete(row, j).mean() - row[j]) for row, j in pairs]


for method, grid in grids.items():
    gaps = chosen_against_others(np.array(list(grid.values())))
    each = "  ".join(f"{gap:+.4f}" for gap in gaps)
    print(f"{method:<5} per seed: {each}   mean {mean(gaps):+.4f} nats")

noise = np.random.default_rng(1).standard_normal((5, 3, 4000)) * 0.01
gaps = [mean(chosen_against_others(noise[:, :, i])) for i in range(4000)]
print(f"pure noise, 5 settings, 3 seeds: {mean(gaps):+.4f} nats")

# %% [markdown]
# With full fine-tuning all seeds choose the same rate, 0.002, and then there is no curse: the mean
# is zero. With LoRA 0.01 and 0.02 are equally good, luck decides between them, and the chosen score
# is 0.005 nats too good, half as much as with five equal settings. So the danger is greatest where
# one looks for small gains among many variants that are nearly equal, and LoRA's variants are: with
# tuned rates nine of them were within 1 to 2 per cent of plain LoRA (arXiv 2602.04998, 2026).
#
# ## Alpha and the rank
#
# LoRA's rule is s = alpha / r. Whoever raises r from 8 to 16 and leaves alpha at 16 halves s, from
# 2 to 1, and no log says so. rsLoRA divides by √r instead (Kalajdzievski 2023), so that s falls
# more slowly. "alpha is usually twice the rank" is a habit, s = 2: at r = 6 it would be alpha = 12;
# an example with r = 6 and alpha = 8 has s = 1.33.
#
# ### Exercise 8.4: the two rules
#
# *Difficulty 1 of 5, 3 minutes.* `rule` is "lora" or "rslora".


# %%
def scale_of(rule: str, alpha: float, r: int) -> float:
    """The scale s of an adapter."""
    # SOLUTION
    return alpha / (r if rule == "lora" else r**0.5)
    # END SOLUTION


# %%
check.scale_of(scale_of)

# %%
alphas = ml.studies.shipped_rows("alpha_sweep")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained", sharey=True)
    plot_alpha_rules(select(alphas, task="code"), panels[0])
    plot_alphas(select(alphas, task="code"), panels[1]).set_ylabel("")
    legend_below(figure, panels[0])
    ml.plots.show(
        figure,
        "Test loss on code by rank under both rules, which hardly differ, and by "
        "alpha at rank 4: alpha 2 is a little worse, 8 and 32 are equal.",
    )

# %%
for r in (1, 4, 16, 64):
    same = select(alphas, task="code", r=r)
    for s in sorted({row["s"] for row in same}):
        loss = mean(row["test"] for row in select(same, s=s))
        print(f"code, r = {r:<3} s = {s:<6g} {loss:.3f} nats")

# %% [markdown]
# At r = 64 rsLoRA's s is four times LoRA's here, 0.5 and 0.125, and 0.01 nats better, about as much
# as seeds differ. At r = 4 a sixteenfold s changes 0.02, and from 2 to 8 nothing. That
# fits a flat optimum of the rate: with AdamW a factor on s acts much like one on the rate.
#
# With s = alpha / r and alpha fixed, the best rate hardly depends on r: more directions move, each
# with a smaller scale, so that ΔW goes about as far along the gradient. "LoRA Without Regret" finds
# that for ranks 4 to 512. The rank is not the only knob, then: with the right rank a wrong rate
# still spoils the run.
#
# **LoRA+** (Hayou et al. 2024) gives B a rate that is a fixed multiple of A's, such as 16. It is a
# setting of the optimizer: what it saves is a plain adapter.

# %%
for method in ("lora", "lora+"):
    rows = select(swept, task="code", method=method, seed=0)
    best = min(rows, key=lambda row: row["val"])
    print(f"{method:<5} best rate {best['lr']:g}: ", end="")
    print(f"{best['val']:.3f} val, {best['test']:.3f} test")

# %% [markdown]
# It brought nothing here: a little better on validation and a little worse on test, with one seed.
#
# ### Exercise 8.5: LoRA+
#
# *Difficulty 2 of 5, 4 minutes.* Give each parameter its rate. Those whose name ends in `lora_B`
# get `ratio * lr`; all others `lr`.


# %%
def lora_plus_rates(names: list[str], lr: float, ratio: float) -> dict[str, float]:
    """The learning rate of each parameter, by its name."""
    # SOLUTION
    return {name: lr * ratio if name.endswith("lora_B") else lr for name in names}
    # END SOLUTION


# %%
check.lora_plus_rates(lora_plus_rates)

# %% [markdown]
# **Weight decay** pulls what the optimizer holds towards zero. In full fine-tuning that is W, so it
# pulls away from what was pretrained. With LoRA it is A and B, so it pulls ΔW to zero: towards the
# base.
#
# ## Where A and B start
#
# One factor at random and one at zero: why not both at zero, or both at random? We try all four on
# the layer.

# %%
print(" A       B        loss at start   ‖dA‖    ‖dB‖    after 200 steps")
rng = np.random.default_rng(8)
random = {
    "A": rng.uniform(-1, 1, (24, 4)) / 24**0.5,
    "B": rng.uniform(-1, 1, (4, 24)) / 4**0.5,
}
STARTS = (("random", "zero"), ("zero", "random"), ("zero", "zero"), ("random",) * 2)
for A_is, B_is in STARTS:
    model = learners.with_lora(teacher.W, r=4, lora_alpha=8)
    adapter = learners.adapter_of(model)
    adapter.A.data[...] = random["A"] if A_is == "random" else 0
    adapter.B.data[...] = random["B"] if B_is == "random" else 0
    loss = learners.squared_error(model, teacher.x, teacher.y)
    loss.backward()
    lengths = [float(np.linalg.norm(p.grad)) for p in (adapter.A, adapter.B)]
    model.zero_grad()
    losses = learners.fit(model, teacher.x, teacher.y, steps=light(200), lr=1e-2)
    print(f" {A_is:<7} {B_is:<7} {loss.item():>14.3f} ", end="")
    print(f"{lengths[0]:>8.3f}{lengths[1]:>8.3f} {losses[-1]:>15.4f}")

# %% [markdown]
# With both at zero neither has a gradient, for dA holds B and dB holds A: nothing learns, at any
# rate and for ever, and no error is raised. With both at random both have a gradient, but the model
# is no longer the base: a random ΔW was added before anything was learned (the loss at the start is
# higher), and training first has to undo it. PEFT's `init_lora_weights=False` does that, for tests.
# W itself is not changed, so that without the adapter the base is there. One at zero is enough for
# ΔW = 0, and either one will do on this layer.
#
# Other starts come from a singular value decomposition. **PiSSA** (Meng et al. 2024) puts the r
# strongest pieces of W into A and B, and takes them out of the base, so that the sum is W again.
# **OLoRA** does so with a QR decomposition; **MiCA** takes the weakest directions and trains A
# alone; **EVA** looks at what the layers read, and **LoRA-GA** at the first gradient.
#
# ### Exercise 8.6: PiSSA's start
#
# *Difficulty 4 of 5, 14 minutes.* Give A (d_in, r), B (r, d_out) and the new base, such that s A B
# is the nearest matrix of rank r to W, and base + s A B = W.


# %%
def pissa_start(
    W: np.ndarray, r: int, s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """A, B and the base, which replaces W (d_in, d_out)."""
    # SOLUTION
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(sigma[:r] / s)
    A, B = U[:, :r] * root, root[:, None] * Vt[:r]
    return A, B, W - s * A @ B
    # END SOLUTION


# %%
check.pissa_start(pissa_start)

# %%
starts = ml.studies.shipped_rows("svd_starts")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
    plot_rates(select(starts, seed=0), panels[0])
    plot_along(at_best_rate(starts), panels[1])
    legend_below(figure, panels[0])
    ml.plots.show(
        figure,
        "Six starts: validation loss by rate, whose best is not the same for all, "
        "and along the training at the best rate: some begin faster, and from step "
        "50 on that is over.",
    )

# %%
for start in dict.fromkeys(row["start"] for row in starts):
    same = select(at_best_rate(starts), start=start)
    early = mean(row["curve"][0][1] for row in same)
    new, old = (mean(row[key] for row in same) for key in ("test", "old"))
    rate = f"{start:<8} rate {same[0]['lr']:<6g}"
    print(f"{rate} step 10: {early:.2f}   test: {new:.3f}   old task: {old:.3f}")

# %% [markdown]
# Each has its own best rate, and they differ: at LoRA's rate OLoRA and MiCA would both look worse
# than they are. LoRA-GA, PiSSA and EVA begin faster, as promised. That is soon over: at the end EVA
# and LoRA are level, and the rest is behind. PiSSA, which trains what W does most, costs most of
# the old task. At scale the same is reported, that starts matter little once the rates are tuned
# (arXiv 2602.04998); a larger comparison of variants is 2601.22708. The papers of the starts report
# gains on large models, in part at one rate for all.
#
# ## LoRA Without Regret, in miniature
#
# When does LoRA equal full fine-tuning? Schulman et al. (2025) made four claims; this is what we
# found on Python code.

# %%
regret = ml.studies.shipped_rows("without_regret")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
    without_regret.plot_rates(
        select(without_regret.rates_by_rank(regret, swept), seed=0), panels[0]
    )
    without_regret.plot_longer(select(regret, part="longer"), panels[1])
    legend_below(figure, panels[0])
    ml.plots.show(
        figure,
        "Validation loss by rate: 0.01 is best for LoRA of every rank. And along "
        "600 steps: low ranks fall behind full fine-tuning, rank 64 ends close to "
        "it.",
    )

# %%
for r in (None, 1, 4, 16, 64):
    rows = select(regret, part="longer", r=r)
    name = "full" if r is None else f"LoRA, r = {r}"
    print(f"600 steps, {name:<13} test {mean(row['test'] for row in rows):.3f} nats")
for place in ("q,k,v,o", "MLP"):
    best = {"q,k,v,o": 1e-2, "MLP": 2e-2}[place]
    rows = select(regret, part="places", place=place, lr=best)
    print(f"300 steps, {place:<13} test {mean(row['test'] for row in rows):.3f} nats")

# %% [markdown]
# | claim | here |
# |---|---|
# | The best rate hardly depends on the rank | holds: 0.01 is best of those tried for r = 1 to 64 |
# | It is 9.8 times that of full fine-tuning | does not: 5 times |
# | A low rank falls behind when it is full | holds: 0.2 nats behind at r = 1, 0.02 at r = 64 |
# | Until then it follows full fine-tuning | does not: already behind at step 200 |
# | A large batch costs LoRA more | not shown: 0.092 nats behind with 4, 0.098 with 64; seeds vary |
# | The MLP alone is better than attention alone | holds, by 0.035 nats |
#
# (Here s is alpha / √r, so that the first row is also about that rule.) To choose for yourself:
# put adapters on all matrices, take a rank that is large enough (lesson 06), then look for the rate
# first, from 0.003 to 0.03 at this size, and leave alpha where it is.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 08`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - What is alpha, and what does doubling it do with SGD, with AdamW, and in a trained adapter?
# - What changes if the rank is raised and alpha is not? What do rsLoRA and LoRA+ change?
# - Why is LoRA's best rate higher, and does it depend on the rank?
# - The loss hardly moves, or it explodes: what is to be tried first?
# - Which number may be reported for the best of eight settings?
# - How far does A spread, what if both factors are random, and how does PiSSA start?
# - Where does weight decay pull an adapted model?
#
# ## Where to read on
#
# - Schulman et al. 2025, *LoRA Without Regret*.
# - Biderman et al. 2024, *LoRA Learns Less and Forgets Less* (the rates of Llama-2-7B).
# - *Learning Rate Matters: Vanilla LoRA May Suffice* (arXiv 2602.04998) and *A Unified Study of
#   LoRA Variants* (arXiv 2601.22708), both 2026.
# - Kalajdzievski 2023 (rsLoRA), Hayou et al. 2024 (LoRA+), Meng et al. 2024 (PiSSA).
# - In this package: `minilora/lora_init.py`, `minilora/methods/starts.py`, and the studies
#   `learning_rate_sweep`, `alpha_sweep`, `svd_starts` and `without_regret`.
