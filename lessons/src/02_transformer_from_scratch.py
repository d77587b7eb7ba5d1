# %% [markdown]
# # 02 · A transformer from scratch
#
# **The question.** What does a language model compute, from a text to the next character?
#
# **You will be able to**
#
# - follow a text through a transformer and name every array on the way, with its shape;
# - write attention, a norm layer, a block and a whole model in NumPy;
# - load the real weights of a small model into your functions and get the same numbers out;
# - turn logits into a loss, and into text;
# - say which matrices LoRA adapts, and where they stand.
#
# **Time:** 5 seconds to run, 25 minutes to read, 110 with the exercises. **Before this:** NumPy
# (`@` on arrays of three axes multiplies the last two). No gradients are needed here, and no lesson
# before this one. **Words:** this lesson explains the vocabulary of all others; the
# [glossary](GLOSSARY.md) keeps it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora.learn import check

# %% [markdown]
# ## A picture
#
# A *language model* reads a text and says what may come next. To write, it picks one of the
# possibilities, puts it at the end of the text, and reads again. Nothing else happens, in
# `docs-tiny`, which we take apart here, as in models a million times its size.
#
# Nearly all of them are *transformers*. Each position in the text has a row of numbers. The rows
# run through a number of *blocks*, built alike, and every block adds something to them. This is one
# block. What its boxes do is explained below, one by one, and you will have written all of it by
# the end of the lesson.

# %% tags=["hide-input"]
ml.plots.show(
    ml.plots.block_picture(),
    "A block. The residual stream runs from left to right. Attention reads it "
    "through a norm and the matrices q, k and v and adds its result through o; then "
    "the MLP reads it through a norm and adds its result through up, GELU and down. "
    "LoRA adapts the six matrices, drawn in orange.",
)

# %% [markdown]
# The grey line is the *residual stream*. Nothing is ever taken off it or put in its place: the two
# parts of a block read it and add to it.
#
# ## The formula
#
# With x for the rows, one block is
#
# $$x \leftarrow x + \mathrm{attention}(\mathrm{norm}(x)), \qquad
# x \leftarrow x + \mathrm{MLP}(\mathrm{norm}(x)).$$
#
# Attention lets the positions exchange information; the MLP, in the picture up, GELU and down,
# works on each position alone. Around the blocks stand a table, which turns symbols into rows, and
# a last matrix, which turns rows into scores for the next symbol (here it is the table once more,
# so the list below does not name it). The letters, here and in all code: T positions, C numbers in
# a row (*channels*), H heads of D numbers each, V symbols. `docs-tiny` has T = 64 at most, C = 128,
# H = 4, D = 32, V = 96, and 2 blocks. This is what it consists of, its *weights*: the numbers that
# training has found.

# %%
model = ml.load_model("docs-tiny")
weights = {name: p.data for name, p in model.named_parameters()}
for name, array in weights.items():
    if not name.startswith("layers.1"):  # the second block is built like the first
        print(f"{name:<29} {array.shape}")

# %% [markdown]
# ## Tokens and embeddings
#
# The unit that a model reads and writes is a *token*. Large models have 30,000 to 200,000 of them,
# words and pieces of words. Ours are single characters: 96 of them, the model's *vocabulary*. A
# text becomes a list of their numbers, called ids.

# %%
text = "Return the name of the file that was opened."
ids = ml.encode(text).astype(int)
print(text[:10], "->", ids[:10])
print(ids[:10], "->", ml.decode(ids[:10]))

# %% [markdown]
# Each id then picks its row from a table, `tok_embed`, of V rows with C numbers. That row is the
# token's *embedding*: 128 numbers that training has found for it. To it is added a row from a
# second table, `pos_embed`, the *position embedding*: without it, the model could not
# know the order of the characters. The sum is where the residual stream begins. T is limited by the
# rows of the second table: 64, the model's *block size* (large models read many thousand tokens).

# %%
x = weights["tok_embed.weight"][ids] + weights["pos_embed.weight"][: len(ids)]
print("the stream at its start:", x.shape, "= (T, C)")

# %% [markdown]
# ## Logits and probabilities
#
# Now look at the other end. For *each* position the model gives out V numbers, the *logits*: one
# score for every symbol that might come next. The row of the last position is about the character
# after the text; the rows before it are about characters that are in the text, which is what it is
# trained on.

