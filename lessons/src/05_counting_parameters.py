# %% [markdown]
# # 05 · Counting parameters
#
# **The question.** How many numbers does LoRA train, and what does that save?
#
# **You will be able to**
#
# - count the numbers that LoRA trains, for one matrix and for a whole model;
# - check the numbers that the LoRA paper prints, and say which are rounded, and how;
# - turn a count into bytes: of a file, and of the memory that training needs;
# - say when LoRA saves nothing;
# - plan an adapter for a GPU of a given size.
#
# **Time to run:** 10 seconds. **Before this:** you know what a matrix product is, and that LoRA
# (low-rank adaptation) leaves the weights W of a model as they are and learns a change of them.

# %%
import tempfile
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
# *adapter*, and their short side, r, is its *rank*. Here they are for a matrix of our small model,
# drawn to scale: an area is a count.

# %%
ml.plots.lora_picture(d_in=128, d_out=128, r=4)

# %% [markdown]
# Blue is full fine-tuning and orange is LoRA, in every figure of these lessons that compares the
# two.
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
# numbers instead of the $d_{in} d_{out}$ numbers of W.
#
# LoRA's count grows with the sum of the sides, W's with their product; so the larger the matrix,
# the smaller the share. (Hu et al. 2021, section 4.1. The paper multiplies columns, so its A and B
# are the transposes of ours; the counts are the same.)

# %% [markdown]
# ### Exercise 5.1: one matrix
#
# *Difficulty 1 of 5, 2 minutes.* Count the numbers that LoRA trains for one matrix. Replace the
# `...`, then run both cells.


# %%
def count_lora(d_in: int, d_out: int, r: int) -> int:
    """How many numbers A and B have together, for a matrix W with d_in rows and d_out columns."""
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
    print(f"{name:<10} {f'{d_in} x {d_out}':>9} {d_in * d_out:>8,} {4 * (d_in + d_out):>12,}")

expected = analysis.lora_parameters(config, 4, "all-linear")
print(f"\nAdapters for all of them, in both blocks: {expected:,}")

# %% [markdown]
# Now we load the model, add the adapters, and count what is there.

# %%
model = ml.load_model("docs-tiny")
trains_before, all_before = ml.count_parameters(model)

lora = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
ml.add_adapter(model, lora, rng=np.random.default_rng(0))
trains_after, all_after = ml.count_parameters(model)

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
print(f"numbers in the model:   {all_before:,} -> {all_after:,}  ({all_after / all_before:.3f} x)")
share = trains_after / trains_before
print(f"numbers that train:     {trains_before:,} -> {trains_after:,}  ({share:.3f} x)")

whole = ml.AdamW(ml.load_model("docs-tiny").trainable_parameters())
small = ml.AdamW(model.trainable_parameters())
print(f"optimizer's memory:     {whole.state_bytes:,} -> {small.state_bytes:,} bytes")

ml.merge_and_unload(model)
print(f"numbers after merging:  {ml.count_parameters(model)[1]:,}, as before")

# %% [markdown]
# The last line shows that even the addition is temporary: when training is over, ΔW = s A B can be
# added to W, and A and B are thrown away.
#
# ## Larger models
#
# The count needs the sizes of the matrices, not the matrices. So we can count for models that would
# never fit on this computer. The adapters here are on the matrices q_proj and v_proj of each block,
# which is what the paper does, with rank 8.

# %%
rows = analysis.count_rows(8, ["q_proj", "v_proj"])
rows.sort(key=lambda row: row["total"])
print(f"{'model':<12} {'all numbers':>15} {'LoRA trains':>12} {'share':>9} {'times fewer':>12}")
for row in rows:
    fewer = row["total"] / row["trainable"]
    print(
        f"{row['model']:<12} {row['total']:>15,} {row['trainable']:>12,} {row['share']:>9.4%} "
        f"{fewer:>12,.0f}"
    )

# %%
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(8.5, 5), layout="constrained")
    ml.plots.plot_counts(rows, ax, "LoRA on q and v, r = 8")
    ax.set_title("Larger models: mostly a smaller share")
    ax.legend(loc="lower left")
    plt.show()

# %% [markdown]
# **What to see.** From top to bottom the distance between square and circle grows, as the matrices
# of a model of width d grow like d² and their adapters like d. There is one break: Llama-3-8B is
# ahead of the larger Llama-2-13B. Attention works in several *heads*, each with its own part of the
# columns of q, k and v. In Llama-3-8B, as in Llama-2-70B, several heads share one set of keys and
# values (k and v), so v_proj is narrow and its adapter small.
#
# **What it does not show.** How well the adapter learns: a count says nothing about that (the rank
# is the subject of lesson 06). Nor does it show memory or time: LoRA still computes with every
# frozen number.

