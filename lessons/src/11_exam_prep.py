# %% [markdown]
# # 11 · Exam prep
#
# **The question.** Do you know LoRA well enough to be asked about it, and how would you notice if
# not?
#
# **You will be able to**
#
# - sit a mock exam on the ten topics of this course, and read from it what to learn next;
# - say how many right answers are more than luck;
# - have every answer proved by a measurement, and build such a proof for a card of your own;
# - find what is wrong in sentences from official texts;
# - plan when to review, so that you still know it on the day.
#
# **Time:** 20 seconds to run, 20 minutes to read, 97 with the exercises. **Before this:** the
# lessons before, or as many as you like: the exam finds out which of them you need, and takes ten
# minutes for ten cards. **Words:** [glossary](GLOSSARY.md).

# %%
import math
import random
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora.learn import check
from minilora.learn.demos.demo import demo_of, prove
from minilora.learn.exam import quiz, review
from minilora.learn.exam.answers import read_answer
from minilora.learn.exam.cards import KINDS, LESSONS, LETTERS, TOPICS, load_cards
from minilora.learn.exam.maths import to_text
from minilora.system.errors import MissingExtraError

# %% [markdown]
# ## A picture
#
# A *card* asks one question and offers four choices, of which one is right. Each card belongs to a
# topic and to the lesson that treats what it asks.

# %% tags=["hide-input"]
cards = load_cards()
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
    greys = ("0.2", "0.45", "0.62", "0.78", "0.9")
    for y, topic in enumerate(TOPICS):
        left = 0
        for kind, grey in zip(KINDS, greys, strict=True):
            n = sum(card.topic == topic and card.kind == kind for card in cards)
            ax.barh(y, n, left=left, color=grey, edgecolor="white")
            left += n
        ax.text(left + 0.2, y, f"{left}", va="center")
    names = ("choose one", "find the error", "fill the gap", "put in order", "match")
    for name, grey in zip(names, greys, strict=True):
        ax.barh(0, 0, color=grey, label=name)
    ax.set_yticks(range(len(TOPICS)), list(TOPICS.values()))
    ax.set(xlabel="cards", xlim=(0, 30))
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.legend(loc="center right")
    ml.plots.show(figure, "The number of cards on each of the ten topics, by kind; every topic has "
                  "ten or more, most of them are to choose one answer.")  # fmt: skip

# %% [markdown]
# ## The formula
#
# An exam measures what somebody knows, plus luck. Who guesses one of four choices is right with
# p = 1/4. Of n questions, the chance of *at least* k right answers is
#
# $$P(X \ge k) = \sum_{j=k}^{n} \binom{n}{j}\, p^j (1-p)^{n-j},$$
#
# the tail of the *binomial distribution*: $\binom{n}{j}$ counts the ways to choose which j of the n
# are right. We need it below, to say what a score is worth. First, the exam.
#
# ## A mock exam
#
# `SEED` chooses the questions, as many of each topic as of any other, and the order of their
# choices. Every seed is another exam. (In a terminal, `minilora quiz --exam 20` does the same with
# a clock.)


# %% tags=["hide-input"]
def folded(text, label="", width=86):
    """The text in lines, the label before the first of them."""
    indent = max(5, len(label) + 1)
    lines = textwrap.fill(to_text(text), width - indent).splitlines()
    return "\n".join([f"{label:<{indent}}{lines[0]}", *(" " * indent + one for one in lines[1:])])


def printed(question, number):
    card = question.card
    lines = [folded(card.question, f"{number}.")]
    lines += [folded(item, f"   {i}") for i, item in enumerate(card.items, 1)]
    lines += [
        folded(option, f"  ({letter})")
        for letter, option in zip(LETTERS, card.options, strict=False)
    ]
    lines += [folded(choice.text, f"  {question.letter(choice)}") for choice in question.choices]
    return "\n".join(lines) + "\n"


