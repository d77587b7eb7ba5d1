# %% [markdown]
# # 05 · Counting parameters
#
# **The question.** How many numbers does LoRA train, and what does that save?
#
# **You will be able to**
#
# - count the numbers that LoRA trains, for one matrix and for a whole model;
# - check the numbers that the LoRA paper prints, and say which are rounded, and how;
# - avoid the traps of counting: fused matrices, narrow ones, biases, two meanings of "share";
# - turn a count into bytes: of a file, and of the memory that training needs;
# - say when LoRA saves nothing, and plan an adapter for a GPU of a given size.
#
# **Time:** 10 seconds to run, 23 minutes to read, 61 with the exercises. **Before this:** you know
# what a matrix product is, and that LoRA (low-rank adaptation) leaves the weights W of a model as
# they are and learns a change of them; lesson 00 shows it. **Words:** a [glossary](GLOSSARY.md) has
# them all.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

import minilora as ml
from minilora import analysis
from minilora.learn import check

# %% [markdown]
# ## A picture
#
# A transformer is mostly matrices. A layer has a matrix of weights W with d_in rows and d_out
# columns, and turns a row x of d_in numbers into d_out numbers. Full fine-tuning changes every
# number of W. LoRA learns two thin matrices, A and B, instead. Together they are called an
# *adapter*, and their short side, r, is its *rank*. Here are three matrices, each twice as wide as
# the one before, with adapters of one rank.

# %% tags=["hide-input"]
ml.plots.show(
    ml.plots.counts_picture([(128, 128), (256, 256), (512, 512)], r=8),
    "Three blue squares, each with sides twice as long as the one before, and along "
    "two sides of each an orange strip of the same width: the square's area grows "
    "faster than the strips'.",
)

# %% [markdown]
# A and B run along two sides of W, r numbers wide. So what LoRA trains grows with the *sides* of a
# matrix, and what full fine-tuning trains with its *area*. Blue is full fine-tuning and orange is
# LoRA, in every figure of these lessons that compares the two.
#
# ## The formula
#
# The adapted layer computes
#
# $$y = x (W + s A B), \quad s = \alpha / r,$$
#
# where A has $d_{in}$ rows and r columns, and B has r rows and $d_{out}$ columns. You choose the
# rank r and the number α (alpha), which sets how much the adapter counts. W is frozen, and s is a
# constant. So what trains is A and B, that is
#
# $$d_{in} r + r d_{out} = r (d_{in} + d_{out})$$
#
# numbers instead of the $d_{in} d_{out}$ numbers of W. For a square matrix, d × d, that is the
# share $2 r d / d^2 = 2 r / d$. (Hu et al. 2021, section 4.1. The paper multiplies columns, so its
# A and B are the transposes of ours; the counts are the same.)

# %% [markdown]
# ### Exercise 5.1: one matrix
#
# *Difficulty 1 of 5, 2 minutes.* Count the numbers that LoRA trains for one matrix. Replace the
# `...`, then run both cells.


# %%
def count_lora(d_in: int, d_out: int, r: int) -> int:
    """How many numbers A and B have, for a W with d_in rows and d_out columns."""
    # SOLUTION
    return r * (d_in + d_out)
    # END SOLUTION


# %%
check.count_lora(count_lora)

# %% [markdown]
# ## Measured on a model
#
# A formula can be checked. `docs-tiny` is a real, if small, model of English text with two blocks.
# Each block, a group of layers, has six matrices: q, k, v and o belong to *attention*, where
# characters look at each other, up and down to the *feed-forward layer*, which works on each
# character alone. These are their sizes, and what rank 4 costs for each.

# %%
config = analysis.ARCHITECTURES["docs-tiny"]
print(f"{'matrix':<10} {'size':>9} {'numbers':>8} {'LoRA, r = 4':>12}")
for name, (d_in, d_out) in analysis.matrix_shapes(config).items():
    size, lora_numbers = f"{d_in} x {d_out}", 4 * (d_in + d_out)
    print(f"{name:<10} {size:>9} {d_in * d_out:>8,} {lora_numbers:>12,}")

expected = analysis.lora_parameters(config, 4, "all-linear")
print(f"\nAdapters for all of them, in both blocks: {expected:,}")

# %% [markdown]
# Now we load the model, add the adapters, and count what is there.

# %%
ALL = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")


def adapted(config=ALL, name="docs-tiny"):
    """A bundled model, just loaded, with a new adapter."""
    model = ml.load_model(name)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