# %% [markdown]
# ## The paper's numbers, computed again
#
# Hu et al. (2021) fine-tuned GPT-3, which has 96 blocks of width 12,288. Most of what they print of
# it, and of two smaller models, follows from the sizes of matrices, up to rounding; two numbers do
# not, and the paper does not say why.

# %%
print(f"{'':<34} {'computed':>11} {'printed':>9}")
for claim in analysis.HU_2021:
    note = f"   {claim.note}" if claim.note else ""
    print(f"{claim.name:<34} {claim.rounded:>11} {claim.printed:>9} {claim.unit}{note}")

# %% [markdown]
# So "10,000 times fewer trainable parameters", an often quoted number, is rounded up, and holds for
# q and v at rank 4. At rank 8 it would be half as much, and for a small model far less: it is a
# property not of LoRA as such, but of LoRA on a very wide model.
#
# ## What it saves: files
#
# For each task, full fine-tuning leaves a whole model behind, LoRA an adapter. We write both files,
# look at their sizes, and count what else the adapter's holds.

# %%
model = ml.load_model("docs-tiny")
ml.add_adapter(model, lora, rng=np.random.default_rng(0))
with tempfile.TemporaryDirectory() as folder:
    ml.save_adapter(model, Path(folder, "adapter"))
    ml.merge_and_unload(model)
    ml.save_model(model, Path(folder, "model"))
    for name, numbers in (("model/model", all_before), ("adapter/adapter_model", trains_after)):
        size = Path(folder, f"{name}.safetensors").stat().st_size
        print(
            f"{name.rpartition('/')[2]}.safetensors: {size:>9,} bytes, "
            f"of these {4 * numbers:>9,} for {numbers:,} numbers of 4 bytes"
        )
    arrays = load_file(Path(folder, "adapter", "adapter_model.safetensors"))

zeros = sum(array.size for array in arrays.values()) - trains_after
print(f"\nthe adapter's file, {len(arrays)} arrays; those of q, k and v in the first block:")
for name, array in arrays.items():
    if ".h.0.attn.c_attn." in name:
        print(f"  {name.partition('.h.')[2]:<26} {array.shape!s:>10}")
print(
    f"zeros that fill up B: {zeros:,} numbers, {4 * zeros:,} bytes; "
    f"names: {size - 4 * (trains_after + zeros):,} bytes"
)

# %% [markdown]
# The model's file is its numbers and little else. The adapter's has more. Our file stores q, k and
# v as one matrix, as GPT-2's does. Three adapters of rank 4 become one of rank 12, whose B is
# two-thirds zeros: q's part of A must reach q's columns alone, and so with k and v. That is 24,576
# of the extra bytes; the rest is names. (The file holds transposes, as the paper's A and B are.)
#
# ## What it saves: memory
#
# In training, a number that trains takes more memory than a number that is only there. In the usual
# mixed precision and with the optimizer AdamW:
#
# | | trains | frozen |
# |---|---|---|
# | the weight, in 16 bits | 2 bytes | 2 bytes |
# | its gradient, in 16 bits | 2 bytes | |
# | AdamW's two moments, in 32 bits | 8 bytes | |
# | together | 12 bytes | 2 bytes |
#
# (Many set-ups also keep a 32-bit copy of each weight that trains: 4 more bytes. ZeRO, listed at
# the end, counts it; we do not.)
#
# QLoRA (Dettmers et al. 2023) goes one step further and keeps the frozen matrices in about 4 bits a
# number. The memory ladder of a Llama-2-7B, in GB (1 GB is 10⁹ bytes):

# %%
llama_config = analysis.ARCHITECTURES["llama-2-7b"]
ladder = analysis.memory_ladder(llama_config, 8, ["q_proj", "v_proj"])
print(f"{'':<6} {'weights':>8} {'gradients':>10} {'optimizer':>10} {'total':>8}")
for method, parts in ladder.items():
    weights, gradients, optimizer, total = (part / 1e9 for part in parts.values())
    print(f"{method:<6} {weights:>8.2f} {gradients:>10.2f} {optimizer:>10.2f} {total:>8.2f}")

llama = next(row for row in rows if row["model"] == "llama-2-7b")
fewer = llama["total"] / llama["trainable"]
saved = ladder["full"]["total"] / ladder["lora"]["total"]
print(f"\nLoRA trains 1/{fewer:,.0f} of the numbers, in 1/{saved:.0f} of the memory, ", end="")
print("without activations.")

in_block = sum(a * b for a, b in analysis.matrix_shapes(llama_config).values())
in_blocks = llama_config.n_layer * in_block
rest = llama["total"] - in_blocks
print(f"\nall {llama['total'] / 1e9:.2f} billion numbers in 4 bits: {llama['total'] / 2e9:.2f} GB")
in_nf4, in_16_bits = in_blocks * analysis.NF4_BITS / 8e9, 2 * rest / 1e9
print(f"blocks: {in_blocks / 1e9:.2f} billion in {analysis.NF4_BITS:.2f} bits: {in_nf4:.2f} GB")
print(f"the rest: {rest / 1e9:.2f} billion in 16 bits: {in_16_bits:.2f} GB; ", end="")
print(f"with the blocks {in_nf4 + in_16_bits:.2f} GB")