def hand_in(exam, letters):
    """An Answer for each question of the exam."""
    typed = [letters.get(number, "") for number in range(1, len(exam) + 1)]
    return [
        read_answer(one, text) if text else quiz.Answer(one)
        for one, text in zip(exam, typed, strict=True)
    ]


# %%
SEED, N = 11, 10  # change me: any seed is another exam, and 20 a longer one
chosen = quiz.draw(cards, N, random.Random(SEED))
exam = [quiz.question(card, random.Random(f"{SEED} {card.id}")) for card in chosen]

for number, one in enumerate(exam, 1):
    print(printed(one, number))

# %% [markdown]
# Write your letters here. The ones below are an example, with mistakes in it, so that there is
# something to look at. A question that you leave out counts as wrong.

# %%
my_answers = {1: "C", 2: "B", 3: "D", 4: "B", 5: "B",
              6: "C", 7: "A", 8: "C", 9: "B", 10: "B"}  # fmt: skip

answers = hand_in(exam, my_answers)
right = sum(answer.right for answer in answers)
verdict = "passed" if quiz.passed(answers) else "not passed"
print(f"{right} of {len(exam)} right, {verdict} (it takes {quiz.PASS:.0%})")

# %% [markdown]
# What was wrong, and why? Each choice has a reason of its own, because each wrong choice is a
# mistake that people do make.

# %%
for number, answer in enumerate(answers, 1):
    if not answer.right:
        card, one = answer.question.card, answer.question
        where = f"lesson {card.lesson}, {card.id}"
        print(f"{number}. right is {one.letter(card.right)}   ({where})")
        if answer.choice:
            print(folded(answer.choice.why, f"  {one.letter(answer.choice)}"))
        print(folded(card.right.why, f"  {one.letter(card.right)}"))
        print(folded(card.explanation) + "\n")

# %% [markdown]
# ### Score by topic
#
# The score alone says little. What helps is *where* it was lost.

# %% tags=["hide-input"]
scores = quiz.topic_scores(answers)
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for y, (n_right, asked) in enumerate(scores.values()):
        ax.plot(range(n_right), [y] * n_right, "o", color="0.2", ms=9)
        ax.plot(range(n_right, asked), [y] * (asked - n_right), "x", color="0.2", ms=9, mew=2)
        ax.text(asked - 0.6, y, f"{n_right} of {asked}", va="center")
    ax.plot([], [], "o", color="0.2", ms=9, label="right")
    ax.plot([], [], "x", color="0.2", ms=9, mew=2, label="wrong or left out")
    ax.set_yticks(range(len(scores)), [TOPICS[topic] for topic in scores])
    most = max(asked for _, asked in scores.values())
    ax.set(xlim=(-0.5, most + 2), xticks=[])
    ax.grid(visible=False)
    ax.invert_yaxis()
    ax.legend(loc="center right")
    ml.plots.show(
        figure,
        "A line for each topic of the exam: a dot for each answer that was right, a "
        "cross for each that was not.",
    )

# %%
print("To read again, by how many answers were wrong:")
for lesson, wrong in quiz.to_reread(answers).items():
    print(f"  {wrong}  lesson {lesson}, {LESSONS[lesson]}")

# %% [markdown]
# **What to see.** Which topics have crosses. These, not the score, are the result of a mock exam.
#
# **What it does not show.** With one or two questions a topic, a line is mostly luck. It says where
# to look first, and not more.
#
# **Does it hold at scale?** That being asked teaches more than reading again has been measured with
# people: students who had read a text and then recalled it three times remembered more after a week
# than students who had read it four times (61 against 40 per cent; Roediger and Karpicke 2006,
# experiment 2). So answer first, and read the reasons afterwards.
#
# ### Exercise 11.1: score by topic
#
# *Difficulty 2 of 5, 10 minutes.* `answers` is a list of pairs (topic, whether it was right).
# Return a list of triples (topic, right, asked), the weakest topic first: by the share of right
# answers, and where two have the same, by name.