trains_before, all_before = ml.count_parameters(ml.load_model("docs-tiny"))
trains_after, all_after = ml.count_parameters(adapted())

print(f"full fine-tuning trains {trains_before:>7,} of {all_before:,} numbers")
print(f"LoRA             trains {trains_after:>7,} of {all_after:,} numbers")
print(f"by the formula          {expected:>7,}")
assert trains_after == expected

# %% [markdown]
# ### "LoRA adds trainable parameters": does it?
#
# You will meet this sentence in exams. It mixes up two counts, and the cell above has both. The
# model *has* more numbers than before, by those of A and B. But of these numbers far fewer
# *train*, because W is frozen: it has no gradient, and the optimizer keeps nothing for it.

# %%
more, fewer = all_after / all_before, trains_after / trains_before
print(f"numbers in the model:   {all_before:,} -> {all_after:,}  ({more:.3f} x)")
print(f"numbers that train:     {trains_before:,} -> {trains_after:,}", end="")
print(f"  ({fewer:.3f} x)")

whole = ml.AdamW(ml.load_model("docs-tiny").trainable_parameters())
model = adapted()
small = ml.AdamW(model.trainable_parameters())
print(f"optimizer's memory:     {whole.state_bytes:,} -> {small.state_bytes:,} bytes")

ml.merge_and_unload(model)
print(f"numbers after merging:  {ml.count_parameters(model)[1]:,}, as before")

# %% [markdown]
# The last line shows that even the addition is temporary: when training is over, ΔW = s A B can be
# added to W, and A and B are thrown away.
#
# ### Exercise 5.2: a whole model
#
# *Difficulty 2 of 5, 5 minutes.* `shapes` has (d_in, d_out) of every matrix of one block, by name.
# The model has `n_layer` such blocks. Count what LoRA trains when it adapts the matrices named in
# `targets`, in every block.


# %%
def count_model(
    shapes: dict[str, tuple[int, int]], n_layer: int, r: int, targets: list[str]
) -> int:
    """How many numbers LoRA of rank r trains in a model."""
    # SOLUTION
    return n_layer * sum(r * (shapes[name][0] + shapes[name][1]) for name in targets)
    # END SOLUTION


# %%
check.count_model(count_model)

# %% [markdown]
# If all n targets of a block are square, d × d, and there are L blocks, this is $2 L n d r$.
#
# ### Predict, change, run: a wider model
#
# Take a `docs-tiny` whose matrices are `WIDER` times as wide and as high, and adapt all of them
# with the same rank. Its matrices have how many times as many numbers, and what LoRA trains is how
# many times as much? Put your guess for LoRA in place of the `...`, then run the cell.

# %%
WIDER = 2  # change me: 4, 10
GUESS = ...  # what LoRA trains is how many times as much?

wide = replace(config, n_embd=WIDER * config.n_embd)
matrices, adapters = [], []
for one in (config, wide):
    shapes = analysis.matrix_shapes(one).values()
    matrices.append(one.n_layer * sum(d_in * d_out for d_in, d_out in shapes))
    adapters.append(analysis.lora_parameters(one, 4, "all-linear"))
print(f"the matrices: {matrices[1] / matrices[0]:.0f} times as many numbers")
before, after = (a / m for a, m in zip(adapters, matrices, strict=True))
print(f"LoRA's share of them: {before:.1%} -> {after:.1%}")
check.predict(GUESS, adapters[1] / adapters[0], unit="times what LoRA trained")

# %% [markdown]
# You should see that LoRA's count goes with the width and the matrices' with its square, so that
# the share falls: at 10 times the width it is a tenth. It does not go with the number of blocks at
# all: twice the blocks are twice of both.
#
# ## Larger models
#
# The count needs the sizes of the matrices, not the matrices. So we can count for models that would
# never fit on this computer. The adapters here are on the matrices q_proj and v_proj of each block,
# which is what the paper does, with rank 8.