# %%
prompt = ml.encode("The function retur")
logits = model(prompt[None]).data[0]  # (1, T) -> (1, T, V): one text at a time
best = np.argsort(-logits[-1])[:4]
print("logits", logits.shape, " the four highest of the last row:")
print({ml.decode([i]): round(float(logits[-1, i]), 1) for i in best})

# %% [markdown]
# Logits become probabilities by the *softmax*: take exponentials, so that all are positive, and
# divide by their sum:
#
# $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}.$$

# %% [markdown]
# ### Exercise 2.1: softmax
#
# *Difficulty 2 of 5, 6 minutes.* Write it for the last axis of an array with any number of axes.
# Entries may be large, 1000 or −2000, and some may be minus infinity, whose probability is 0. (A
# number may be taken off all entries of a row without any change: it cancels out.)


# %%
def softmax(x: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis.   (..., n) -> (..., n)"""
    # SOLUTION
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
    # END SOLUTION


# %%
check.softmax(softmax)

# %% [markdown]
# ## Attention
#
# To know what follows "the name of the fil", a position must look at others. Every position
# computes three short rows of D numbers from its own row, with three matrices (C, D):
#
# - a *query* q: what it is looking for;
# - a *key* k: what it has to offer;
# - a *value* v: what it passes on to those that look at it.
#
# The product of a query with a key, summed over their D numbers, is a score: how much should this
# position look at that one? The scores of a position go through the softmax. What comes out, its
# *attention weights*, are shares of 1, and in these shares the values are mixed:
#
# $$\mathrm{attention}(Q, K, V) =
# \mathrm{softmax}\!\left(\frac{Q K^T}{\sqrt{D}} + \mathrm{mask}\right) V.$$
#
# Here row i of Q, K and V belongs to position i. The root of D keeps the scores at the same size
# whatever D is: a sum of D products of random numbers has a standard deviation of √D. (Vaswani et
# al. 2017, equation 1.)
#
# In numbers, for one position that sees three, where D is 2. The largest score wins most of the
# weight, and the result is near its value:

# %%
scores = np.array([1.0, 0.0, 2.0])  # of its query with three keys, divided by √D
shares = np.exp(scores) / np.exp(scores).sum()
values = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
print("weights", shares.round(2), " mixed values", (shares @ values).round(2))

# %% [markdown]
# And the *mask*? A position must not look at later ones: they hold the answer that it is to guess.
# So the scores of later positions are set to minus infinity, and the softmax makes 0 of that. It is
# called the *causal* mask.

# %% [markdown]
# ### Exercise 2.2: the causal mask
#
# *Difficulty 1 of 5, 4 minutes.* scores[..., i, j] says how much position i looks at position j.
# Return the scores with minus infinity where j is later than i.


# %%
def mask_later(scores: np.ndarray) -> np.ndarray:
    """scores (..., T, T), rows look at columns -> -inf where a column is later"""
    # SOLUTION
    T = scores.shape[-1]
    return np.where(np.tri(T, dtype=bool), scores, -np.inf)
    # END SOLUTION


# %%
check.mask_later(mask_later)

# %% [markdown]
# ### Exercise 2.3: one head
#
# *Difficulty 2 of 5, 8 minutes.* One attention like this is called a *head*. Write the formula,
# mask included. A result has one row for each position.


# %%
def one_head(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention.   q, k (T, D), v (T, D_v) -> (T, D_v)"""
    # SOLUTION
    scores = q @ k.T / np.sqrt(q.shape[-1])  # (T, D) @ (D, T) -> (T, T)
    return softmax(mask_later(scores)) @ v
    # END SOLUTION


# %%
check.one_head(one_head)

# %% [markdown]
# ### What it looks at
#
# `docs-tiny` has four heads beside each other in each block, each with matrices of its own. Below
# are the attention weights of three heads for a text of 16 characters: dark is where a row looks.


# %% tags=["hide-input"]
def attention_weights(layer: int, head: int, ids: np.ndarray) -> np.ndarray:
    """(T, T), by the layers of the model itself."""
    stream = model.tok_embed(ids[None]) + model.pos_embed(np.arange(len(ids)))
    for block_before in list(model.layers)[:layer]:
        stream = block_before(stream, None, None)
    here = model.layers[layer]
    read = here.attn_norm(stream)
    part = slice(32 * head, 32 * head + 32)
    q, k = (p(read).data[0][:, part] for p in (here.attn.q_proj, here.attn.k_proj))
    scores = np.where(np.tri(len(ids), dtype=bool), q @ k.T / np.sqrt(32), -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


shown = "name of the file"
with ml.plots.style():
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.6), layout="constrained")
    for ax, (layer, head) in zip(axes, ((0, 2), (0, 0), (1, 0)), strict=True):
        ax.imshow(attention_weights(layer, head, ml.encode(shown)), cmap="Greys", vmin=0, vmax=1)
        ticks = dict(labels=[c if c != " " else "␣" for c in shown], fontsize=8.5, rotation=0)
        ax.set_xticks(range(len(shown)), **ticks)
        ax.set_yticks(range(len(shown)), **ticks)
        ax.set(title=f"block {layer}, head {head}", xlabel="it looks at")
        ax.grid(False)
    axes[0].set_ylabel("the position that looks")
    ml.plots.show(
        figure,
        "Attention weights of three heads. Block 0, head 2 looks at the character "
        "just before; head 0 at the one before that; block 1, head 0 spreads over "
        "the last word or two. All is white above the diagonal: no position sees a "
        "later one.",
    )