# %%
def score_by_topic(answers: list[tuple[str, bool]]) -> list[tuple[str, int, int]]:
    """(topic, right, asked) of each topic that was asked, the weakest first."""
    # SOLUTION
    counts = {}
    for topic, was_right in answers:
        n_right, asked = counts.get(topic, (0, 0))
        counts[topic] = (n_right + was_right, asked + 1)
    triples = [(topic, n_right, asked) for topic, (n_right, asked) in counts.items()]
    return sorted(triples, key=lambda triple: (triple[1] / triple[2], triple[0]))
    # END SOLUTION


# %%
check.score_by_topic(score_by_topic)

# %% [markdown]
# ## What is a score worth?
#
# ### Exercise 11.2: at least k
#
# *Difficulty 2 of 5, 8 minutes.* The formula above. `math.comb(n, j)` is the binomial coefficient.


# %%
def chance_at_least(k: int, n: int, p: float) -> float:
    """The chance of at least k right answers of n, each right with the chance p."""
    # SOLUTION
    return sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
    # END SOLUTION


# %%
check.chance_at_least(chance_at_least)

# %% [markdown]
# ### Exercise 11.3: better than guessing
#
# *Difficulty 3 of 5, 10 minutes.* What is the smallest number of right answers that guessing
# reaches, or exceeds, with a chance *below* `level`? If not even n will do, return n + 1.


# %%
def fewest_right(n: int, p: float, level: float) -> int:
    """The fewest right answers of n that are better than guessing, at this level."""
    # SOLUTION
    k = 0
    while chance_at_least(k, n, p) >= level:
        k += 1
    return k
    # END SOLUTION


# %%
check.fewest_right(fewest_right)

# %% [markdown]
# One need not believe a formula. A hundred thousand people who know nothing sit an exam of twenty
# questions:

# %%
guessers = np.random.default_rng(0).binomial(20, 1 / 4, 100_000)
print("right answers of 20   so many or more, of 100,000 who guess")
for k in (5, 7, 8, 9, 10, 14):
    print(f"{k:>12} {np.sum(guessers >= k):>24,}")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    counts = np.bincount(guessers, minlength=21) / len(guessers)
    ax.bar(range(9), counts[:9], color="0.75", label="guessing")
    ax.bar(range(9, 21), counts[9:], color="0.2", label="less than 5 per cent together")
    ax.plot([quiz.PASS * 20] * 2, [0, 0.06], color="black", ls=":", lw=1)
    ax.text(quiz.PASS * 20 + 0.2, 0.05, "passed")
    ax.set(xlabel="right answers of 20", ylabel="share of guessers", xticks=range(0, 21, 2))
    ax.legend(loc="upper right")
    ml.plots.show(figure, "How many of 20 answers guessers have right: most often five; nine or "
                  "more, in black, are rare, and fourteen hardly occur.")  # fmt: skip

# %% [markdown]
# Five right answers are what guessing gives on average. Nine or more are better than guessing at
# the level of 5 per cent. The mark to pass, fourteen, is far beyond.
#
# Lesson 12 puts this question to a language model: does it know more about LoRA than a guesser?
#
# ### Predict, change, run: how many are not luck?
#
# Out of how many questions? Guess the fewest right answers that guessers reach in less than 5 per
# cent of all cases. What should be seen: the *share* that is needed falls as the exam gets longer.

# %%
QUESTIONS = 40  # change me: 5, 100, 150
GUESS = ...  # right answers
many = np.random.default_rng(1).binomial(QUESTIONS, 1 / 4, 200_000)
needed = next(k for k in range(QUESTIONS + 2) if np.mean(many >= k) < 0.05)
check.predict(GUESS, needed, unit=f"of {QUESTIONS}", within=0.05)