# %%
rows = analysis.count_rows(8, ["q_proj", "v_proj"])
rows.sort(key=lambda row: row["total"])
print(f"{'model':<12} {'all numbers':>15} {'LoRA trains':>12} {'share':>9}", end="")
print(f" {'times fewer':>12}")
for row in rows:
    line = f"{row['model']:<12} {row['total']:>15,} {row['trainable']:>12,}"
    print(f"{line} {row['share']:>9.4%} {row['total'] / row['trainable']:>12,.0f}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 4.3), layout="constrained")
    ml.plots.plot_counts(rows, ax, "LoRA on q and v, r = 8")
    ax.set_title("Larger models: mostly a smaller share")
    ax.legend(loc="lower left")
    ml.plots.show(
        figure,
        "For eleven models, from words-tiny to GPT-3, what full fine-tuning and "
        "what LoRA trains: LoRA's share falls from 4 per cent to 0.02 per cent.",
    )

# %% [markdown]
# **What to see.** From top to bottom the distance between square and circle grows, as the matrices
# of a model of width d grow like d² and their adapters like d. There is one break: Llama-3-8B is
# ahead of the larger Llama-2-13B. Attention works in several *heads*, each with its own part of the
# columns of q, k and v. In Llama-3-8B, as in Llama-2-70B, several heads share one set of keys and
# values (k and v), so v_proj is narrow, 4,096 × 1,024, and its adapter small.
#
# **What it does not show.** How well the adapter learns: a count says nothing about that (the rank
# is the subject of lesson 06). Nor does it show memory or time: LoRA still computes with every
# frozen number.
#
# **Does it hold at scale?** A count holds at any scale, as it is arithmetic, and what others report
# can be checked with it. PEFT, the usual library for LoRA, has measured runs on Llama-3.2-3B (its
# MetaMathQA benchmark, run in July 2026): with rank 32 on q and v it reports 9.2 million trained
# numbers and an adapter file of 37 MB. That model has 28 blocks, q is 3,072 × 3,072 and v 3,072 ×
# 1,024.

# %%
llama_3b = 28 * 32 * ((3072 + 3072) + (3072 + 1024))
print(f"by the formula {llama_3b:,} numbers, in 32 bits {4 * llama_3b / 1e6:.0f} MB")

# %% [markdown]
# So the file holds 4 bytes a number: there the adapter is in 32 bits, beside a model in 16. What
# else that benchmark saved: memory fell from 36.2 GiB to 20.8, that is to 57 per cent, and training
# time to 44 per cent, while 0.3 per cent of the numbers trained (lesson 00 has the accuracies). The
# section on memory says why these shares differ so much.
#
# ## Where LoRA does not save
#
# As the rank grows, so do A and B. At some rank they have as many numbers as W. Beyond it, LoRA
# trains *more* numbers than full fine-tuning.

# %%
for d_in, d_out in ((128, 128), (128, 512), (4096, 4096)):
    highest, even = min(d_in, d_out), analysis.break_even_rank(d_in, d_out)
    print(f"{d_in:>5} x {d_out:<5} has rank at most {highest:>5,}; ", end="")
    print(f"A and B are as large as W at r = {even:,.1f}")

for rank in (63, 64, 65):
    q = adapted(ml.LoraConfig(rank, rank, ["q_proj"])).layers[0].attn.q_proj
    both = q.adapters["default"].A.size + q.adapters["default"].B.size
    W = q.base.weight
    print(f"r = {rank}: q_proj has {both:,} numbers in A and B, {W.size:,} in W")

# %% [markdown]
# In practice this is far away: ranks from 4 to 64 are usual, and matrices are thousands of numbers
# wide. In small models, such as ours, it is not far away at all. The other end is r = 0: A would
# have no column and B no row, so that nothing trains; libraries, this one too, refuse it.
#
# ### Exercise 5.3: where it stops saving
#
# *Difficulty 2 of 5, 5 minutes.* At which rank do A and B together have exactly as many numbers as
# W? The answer need not be a whole number.


# %%
def break_even_rank(d_in: int, d_out: int) -> float:
    """The rank at which LoRA trains as many numbers as W has."""
    # SOLUTION
    return d_in * d_out / (d_in + d_out)
    # END SOLUTION


# %%
check.break_even_rank(break_even_rank)

# %% [markdown]
# ## The paper's numbers, computed again
#
# Hu et al. (2021) fine-tuned GPT-3, which has 96 blocks of width 12,288. Most of what they print of
# it, and of two smaller models, follows from the sizes of matrices, up to rounding; two numbers do
# not, and the paper does not say why. (*Q v* are the matrices that are adapted; an encoder such as
# RoBERTa has the same matrices in a block as GPT-2.)

# %%
print(f"{'':<34} {'computed':>11} {'printed':>9}")
for claim in analysis.HU_2021:
    note = f"\n{'':>12}{claim.note}" if claim.note else ""
    line = f"{claim.name:<34} {claim.rounded:>11} {claim.printed:>9}"
    print(f"{line} {claim.unit}{note}")

# %% [markdown]
# So "10,000 times fewer trainable parameters", an often quoted number, is 9,285 rounded up, and
# holds for q and v at rank 4. At rank 8 it would be half as much, and for a small model far less:
# it is a property not of LoRA as such, but of LoRA on a very wide model. The Hugging Face LLM
# course says "about 90%" fewer; of the models above, none has as little as that. Count for yourself
# before you quote, also a famous number: GPT-2 medium at rank 4 has 393,216, which no rounding
# turns into the 0.35 million of the paper's Table 3. (RoBERTa's 0.3 million are 294,912, rounded.)
#
# The paper's Table 5 has one *budget*, 18 million: to compare where to put LoRA, it gives each
# choice the highest rank that it can afford. Fewer matrices, more rank for each.
#
# ### Exercise 5.4: a budget
#
# *Difficulty 3 of 5, 8 minutes.* What is the largest rank with which LoRA on `targets` trains at
# most `budget` numbers? If not even rank 1 does, the answer is 0.


# %%
def largest_rank(
    shapes: dict[str, tuple[int, int]], n_layer: int, targets: list[str], budget: int
) -> int:
    """The largest rank within a budget of trained numbers."""
    # SOLUTION
    per_rank = n_layer * sum(shapes[name][0] + shapes[name][1] for name in targets)
    return budget // per_rank
    # END SOLUTION


# %%
check.largest_rank(largest_rank)

# %% [markdown]
# In `docs-tiny` a unit of rank costs 256 for each matrix of attention and 640 for up and for down.
# What can 18,432 numbers buy?

# %%
places = {
    "q": ["q_proj"],
    "q and v": ["q_proj", "v_proj"],
    "up and down": ["up_proj", "down_proj"],
    "all six": ["all-linear"],
}
for place, targets in places.items():
    per_rank = analysis.lora_parameters(config, 1, targets)
    rank = 18_432 // per_rank
    print(f"{place:<12} {per_rank:>6,} numbers for each rank: r = {rank}")

# %% [markdown]
# ## Traps
#
# A count goes wrong where names hide what is there. Four cases:

# %%
gpt2 = analysis.ARCHITECTURES["gpt2"]
gpt2_all = analysis.total_parameters(gpt2)
fused = analysis.lora_parameters(gpt2, 8, "c_attn")
apart = analysis.lora_parameters(gpt2, 8, ["q_proj", "k_proj", "v_proj"])
print(f"1. GPT-2, q, k and v in one matrix {fused:,}, in three {apart:,}")

grouped = analysis.lora_parameters(analysis.ARCHITECTURES["llama-3-8b"], 16, "v_proj")
print(f"2. Llama-3-8B, v_proj, r = 16: {grouped // 32:,} in a block; ", end="")
print(f"square {16 * 2 * 4096:,}")

biases = {}
for bias in ("none", "lora_only", "all"):
    one = ml.LoraConfig(4, 8, ["q_proj", "v_proj"], bias=bias)
    biases[bias] = ml.count_parameters(adapted(one))[0]
print(f"3. docs-tiny, q and v, r = 4, by bias: {biases}")
print(f"4. GPT-2's share: of the base {fused / gpt2_all:.4%}, ", end="")
print(f"of base and adapter {fused / (gpt2_all + fused):.4%}")

# %% [markdown]
# 1. GPT-2's files keep q, k and v as one matrix of 768 × 2,304, `c_attn`. PEFT sees one matrix, so
#    there is one A, which the three share, and not three.
# 2. Where heads share keys and values, k and v are narrow. Look the shape up.
# 3. `bias="none"` means that no bias trains, although a comment beside it in the Hugging Face LLM
#    course says that "the corresponding biases will be updated". `"lora_only"` trains those of the
#    adapted layers, one number for each output; `"all"` every bias of the model, also those of the
#    norm layers.
# 4. PEFT's "trainable%" divides by all numbers, A and B included. For large models the two shares
#    are nearly the same; at a high rank on a small model they are not.
#
# ## What it saves: files
#
# For each task, full fine-tuning leaves a whole model behind, LoRA an adapter. We write both files,
# look at their sizes, and count what else the adapter's holds.

# %%
sizes = {}
with tempfile.TemporaryDirectory() as folder:
    ml.save_model(ml.load_model("docs-tiny"), Path(folder, "model"))
    ml.save_adapter(adapted(), Path(folder, "adapter"))
    for name, numbers in (("model", all_before), ("adapter_model", trains_after)):
        file = Path(folder, name.partition("_")[0], f"{name}.safetensors")
        sizes[name] = file.stat().st_size
        line = f"{file.name:<26} {sizes[name]:>9,} bytes, of these {4 * numbers:>9,}"
        print(f"{line} for {numbers:,} numbers")
    arrays = load_file(file)

# %%
zeros = sum(array.size for array in arrays.values()) - trains_after
names = sizes["adapter_model"] - 4 * (trains_after + zeros)
print(f"the adapter's file, {len(arrays)} arrays; ", end="")
print("those of q, k and v in the first block:")
for name, array in arrays.items():
    if ".h.0.attn.c_attn." in name:
        print(f"  {name.partition('.h.')[2]:<26} {array.shape!s:>10}")
print(f"zeros that fill up B: {zeros:,} numbers, {4 * zeros:,} bytes; ", end="")
print(f"names: {names:,} bytes")

# %% [markdown]
# The model's file is its numbers, of 4 bytes each, and little else. The adapter's has more. Our
# file stores q, k and v as one matrix, as GPT-2's does. Three adapters of rank 4 become one of rank
# 12, whose B is two-thirds zeros: q's part of A must reach q's columns alone, and so with k and v.
# That is 24,576 of the extra bytes; the rest is names. (The file holds transposes, as the paper's A
# and B are.)
#
# ## What it saves: memory
#
# In training, a number that trains takes more memory than a number that is only there. How much
# more depends on the recipe. With the optimizer AdamW, in bytes a number:
#
# | | weights in 16 bits only | mixed precision | … gradients in 32 bits | frozen |
# |---|---|---|---|---|
# | the weight, in 16 bits | 2 | 2 | 2 | 2 |
# | its gradient | 2 | 2 | 4 | |
# | a copy of the weight, in 32 bits | | 4 | 4 | |
# | AdamW's two moments, in 32 bits | 8 | 8 | 8 | |
# | together | **12** | **16** | **18** | **2** |
#
# *Mixed precision* computes with 16 bits and keeps a 32-bit copy of each weight, to which the steps
# are added, because many steps are too small to change a number of 16 bits. That is the usual
# recipe, 16 bytes (Rajbhandari et al. 2020, ZeRO, section 3.1). Exam questions often mean the first
# column: 84 GB for 7 billion numbers, 14 of weights, 14 of gradients and 56 of moments. So say
# which recipe you count. From here on it is the first, the smallest; lesson 03 measures what is
# really there.
#
# QLoRA (Dettmers et al. 2023) goes one step further and keeps the frozen matrices in about 4 bits a
# number. "About", because each block of 64 numbers shares one scale: in 32 bits the scale makes it
# 4.5 bits a number. *Double quantization* stores these scales in 8 bits, and for each 256 of them
# one more scale in 32 bits:

# %%
once = 4 + 32 / 64
twice = 4 + 8 / 64 + 32 / (64 * 256)
print(f"bits a number: {once} with scales in 32 bits, ", end="")
print(f"{twice:.3f} with double quantization")
assert twice == analysis.NF4_BITS

# %% [markdown]
# The memory ladder of a Llama-2-7B with rank 8 on q and v, in GB (1 GB is 10⁹ bytes):

# %%
llama_config = analysis.ARCHITECTURES["llama-2-7b"]
ladder = analysis.memory_ladder(llama_config, 8, ["q_proj", "v_proj"])
print(f"{'':<6} {'weights':>8} {'gradients':>10} {'optimizer':>10} {'total':>8}")
for method, parts in ladder.items():
    weights, gradients, optimizer, total = (part / 1e9 for part in parts.values())
    line = f"{weights:>8.2f} {gradients:>10.2f} {optimizer:>10.2f} {total:>8.2f}"
    print(f"{method:<6} {line}")

llama = next(row for row in rows if row["model"] == "llama-2-7b")
fewer = llama["total"] / llama["trainable"]
saved = ladder["full"]["total"] / ladder["lora"]["total"]
print(f"\nLoRA trains 1/{fewer:,.0f} of the numbers, in 1/{saved:.0f} of the memory.")

# %% tags=["hide-input"]
everything = analysis.total_parameters(llama_config)
bars = {
    "full, gradients in 32 bits": (2, 4, 4, 8),
    "full, mixed precision": (2, 2, 4, 8),
    "full, 16 bits only": (2, 2, 0, 8),
}
bars = {name: [everything * part / 1e9 for part in parts] for name, parts in bars.items()}
for method, name in (("lora", "LoRA, r = 8 on q and v"), ("qlora", "QLoRA, the same")):
    step = ladder[method]
    bars[name] = [step["weights"] / 1e9, step["gradients"] / 1e9, 0, step["optimizer"] / 1e9]
parts = ("weights", "gradients", "32-bit copy of weights", "AdamW's moments")
shades = ("0.15", "0.45", "0.7", "0.88")
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.3), layout="constrained")
    left = np.zeros(len(bars))
    for part, values, color in zip(parts, zip(*bars.values(), strict=True), shades, strict=True):
        ax.barh(list(bars), values, 0.62, left, color=color, ec="white", label=part)
        left += values
    for y, total in enumerate(left):
        ax.text(total + 1, y, f"{total:.1f}", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set(xlim=(0, 136), xlabel="GB, without activations", title="Training a Llama-2-7B")
    figure.legend(loc="outside lower center", ncols=4)
    ml.plots.show(
        figure,
        "Bars of memory for five ways to train a Llama-2-7B: full fine-tuning 121, "
        "108 and 81 GB by recipe, LoRA 13.5 GB, nearly all of it weights, QLoRA 3.9 "
        "GB.",
    )

# %% [markdown]
# **What to see.** LoRA takes away whatever belongs to a number that trains, in any recipe, and
# leaves the weights. Only QLoRA makes these smaller. They are 3.87 GB, more than 4 bits for each of
# 6.74 billion numbers, 3.37 GB: each block of 64 has its scale, and embeddings, head and norm
# layers stay in 16 bits.

# %%
in_blocks = llama_config.n_layer * sum(
    d_in * d_out for d_in, d_out in analysis.matrix_shapes(llama_config).values()
)
in_nf4, in_16_bits = in_blocks * twice / 8e9, 2 * (everything - in_blocks) / 1e9
print(f"all {everything / 1e9:.2f} billion numbers in 4 bits: ", end="")
print(f"{everything / 2e9:.2f} GB")
print(f"blocks: {in_blocks / 1e9:.2f} billion in {twice:.3f} bits: {in_nf4:.2f} GB")
rest = (everything - in_blocks) / 1e9
print(f"the rest: {rest:.2f} billion in 16 bits: {in_16_bits:.2f} GB")
print(f"together {in_nf4 + in_16_bits:.2f} GB")
print(f"\nGPT-3 in 12 bytes a number: {12 * 175.2558e9 / 1e12:.1f} TB", end="")
print(f", in 2: {2 * 175.2558e9 / 1e9:.0f} GB")

# %% [markdown]
# **What it does not show.** *Activations*: while a batch is computed, the results of each layer are
# kept for the backward pass. They grow with the batch, and LoRA needs most of them too. (In the
# benchmark above, the weights of 3.2 billion numbers are 6 of the 20.8 GiB that LoRA takes.) The
# last line is for the paper's own claim, that training GPT-3 takes 1.2 TB with full fine-tuning and
# 350 GB with LoRA: the second are the weights in 16 bits; of the first it does not say what is
# counted, and by the table it would be more.
#
# ### Predict, change, run: the batch
#
# How much memory does a step of LoRA take, beside the weights, in per cent of a step of full
# fine-tuning? It trains 4 per cent of the numbers. Guess, then run; then change the batch.

# %%
BATCH = 16  # change me: 1, 48: how many texts of 64 characters a step learns from
GUESS = ...  # LoRA's memory, in per cent of full fine-tuning's

rng = np.random.default_rng(0)
texts = rng.integers(0, 96, (BATCH, 64))  # any characters will do
one_step, peak = ml.TrainConfig(steps=1, lr=1e-3), {}
for method, model in (("full", ml.load_model("docs-tiny")), ("LoRA", adapted())):
    training = ml.Training(model, lambda rng: (texts, texts), one_step)
    peak[method] = ml.step_memory(training) / 1e6
    print(f"{method}: {peak[method]:.0f} MB at the highest point of a step")
check.predict(GUESS, round(100 * peak["LoRA"] / peak["full"]), unit="per cent")

# %% [markdown]
# You should see LoRA's share rise with the batch, from about 29 per cent with one text to 96 with
# 48. What LoRA saves is the same each time, gradients and moments. The activations grow, and are
# saved by nobody. So whether LoRA makes a training fit depends on what fills the memory: a large
# model with few texts at a time gains most.
#
# ### Exercise 5.5: memory
#
# *Difficulty 3 of 5, 8 minutes.* How many GB (10⁹ bytes) does training take, without activations?
# A frozen number takes `frozen_bits` bits. One that trains takes 2 bytes for itself, 2 for its
# gradient, and two moments of 4 bytes each.


# %%
def training_gigabytes(frozen: float, trained: float, frozen_bits: float) -> float:
    """The memory of training, in GB, of so many frozen and trained numbers."""
    # SOLUTION
    weights = frozen * frozen_bits / 8 + 2 * trained
    gradients = 2 * trained
    optimizer = 8 * trained
    return (weights + gradients + optimizer) / 1e9
    # END SOLUTION


# %%
check.training_gigabytes(training_gigabytes)

# %% [markdown]
# ### Exercise 5.6: an adapter for a GPU of 16 GB
#
# *Difficulty 3 of 5, 10 minutes.* You have a GPU with `gpu` GB of memory, and set `reserve` GB
# of it aside for activations. The model's `frozen` numbers take `frozen_bits` bits each, and every
# rank adds `per_rank` numbers that train, at 12 bytes each (as in 5.5). Find the largest rank that
# fits; if there is none, the answer is 0.


# %%
def rank_for_gpu(
    frozen: int, per_rank: int, gpu: float, reserve: float, frozen_bits: float
) -> int:  # fmt: skip
    """The largest rank that can be trained on this GPU; 0 if there is none."""
    # SOLUTION
    left = (gpu - reserve) * 1e9 - frozen * frozen_bits / 8
    return max(0, int(left // (12 * per_rank)))
    # END SOLUTION


# %%
check.rank_for_gpu(rank_for_gpu)

# %% [markdown]
# Now use it: a Llama-2-7B with adapters on all its matrices, on 16 GB with 4 of them in reserve, so
# that 12 are left. The frozen weights are once in 16 bits and once in 4, nearly as in QLoRA. (Until
# you solve the exercise, the last column shows None.)

# %%
per_rank = analysis.lora_parameters(llama_config, 1, "all-linear")
print("frozen in   frozen GB   GB at r = 8   at r = 64   at r = 256", end="")
print("   your largest rank")
for bits in (16, 4):
    totals = []
    for r in (8, 64, 256):
        in_bytes = analysis.training_bytes(everything, r * per_rank, bits)
        totals.append(in_bytes["total"] / 1e9)
    at_8, at_64, at_256 = totals
    yours = str(rank_for_gpu(everything, per_rank, 16, 4, bits))
    print(f"{bits:>4} bits {everything * bits / 8e9:>13.2f} {at_8:>13.2f} ", end="")
    print(f"{at_64:>11.2f} {at_256:>12.2f} {yours:>19}")

# %% [markdown]
# What decides is whether the frozen weights fit. In 16 bits they alone need more than 12 GB, and no
# rank fits. In 4 bits even rank 256 does, which is far above the usual ones: choose the rank for
# what is to be learned.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 05`, in a terminal, asks the cards of this lesson; behind them are these
# questions:
#
# - How many numbers does LoRA train for one matrix, and for a whole model? Which share is that?
# - Does LoRA add trainable parameters?
# - What happens to the count in a model that is twice as wide?
# - At which rank does LoRA stop saving, and what would rank 0 be?
# - Where does "10,000 times fewer" come from, and when does it not hold? Is it "about 90 %"?
# - How do fused matrices, shared heads and biases change the count?
# - Which ranks can different placements afford with one budget?
#
# The memory ladder returns in lessons 03 and 10, and so do its cards.
#
# ## Where to read on
#
# - Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, sections 4.1 and 4.2 (the
#   method and what it saves), Table 4 (counts and results for GPT-3), Table 5 (the same budget for
#   different targets).
# - Dettmers et al. 2023, *QLoRA: Efficient Finetuning of Quantized LLMs*, section 3 (the base in 4
#   bits).
# - Rajbhandari et al. 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
#   section 3.1 (what takes memory in training).
# - In this package: `minilora/analysis/counting.py`, and `minilora params 4096x4096 --rank 8` in a
#   terminal.