# %% [markdown]
# The saving in memory is real, and it is not the saving in parameters: the frozen weights remain.
# In QLoRA they are 3.87 GB, which is more than 4 bits for each of 6.74 billion numbers, 3.37 GB,
# because embeddings, head and norms stay in 16 bits, and each block of 64 numbers stores a scale.
#
# And the table leaves something out. While a batch is computed, the results of each layer, the
# *activations*, are kept for the backward pass. They grow with the batch, and LoRA needs most of
# them too. They can be the largest part; in lesson 00 a step's memory fell only to 79 per cent.
#
# ## Where LoRA does not save
#
# As the rank grows, so do A and B. At some rank they have as many numbers as W. Beyond it, LoRA
# trains *more* numbers than full fine-tuning.

# %%
for d_in, d_out in ((128, 128), (128, 512), (4096, 4096)):
    even = analysis.break_even_rank(d_in, d_out)
    print(
        f"{d_in:>5} x {d_out:<5} has rank at most {min(d_in, d_out):>5,}; "
        f"A and B are as large as W at r = {even:,.1f}"
    )

model = ml.load_model("docs-tiny")
for rank in (63, 64, 65):
    big = ml.LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj"])
    ml.add_adapter(model, big, rng=np.random.default_rng(0))
    q = model.layers[0].attn.q_proj
    A, B, W = q.adapters["default"].A, q.adapters["default"].B, q.base.weight
    print(f"r = {rank}: q_proj has {A.size + B.size:,} numbers in A and B, {W.size:,} in W")
    ml.delete_adapter(model, "default")

# %% [markdown]
# In practice this is far away: ranks from 4 to 64 are usual, and matrices are thousands of numbers
# wide. In small models, such as ours, it is not far away at all.
#
# ## Exercises

# %% [markdown]
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
# ### Exercise 5.3: where it stops saving
#
# *Difficulty 2 of 5, 5 minutes.* At which rank do A and B together have exactly as many numbers as
# W? The answer need not be a whole number.


# %%
def break_even_rank(d_in: int, d_out: int) -> float:
    """The rank at which LoRA trains as many numbers as full fine-tuning of the matrix."""
    # SOLUTION
    return d_in * d_out / (d_in + d_out)
    # END SOLUTION


# %%
check.break_even_rank(break_even_rank)

# %% [markdown]
# ### Exercise 5.4: a budget
#
# *Difficulty 3 of 5, 8 minutes.* Papers compare methods at an equal number of trained numbers, the
# budget. What is the largest rank with which LoRA on `targets` trains at most `budget` numbers? If
# not even rank 1 does, the answer is 0.


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
# ### Exercise 5.5: memory
#
# *Difficulty 3 of 5, 8 minutes.* How many GB (10⁹ bytes) does training take, without activations?
# A frozen number takes `frozen_bits` bits. One that trains takes 2 bytes for itself, 2 for its
# gradient, and two moments of 4 bytes each.


# %%
def training_gigabytes(frozen: float, trained: float, frozen_bits: float) -> float:
    """The memory of training, in GB, from how many numbers are frozen and how many train."""
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
# rank adds `per_rank` numbers that train, at 12 bytes each (as above). Find the largest rank that
# fits; if there is none, the answer is 0.


# %%
def rank_for_gpu(
    frozen: int, per_rank: int, gpu: float, reserve: float, frozen_bits: float
) -> int:
    """The largest rank of an adapter that can be trained on this GPU; 0 if there is none."""
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
frozen = analysis.total_parameters(llama_config)
per_rank = analysis.lora_parameters(llama_config, 1, "all-linear")
print("frozen in   frozen GB   GB at r = 8   at r = 64   at r = 256   your largest rank")
for bits in (16, 4):
    at_8, at_64, at_256 = (
        analysis.training_bytes(frozen, r * per_rank, bits)["total"] / 1e9 for r in (8, 64, 256)
    )
    print(
        f"{bits:>4} bits {frozen * bits / 8e9:>13.2f} {at_8:>13.2f} {at_64:>11.2f} {at_256:>12.2f} "
        f"{rank_for_gpu(frozen, per_rank, 16, 4, bits)!s:>19}"
    )

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
# - How many numbers does LoRA train for one matrix, and for a whole model?
# - Does LoRA add trainable parameters?
# - At which rank does LoRA stop saving?
# - Where does "10,000 times fewer" come from, and when does it not hold?
# - What is on each step of the memory ladder: full fine-tuning, LoRA, QLoRA?
# - Why does memory fall by much less than the number of trained parameters?
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