# %% [markdown]
# ### Predict, change, run: can these cards be outwitted?
#
# In badly made exams the longest choice is the right one, since it had to be made true. What would
# somebody score on all cards who knows nothing, and always takes the longest? What should be seen:
# about as much as guessing, 25 per cent.

# %%
STRATEGY = "longest"  # change me: "shortest", "most commas"
GUESS = ...  # per cent
VALUE = {
    "longest": lambda choice: len(choice.text),
    "shortest": lambda choice: -len(choice.text),
    "most commas": lambda choice: choice.text.count(","),
}[STRATEGY]
plain = [card for card in cards if card.kind in ("choice", "error")]
hits = sum(max(card.choices, key=VALUE) == card.right for card in plain)
check.predict(GUESS, 100 * hits / len(plain), unit="per cent", within=0.15)

# %% [markdown]
# ## Every answer is proved
#
# Why believe the key of an exam? Each card names a *demo*: a measurement of less than two seconds
# on a small model, and for each choice a claim of what would be measured if this choice were right.
# The card stands only if the claim of its answer holds and no other does. Here is one:


# %%
def show_me(card):
    """Run a card's demo; print what it measured, and which choices' claims hold."""
    proof, found = prove(card), demo_of(card)
    print(folded(card.question) + "\n")
    print(folded(proof.does, "Demo:"))
    for name, value in proof.measured.items():
        print(f"     {value:>12.5g}  {name}")
    for choice in card.choices:
        holds = "holds" if found.claims[choice.key](proof.measured) else "fails"
        print(folded(choice.text, holds))
    print()


by_id = {card.id: card for card in cards}
show_me(by_id["does-lora-forget-less"])

# %% [markdown]
# And here are all of them, run now. (In the terminal's quiz, `s` after a question runs its demo.)

# %%
slow = sys.platform == "emscripten"  # a browser
some = cards[::5] if slow else cards
proved = {topic: [] for topic in TOPICS}
for card in some:
    proved[card.topic].append(prove(card).supported == [card.answer])
print(f"{'topic':<50} {'cards':>5} {'proved':>7}")
for topic, results in proved.items():
    print(f"{TOPICS[topic]:<50} {len(results):>5} {sum(results):>7}")
print(f"{'together':<50} {len(some):>5} {sum(map(sum, proved.values())):>7}")

# %% [markdown]
# ### Exercise 11.4, a small project: a card of your own
#
# *Difficulty 4 of 5, 25 minutes.* Here is a new card:
#
# > The rank r is doubled, alpha stays. What becomes of the number of entries of A and B, and of the
# > scale s?
# >
# > - `double_half`: the entries are twice as many, s is half as large
# > - `double_same`: the entries are twice as many, s stays
# > - `double_root`: the entries are twice as many, s is divided by √2
# > - `fourfold_half`: the entries are four times as many, s is half as large
#
# Write its demo. You are given `make`, with which `make(r)` is (A, B, s) of a layer with rank r.
# Measure, and return the list of the keys whose claims hold. A demo that always says `double_half`
# would prove nothing: the check has layers from other worlds, in which other choices are right, or
# none.


# %%
def doubled_rank(make) -> list[str]:
    """The keys of the choices that hold for the layers of make(r) -> (A, B, s)."""
    # SOLUTION
    (A, B, s), (A2, B2, s2) = make(4), make(8)
    numbers, scale = (A2.size + B2.size) / (A.size + B.size), s2 / s
    claims = {
        "double_half": numbers == 2 and np.isclose(scale, 1 / 2),
        "double_same": numbers == 2 and np.isclose(scale, 1),
        "double_root": numbers == 2 and np.isclose(scale, 1 / np.sqrt(2)),
        "fourfold_half": numbers == 4 and np.isclose(scale, 1 / 2),
    }
    return [key for key, holds in claims.items() if holds]
    # END SOLUTION


# %%
check.doubled_rank(doubled_rank)