# %% [markdown]
# **What to see.** Nothing above the diagonal: that is the mask. Head 2 of the first block looks at
# the character just before, nearly always; head 0 mostly at the one before that. Between them, a
# position knows the last three characters. Nobody has asked for this division of labour, it came
# from training. In the second block the weights are spread wider.
#
# **What it does not show.** What is done with what was seen: that is in v and o, and in the MLP.
# A dark square is not an explanation of why the model writes what it writes.

# %% [markdown]
# ### Exercise 2.4: split into heads
#
# *Difficulty 2 of 5, 6 minutes.* The matrices q, k and v of all heads are stored as one, so x W has
# T rows of C = H · D numbers: first the D numbers of head 0, then those of head 1, and so on. Give
# every head its own array.


# %%
def split_heads(x: np.ndarray, n_head: int) -> np.ndarray:
    """(T, C) -> (H, T, D), where C = H D"""
    # SOLUTION
    T, C = x.shape
    x = x.reshape(T, n_head, C // n_head)  # (T, C) -> (T, H, D)
    return x.swapaxes(0, 1)  # (T, H, D) -> (H, T, D)
    # END SOLUTION


# %%
check.split_heads(split_heads)

# %% [markdown]
# After attention the heads' results go the same way back, to (T, C), and a fourth matrix, o, mixes
# them and adds them to the stream.
#
# Note that *head* has a second meaning: the matrix at the very end, which makes the logits, is
# called the model's head, or `lm_head`. Which one is meant follows from the context; "a new head
# for a classifier" is always the last matrix.
#
# ## The norm layer
#
# The stream grows from block to block, as more and more is added. So each part reads it through a
# *norm layer*, which brings every row to the same size. GPT-2 (OpenAI 2019), after which
# `docs-tiny` is built, has *layer norm*: take the row's mean off, divide by its standard deviation,
# then multiply by a weight and add a bias, a number of each for every channel, which are learned:
#
# $$\mathrm{norm}(x) = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{variance}(x) + 10^{-5}}}
# \cdot \mathrm{weight} + \mathrm{bias}.$$
#
# Llama (Meta 2023) has RMSNorm, which is the same without the mean and the bias.

# %% [markdown]
# ### Exercise 2.5: layer norm
#
# *Difficulty 2 of 5, 6 minutes.* The variance is the mean of the squared distances from the mean.


# %%
def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Over the last axis.   x (..., C), weight and bias (C,) -> (..., C)"""
    # SOLUTION
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weight + bias
    # END SOLUTION


# %%
check.layer_norm(layer_norm)

# %% [markdown]
# ## The MLP, and the block
#
# The second part of a block is the *MLP* (multi-layer perceptron), also called the feed-forward
# layer: a matrix *up*, from C numbers to 4 C; a curve, the *activation function*; and a matrix
# *down*, back to C. It works on each position alone. Without the curve, up and down would be worth
# one matrix. The curve here is *GELU*; it lets positive numbers pass and presses negative ones to
# nearly 0:
#
# $$\mathrm{GELU}(x) = \frac{x}{2} \left(1 +
# \tanh\!\left(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right).$$
#
# Then all the parts are there. Every matrix has a bias too, a row that is added: a layer computes
# x W + bias.

# %% [markdown]
# ### Exercise 2.6: a block
#
# *Difficulty 4 of 5, 25 minutes.* Follow the picture at the top. w holds the arrays of one block by
# their names, as printed above, without the "layers.0.". `linear` is there to help.


# %%
def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def block(x: np.ndarray, w: dict, n_head: int) -> np.ndarray:
    """One block on the stream.   (T, C) -> (T, C)"""
    # SOLUTION
    read = layer_norm(x, w["attn_norm.weight"], w["attn_norm.bias"])
    q = split_heads(linear(read, w, "attn.q_proj"), n_head)  # (T, C) -> (H, T, D)
    k = split_heads(linear(read, w, "attn.k_proj"), n_head)
    v = split_heads(linear(read, w, "attn.v_proj"), n_head)
    heads = [one_head(q[h], k[h], v[h]) for h in range(n_head)]  # each (T, D)
    x = x + linear(np.concatenate(heads, axis=-1), w, "attn.o_proj")
    read = layer_norm(x, w["mlp_norm.weight"], w["mlp_norm.bias"])
    return x + linear(gelu(linear(read, w, "mlp.up_proj")), w, "mlp.down_proj")
    # END SOLUTION


# %%
check.block(block)

# %% [markdown]
# ## Where LoRA comes in
#
# To teach a trained model something new, LoRA leaves its large matrices as they are, and trains two
# thin ones beside each (lesson 04).
#
# A block of `docs-tiny` has six matrices: q, k, v and o in attention, up and down in the MLP. In a
# block of Llama there are seven: a *gate* stands beside up, and the two results are multiplied.
# Layers of this kind, which multiply by a matrix, are also called *projections*. They hold nearly
# all the numbers of a model; the rest are the two tables, the biases and the norms. The projections
# are what LoRA adapts, all of them or some, by their names: `q_proj`, `k_proj`, `v_proj`, `o_proj`,
# `gate_proj`, `up_proj`, `down_proj`.

# %%
total = sum(array.size for array in weights.values())
matrices = {name: a.size for name, a in weights.items() if "proj.weight" in name}
held = sum(matrices.values())
print(f"{len(matrices)} matrices of 2 blocks hold {held:,} numbers,")
print(f"{held / total:.0%} of the model's {total:,}")

# %% [markdown]
# ## The whole model
#
# After the last block comes one more norm, and the head: a product that turns each row of C numbers
# into V logits. `docs-tiny` uses the embedding table once more, transposed: the logit of a symbol
# is the product of the row with the symbol's own embedding. Such a head is called *tied*.

# %% [markdown]
# ### Exercise 2.7: from ids to logits
#
# *Difficulty 3 of 5, 15 minutes.* Put the model together from your functions. w holds all arrays by
# their full names. The check runs it with the weights of `docs-tiny`, and compares it with
# minilora's own transformer.


# %%
def logits_of(ids: np.ndarray, w: dict, n_layer: int, n_head: int) -> np.ndarray:
    """A transformer's logits.   ids (T,) -> (T, V)"""
    # SOLUTION
    x = w["tok_embed.weight"][ids] + w["pos_embed.weight"][: len(ids)]  # (T, C)
    for i in range(n_layer):
        start = f"layers.{i}."
        x = block(x, {name.removeprefix(start): a for name, a in w.items()
                      if name.startswith(start)}, n_head)  # fmt: skip
    x = layer_norm(x, w["norm.weight"], w["norm.bias"])
    return x @ w["tok_embed.weight"].T  # (T, C) @ (C, V) -> (T, V)
    # END SOLUTION


# %%
check.logits_of(logits_of)

# %% [markdown]
# ## The loss
#
# How good is a model? Give it a text, and see what probability p it gave, at each position, to the
# character that really came next. The mean of −log p is its *loss*, the *cross-entropy*. The unit,
# with the natural logarithm, is *nats* per character. A model that knows nothing gives each of the
# 96 symbols 1/96, which makes log 96 = 4.56 nats; one that always knows gives 1, which makes 0.
#
# The exponential of the loss is called *perplexity*: between how many symbols, equally likely, the
# model is, as it were, undecided. Training makes the loss smaller, by the gradients of lesson 01.

# %% [markdown]
# ### Exercise 2.8: nats
#
# *Difficulty 2 of 5, 6 minutes.* Return the mean of −log p, in nats, where p is the probability of
# the id that really came next. Logits may be large.


# %%
def nats(logits: np.ndarray, next_ids: np.ndarray) -> float:
    """The loss, a number.   logits (T, V); next_ids (T,): what came after each"""
    # SOLUTION
    p = softmax(logits)[np.arange(len(next_ids)), next_ids]  # (T,)
    return -np.log(p).mean()
    # END SOLUTION


# %%
check.nats(nats)

# %% [markdown]
# Now the stream from another side. After every part of every block, as if it were the last one, we
# apply the last norm and the head, and measure the loss. The text is documentation that the model
# was not trained on. (To use your own text instead, put `ml.load_text("my.txt")` in place of
# `ml.load_corpus("prose")`.)

# %%
corpus = ml.load_corpus("prose")
draw = corpus.batches(64, 64, "test")  # 64 pieces of 64 characters
ids_64, next_64 = draw(np.random.default_rng(0))


def loss_so_far(stream: ml.Tensor) -> float:
    read = model.norm(stream)
    return float(ml.cross_entropy(read @ model.tok_embed.weight.data.T, next_64).data)


with ml.no_grad():  # the model records nothing for gradients (lesson 01)
    stream = model.tok_embed(ids_64) + model.pos_embed(np.arange(64))
    stages = {"embedding": loss_so_far(stream)}
    for i, layer in enumerate(model.layers):  # None: nothing random, no cache
        stream = stream + layer.attn(layer.attn_norm(stream), None, None)
        stages[f"block {i}: attention"] = loss_so_far(stream)
        stream = stream + layer.mlp(layer.mlp_norm(stream), None)
        stages[f"block {i}: MLP"] = loss_so_far(stream)
for name, loss in stages.items():
    print(f"{name:<18} {loss:.2f}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    ax.barh(list(stages), list(stages.values()), color="0.55", height=0.6)
    ax.axvline(np.log(96), color="0.15", ls="--", lw=1.2)
    ax.text(np.log(96) + 0.1, 2.6, "every symbol\nequally likely", va="center")
    for row, loss in enumerate(stages.values()):
        label = {"va": "center", "bbox": {"fc": "white", "ec": "none", "pad": 1.5}}
        ax.text(loss + 0.12, row, f"{loss:.2f}", **label)
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="loss in nats per character, if the model ended here", xlim=(0, 12.5))
    ax.set_title("What each part adds to the stream")
    ml.plots.show(
        figure,
        "Bars of the loss if the model ended after each part: embedding 11.4, "
        "attention of block 0 4.1, its MLP 1.9, attention of block 1 1.8, its MLP "
        "1.3.",
    )

# %% [markdown]
# **What to see.** The embedding alone, read as a guess, is worse than no guess: each character
# gives itself the highest logit. (What follows "e" is rarely "e".) Then every part improves the
# guess, and all do so by adding to the same rows.
#
# **What it does not show.** What a part is worth to the parts after it: the attention of block 1
# improves the guess by little, but its MLP works with what it has brought. That takes another
# experiment.
#
# ### Predict, change, run: a part less
#
# Silence one part: set its last matrix and bias to 0, so that it adds nothing to the stream. The
# whole model has a loss of about 1.35 on all of this text (the 1.27 above was on 64 pieces of it).
# What does it have without the part?

# %%
SILENT = "layers.1.attn.o_proj"  # change me: 0 for 1, mlp.down_proj for attn.o_proj
GUESS = ...  # nats per character: 1.4, 2, 4?

damaged = ml.load_model("docs-tiny")
layer = damaged.get_submodule(SILENT)
layer.weight.data = np.zeros_like(layer.weight.data)
layer.bias.data = np.zeros_like(layer.bias.data)
print(f"whole: {ml.text_loss(model, corpus.test):.2f}")
check.predict(GUESS, ml.text_loss(damaged, corpus.test), unit="nats per character")

# %% [markdown]
# **What to see.** Without the first block's attention the loss is 4.2, not far from the 4.56 of a
# model that knows nothing; everything later counts on it. Without the second block's attention it
# is 1.55, which is little worse than the whole.
#
# ### Predict, change, run: how far back must it look?
#
# The model may read 64 characters. Give it only the last few of them, at 1,000 positions of the
# text. Is the next character much harder to guess?

# %%
CONTEXT = 4  # change me: 1, 2, 8, 16, 64
GUESS = ...  # nats per character

positions = np.random.default_rng(1).integers(64, len(corpus.test), 1000)
windows = np.stack([corpus.test[end - CONTEXT : end] for end in positions])
with ml.no_grad():
    last = model(windows)[:, -1]  # (1000, CONTEXT) -> (1000, V)
loss = ml.cross_entropy(last, corpus.test[positions].astype(int)).data
check.predict(GUESS, float(loss), unit="nats per character")

# %% [markdown]
# **What to see.** With one character it is 2.6 nats, with four 1.4, and with all 64 still 1.2: most
# of what this small model knows is spelling. Models with more blocks, and more to read, gain from
# hundreds and thousands of tokens.
#
# ## Writing
#
# The last row of the logits is about the next token. Take the most probable one, append it, and go
# on: that is *greedy* writing. It soon repeats itself. So one usually draws the token by its
# probability, which is called *sampling*. Logits are divided by a *temperature* before the softmax:
# below 1 it makes the probable still more probable.

# %%
for temperature in (0.1, 0.7, 1.5):
    written = ml.write(model, "The function ", 60, temperature=temperature, seed=0)
    print(f"{temperature}: {written!r}")

# %% [markdown]
# ### Exercise 2.9: write
#
# *Difficulty 3 of 5, 12 minutes.* Continue a list of ids by n of them, greedily. `logits_of` is a
# function here, from an array of ids (T,) to logits (T, V). It cannot read more than block_size
# ids at once: if the text is longer, show it the end.


# %%
def write_greedily(logits_of, ids: list, n: int, block_size: int) -> list:
    """The given ids and n more."""
    # SOLUTION
    ids = list(ids)
    for _ in range(n):
        seen = np.array(ids[-block_size:])
        ids.append(int(np.argmax(logits_of(seen)[-1])))
    return ids
    # END SOLUTION


# %%
check.write_greedily(write_greedily)

# %% [markdown]
# And now all of it is yours: your softmax, your attention, your blocks, and the weights of
# `docs-tiny`. (Until exercises 2.7 and 2.9 are solved, this shows None.)

# %%
start = ml.encode("The function ").tolist()
solved = logits_of(np.array(start), weights, 2, 4) is not None
if solved:
    found = write_greedily(lambda ids: logits_of(ids, weights, 2, 4), start, 80, 64)
print(ml.decode(found) if solved and found else None)

# %% [markdown]
# `minilora/transformer.py` is this same computation, with three additions: many texts at once (B,
# the *batch*), gradients, and a cache that keeps keys and values, so that writing a token does not
# compute all earlier ones again. Five switches turn it from GPT-2 into Llama.
#
# **Does it hold at scale?** The parts are the same; there are more of them. One function counts the
# numbers of these models:

# %%
print("            blocks  heads      C        V  block size        numbers")
for name in ("docs-tiny", "gpt2", "llama-2-7b"):
    c = ml.analysis.ARCHITECTURES[name]
    print(f"{name:<12} {c.n_layer:>5} {c.n_head:>6} {c.n_embd:>6,}", end=" ")
    numbers = ml.analysis.total_parameters(c)
    print(f"{c.vocab_size:>8,} {c.block_size:>11,} {numbers:>14,}")

# %% [markdown]
# GPT-2's 124,439,808 is also what Hugging Face's own model counts. In lesson 12 this transformer
# runs a language model of that size, SmolLM2 with 30 blocks, and fine-tunes it with LoRA.
#
# ## The exam cards this prepares
#
# No card asks about transformers alone. But every card that names q, v, a block, a head or a norm
# takes this lesson for granted; most of them are those on where to adapt:
# `minilora quiz --topic targets`, in a terminal.
#
# ## Where to read on
#
# - Lesson 03 trains all of these numbers, lesson 04 puts LoRA beside them.
# - Vaswani et al. 2017, *Attention Is All You Need*.
# - Radford et al. 2019, *Language Models are Unsupervised Multitask Learners* (GPT-2); Touvron et
#   al. 2023, *LLaMA: Open and Efficient Foundation Language Models*.
# - Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*: the residual stream,
#   and heads that look at the token before.
# - In this package: `minilora/transformer.py`, and `minilora/reference.py`, which has the same
#   functions with gradients.