# %% [markdown]
# And in our world? (Until you solve the exercise, this shows None.)


# %%
def ours(r):
    """A, B and s of a layer with LoRA as the package makes it."""
    layer = ml.ModuleList([ml.Linear(48, 80, rng=np.random.default_rng(0))])
    config = ml.LoraConfig(r=r, lora_alpha=16, target_modules=["0"])
    ml.add_adapter(layer, config, rng=np.random.default_rng(0))
    adapter = layer[0].adapters["default"]
    return adapter.A.data, adapter.B.data, adapter.s


print("what holds:", doubled_rank(ours))

# %% [markdown]
# ## Find the error
#
# The hardest cards quote texts that learners meet: courses, documentation, published papers. Each
# sentence below is wrong, or right only with a condition. Before you go on, say for each what.

# %%
quoted = [card for card in cards if card.topic == "texts" and card.kind == "error"]
for number, card in enumerate(quoted, 1):
    print(folded(card.question, f"{number}."))
    print(folded(f"{card.source} ({card.id})") + "\n")

# %% [markdown]
# Two of these mistakes can be measured with a few lines, on any model.
#
# "LoRA decomposes weights into two smaller rank matrices" sounds like LoRA and describes another
# technique: the factors of W itself would be compression. What has a low rank in LoRA is the change
# of W.
#
# ### Exercise 11.5: what was decomposed?
#
# *Difficulty 3 of 5, 10 minutes.* You get a weight before and after tuning, and r. Return "the
# change" if the change has at most rank r (that is LoRA, merged), else "the weight" if the tuned
# weight itself has at most rank r (compression), else "neither". Count singular values above 1e-8.


# %%
def what_is_decomposed(W: np.ndarray, tuned: np.ndarray, r: int) -> str:
    """ "the change", "the weight" or "neither"; W and tuned are (d_in, d_out)."""
    # SOLUTION
    change, weight = (np.linalg.matrix_rank(M, tol=1e-8) for M in (tuned - W, tuned))
    if change <= r:
        return "the change"
    return "the weight" if weight <= r else "neither"
    # END SOLUTION


# %%
check.what_is_decomposed(what_is_decomposed)

# %% [markdown]
# "Only adapter parameters are stored in GPU memory" can be held against any model:
#
# ### Exercise 11.6: the adapter's share
#
# *Difficulty 2 of 5, 6 minutes.* Which share of the bytes of all parameters of a model belongs to
# those that train? A parameter `p` has `p.requires_grad`, and its array is `p.data`.


# %%
def adapter_share(model: ml.Module) -> float:
    """Bytes of the parameters that train, of those of all parameters: from 0 to 1."""
    # SOLUTION
    bytes_of = {True: 0, False: 0}
    for p in model.parameters():
        bytes_of[p.requires_grad] += p.data.nbytes
    return bytes_of[True] / (bytes_of[True] + bytes_of[False])
    # END SOLUTION


# %%
check.adapter_share(adapter_share)

# %% [markdown]
# The cards of this topic measure the others. Two of them:

# %%
show_me(by_id["only-adapters-in-memory"])
show_me(quoted[0])

# %% [markdown]
# ## When to review
#
# What is learned is forgotten, at first fast and then slowly. FSRS (the *free spaced repetition
# scheduler*) keeps one number of each card, its *stability* S: the days after which you still know
# it with a chance of 90 per cent. After t days the chance is
#
# $$R(t) = \Big(1 + f\, \frac{t}{S}\Big)^{-w}, \qquad w = 0.1542, \quad f = 0.9^{-1/w} - 1.$$
#
# A right answer makes S several times as large, a wrong one small; the card is asked again when R
# has fallen to 90 per cent, which is after S days. That is all there is to know about it. We let it
# plan a card that is answered right, except the fourth time:

# %%
RIGHT = [True, True, True, False, True, True, True]


def planned(results, start=datetime(2026, 1, 1, tzinfo=UTC)):
    """(day, S) of each review on its day; empty without the package fsrs."""
    entry, now, plan = None, start, []
    try:
        for was_right in results:
            entry = review.answered(entry, was_right, now)
            plan.append(((now - start) / timedelta(days=1), entry["stability"]))
            now = review.due_at(entry)
    except (MissingExtraError, ModuleNotFoundError) as missing:
        print(missing)
    return plan


plan = planned(RIGHT)
for was_right, (day, stability) in zip(RIGHT, plan, strict=False):
    word = "right" if was_right else "wrong"
    print(f"day {day:>4.0f}  {word}, S is now {stability:>6.1f} days")

# %% tags=["hide-input"]
w = 0.1542
f = 0.9 ** (-1 / w) - 1
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(8.5, 3), layout="constrained")
    ends = [day for day, _ in plan[1:]] + [plan[-1][0] + plan[-1][1]] if plan else []
    for (day, stability), end, was_right in zip(plan, ends, RIGHT, strict=False):
        t = np.linspace(0, end - day, 60)
        ax.plot(day + t, (1 + f * t / stability) ** -w, color="0.25")
        ax.plot(day, 1, "o" if was_right else "x", color="0.25", ms=7)
    ax.axhline(0.9, color="black", ls=":", lw=1)
    ax.set(xlabel="day", ylabel="chance that you know it", ylim=(0.87, 1.01))
    ml.plots.show(
        figure,
        "The chance of knowing a card falls from 1 to 0.9 between reviews; the "
        "distances between reviews grow, and after the wrong answer, a cross, begin "
        "small again.",
    )

# %% [markdown]
# The distances grow by themselves, and after the wrong answer (the cross) they begin small again.
# In a terminal `minilora quiz --review` asks what is due, and up to ten new cards a day; the page
# that `minilora page` writes does the same in a browser, and `minilora cards --anki FILE.apkg`
# writes the cards for Anki.
#
# ### Exercise 11.7: until when?
#
# *Difficulty 2 of 5, 8 minutes.* An exam wants more than 90 per cent of you, or less. After how
# many days has the chance fallen to `wanted`? Solve the formula for t.


# %%
def days_until(stability: float, wanted: float) -> float:
    """The days after which a card is known with the chance `wanted`."""
    # SOLUTION
    w = 0.1542
    f = 0.9 ** (-1 / w) - 1
    return stability * (wanted ** (-1 / w) - 1) / f
    # END SOLUTION


# %%
check.days_until(days_until)

# %% [markdown]
# ## The exam cards this prepares
#
# All of them: `minilora quiz --exam 20`, in a terminal, sits an exam over every topic, and
# `minilora quiz --topic 07` asks the cards of one lesson. Which lesson treats which topic:

# %%
for topic, name in TOPICS.items():
    where = sorted({card.lesson for card in cards if card.topic == topic})
    print(f"{topic:<13} {name:<50} {' '.join(where)}")

# %% [markdown]
# A plan for the last week: sit an exam of 20; read again what it names; run the demos of what you
# got wrong; review daily what is due; sit another exam with another seed. You should be able to
# answer the core question without a card, in your own words: *What is LoRA, and how does it help in
# fine-tuning a model?* Lesson 00 begins with the answer.
#
# ## Where to read on
#
# - Roediger and Karpicke 2006, *Test-Enhanced Learning* (being asked against reading again).
# - Ye, Su and Cao 2022, *A Stochastic Shortest Path Algorithm for Optimizing Spaced Repetition
#   Scheduling*; open-spaced-repetition, *The Algorithm* (FSRS-6).
# - In this package: `minilora/assets/cards.toml` (the cards), `minilora/learn/demos/` (what proves
#   them), `minilora/learn/exam/` (quiz and review). For a class, `minilora exam` prints an exam on
#   paper, with its key.
