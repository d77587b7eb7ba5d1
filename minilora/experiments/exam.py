"""A real language model sits an exam on LoRA, before and after it was taught what LoRA is.

SmolLM2-135M-Instruct (Allal et al. 2025) takes LoRA for something of radio or of Linux. Here it is
taught some fifty questions and answers, in one of several courses: with LoRA of several sizes, by
full fine-tuning, or, as a placebo, about bicycles. Then it sits the exam: exam_items.py says what
it is asked and how that is kept apart from what it is taught. A course is one row, in the words of
rows.py, with these besides:

    course                a name in COURSES
    reworded, test, statements, controls
                          the share that was right: of questions on what was taught, asked in other
                          words; of questions on what was not; of pairs of statements; of general
                          knowledge
    marks                 the same one by one, "1" for right and "0" for wrong
    nats_validation, nats_right, nats_wrong
                          nats per token: of right choices of the validation part, on which rates
                          are compared, and of right and wrong choices of the test
    perplexity, perplexity_base, perplexity_detached
                          of an English paragraph; before the course; with the adapter switched off
    cpu_seconds_per_step
    samples               of the first seed: {question: answer}
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilora.experiments.costs import disk_bytes, step_memory
from minilora.experiments.exam_items import ExamItems, Pair, Question, load_exam
from minilora.experiments.own_data import real_task
from minilora.experiments.rows import Row, Rows, read_rows
from minilora.experiments.tasks import ExampleData, Task
from minilora.experiments.tuning import Tuned, set_up, with_rank
from minilora.functional import cross_entropy
from minilora.generation.answers import answer
from minilora.hub import load_model
from minilora.hub.places import ASSETS
from minilora.hub.tokenizers import load_tokenizer
from minilora.lora import active_adapter, disable_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.trainable import count_parameters
from minilora.system.cores import one_blas_thread, usable_cores
from minilora.system.errors import UsageError
from minilora.tensor import no_grad
from minilora.text.pairs import pair_example
from minilora.tokens.tokenizer import Tokenizer
from minilora.training.likelihood import Likelihood
from minilora.training.loop import run
from minilora.training.progress import progress_bar
from minilora.transformer import Transformer

MODEL = "smollm2"
ANSWER = 40  # tokens of a sample
MARKED = ("reworded", "test", "statements", "controls")
CHANCE = {"reworded": 1 / 4, "test": 1 / 4, "statements": 1 / 2, "controls": 1 / 4}
_STATE = "Say one true sentence about LoRA and fine-tuning."
_AT_ONCE = 8  # questions or pairs: enough to be quick, few enough to need little memory
# What a model that is not taught has none of.
_NOTHING = dict.fromkeys([
    "lr", "steps", "r", "s", "optimizer_bytes", "disk_bytes", "peak_memory_bytes",
    "cpu_seconds_per_step", "losses",
])  # fmt: skip
_LORA = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")


@dataclass(frozen=True)
class Course:
    """How a model is taught. method: one of METHODS, or None: not at all. rates: its learning rate,
    that of the recipe, and others to compare it with. about: pairs or placebo."""

    label: str
    method: str | None = None
    rates: tuple[float, ...] = ()
    lora: LoraConfig = _LORA
    about: str = "pairs"


_QV = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
COURSES = {
    "base": Course("base model"),
    "lora": Course("LoRA, r = 8, all matrices", "lora", (2e-3, 1e-3, 4e-3)),
    "placebo": Course("LoRA, taught bicycles", "lora", (2e-3,), about="placebo"),
    "full": Course("full fine-tuning", "full", (1e-4, 5e-5, 2e-4)),
    "lora-r1": Course("LoRA, r = 1, all matrices", "lora", (2e-3,), with_rank(_LORA, 1)),
    "lora-qv": Course("LoRA, r = 8, q and v", "lora", (2e-3,), _QV),
}


def exam_run(
    course: str,
    seed: int = 0,
    *,
    lr: float | None = None,
    steps: int | None = None,
    model: str | Path = MODEL,
    threads: int | None = None,
    quiet: bool = False,
) -> Rows:
    """One row: a model is loaded, taught by a course, and sits the exam.

    lr, steps: others than the course's. threads, quiet: see training.loop.run.
    Raises ValueError for a course that is not in COURSES, and what load_model raises.
    """
    if course not in COURSES:
        raise UsageError(f"there is no course {course!r}; use one of: {', '.join(COURSES)}")
    about, items = COURSES[course], load_exam()
    tokenizer = load_tokenizer(model)
    row: Row = {"course": course, "method": about.method, "seed": seed}
    if about.method is None:
        tuned = load_model(model)
        row |= _NOTHING | {"trainable": 0, "total": count_parameters(tuned)[1]}
        row["perplexity_base"] = perplexity(tuned, tokenizer, items.paragraph)
    else:
        task = course_task(about, items, model, tokenizer)
        rate = about.rates[0] if lr is None else lr
        teaching = set_up(task, about.method, seed, lr=rate, steps=steps)
        tuned = teaching.model
        row["perplexity_base"] = perplexity(teaching.base, tokenizer, items.paragraph)
        row |= _taught(teaching, threads, quiet)
    row |= sit(tuned, tokenizer, items, threads, quiet)
    row["perplexity_detached"] = None
    if active_adapter(tuned):
        with disable_adapter(tuned):
            row["perplexity_detached"] = perplexity(tuned, tokenizer, items.paragraph)
    if seed == 0:
        row["samples"] = {
            question: answer(tuned, tokenizer, _asked(question), ANSWER, temperature=0)
            for question in items.samples
        }
    return [row]


def course_task(course: Course, items: ExamItems, model: str | Path, tokenizer: Tokenizer) -> Task:
    """What a course teaches, as a task for a real model."""
    pairs: tuple[Pair, ...] = getattr(items, course.about)
    chats = [_asked(pair.question) + _said(pair.answer) for pair in pairs]
    examples = [pair_example(tokenizer, chat) for chat in chats]
    data = ExampleData(examples, [], f"{len(examples)} chats", chats[0][:1])
    return replace(real_task(course.label, model, tokenizer, data), lora=course.lora)


def _taught(teaching: Tuned, threads: int | None, quiet: bool) -> Row:
    """Train the model of a course, and return what that costs."""
    training, asked = teaching.training, teaching.row
    peak = step_memory(training) if asked["seed"] == 0 else None
    began = time.process_time()
    run([training], threads=threads, quiet=quiet)
    return {key: asked[key] for key in ("lr", "steps", "r", "s", "trainable", "total")} | {
        "optimizer_bytes": training.optimizer.state_bytes,
        "disk_bytes": disk_bytes(teaching.model),
        "peak_memory_bytes": peak,
        "cpu_seconds_per_step": (time.process_time() - began) / training.config.steps,
        "losses": [round(loss, 3) for loss in training.history.losses],
    }


@one_blas_thread()
def sit(
    model: Transformer,
    tokenizer: Tokenizer,
    items: ExamItems,
    threads: int | None = 1,
    quiet: bool = True,
) -> Row:
    """What the model answers, and how well it still knows English.

    threads: how many questions are read at a time (default: one for each core).
    """
    asked = (*items.part("reworded"), *items.part("test"), *items.controls)
    judged = items.part("validation")
    prompts = {q: tokenizer.encode_chat(_asked(q.question)) for q in (*asked, *judged)}
    likelihood = Likelihood(model, common_start(list(prompts.values())))

    def encoded(question: Question) -> list[np.ndarray]:
        """Its choices; of the validation part the right one alone, as no other counts there."""
        choices = question.choices[:1] if question in judged else question.choices
        return [tokenizer.encode(choice) for choice in choices]

    def means_of(group: Sequence[Question]) -> list[np.ndarray]:
        """The mean log-probability of a token of each choice, the right one first: float64 (4,)."""
        together = np.stack([prompts[question] for question in group])
        found = likelihood(together, [encoded(question) for question in group])
        return [np.array([log_p.mean() for log_p in choices]) for choices in found]

    means: dict[Question, np.ndarray] = {}
    groups = [*_of_one_length(asked, prompts), *_of_one_length(judged, prompts)]
    with (
        ThreadPoolExecutor(usable_cores() if threads is None else threads) as pool,
        progress_bar("exam", 0, len(prompts), 0, quiet, unit="question") as bar,
    ):
        for group, found in zip(groups, pool.map(means_of, groups), strict=True):
            means |= dict(zip(group, found, strict=True))
            bar.update(len(group))
    parts = {part: items.part(part) for part in ("reworded", "test")} | {"controls": items.controls}
    marks = {part: _marks([means[q] for q in some]) for part, some in parts.items()}
    marks["statements"] = _marks(_statement_means(model, tokenizer, items))
    test = np.array([means[q] for q in items.part("test")])
    return {
        **{part: marks[part].count("1") / len(marks[part]) for part in MARKED},
        "marks": marks,
        "nats_validation": -float(np.mean([means[q][0] for q in judged])),
        "nats_right": -float(test[:, 0].mean()),
        "nats_wrong": -float(test[:, 1:].mean()),
        "perplexity": perplexity(model, tokenizer, items.paragraph),
    }


def common_start(prompts: Sequence[np.ndarray]) -> np.ndarray:
    """The ids with which all of these begin, such as those of a system message."""
    columns = zip(*(prompt.tolist() for prompt in prompts), strict=False)
    same = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return prompts[0][: len(list(same))]


def _of_one_length(
    questions: Sequence[Question], prompts: dict[Question, np.ndarray]
) -> list[list[Question]]:
    """Groups of questions whose prompts are equally long, and so can be read together."""
    groups = []
    by_length = sorted(questions, key=lambda q: len(prompts[q]))
    for _, same in itertools.groupby(by_length, key=lambda q: len(prompts[q])):
        listed = list(same)
        groups += [listed[i : i + _AT_ONCE] for i in range(0, len(listed), _AT_ONCE)]
    return groups


def _statement_means(
    model: Transformer, tokenizer: Tokenizer, items: ExamItems
) -> list[np.ndarray]:
    """The same for each pair of statements: float64 (2,) each."""
    prompt = tokenizer.encode_chat(_asked(_STATE))
    likelihood = Likelihood(model, prompt[:-1])
    means = []
    for i in range(0, len(items.statements), _AT_ONCE):
        pairs = items.statements[i : i + _AT_ONCE]
        texts = [tokenizer.encode(text) for pair in pairs for text in (pair.right, pair.wrong)]
        found = [log_p.mean() for log_p in likelihood(prompt[None], [texts])[0]]
        means += list(np.reshape(found, (-1, 2)))
    return means


def _marks(means: Sequence[np.ndarray]) -> str:
    """ "1" where the first choice has the highest mean, "0" elsewhere."""
    return "".join("1" if mean[0] > mean[1:].max() else "0" for mean in means)


@no_grad()
def perplexity(model: Transformer, tokenizer: Tokenizer, text: str) -> float:
    """exp of the mean nats per token of a text."""
    ids = tokenizer.encode(text)[None]
    return math.exp(cross_entropy(model(ids[:, :-1]), ids[:, 1:]).item())


def _asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def mcnemar(before: str, after: str) -> float:
    """The exact two-sided p of McNemar's test (1947): as many questions, or more, would change
    sides by chance, if a change for the better were as likely as one for the worse.

    before, after: marks of the same questions. Raises ValueError if they are not as many.
    """
    if len(before) != len(after):
        raise UsageError(f"{len(before)} marks cannot be compared with {len(after)}")
    changes = [b + a for b, a in zip(before, after, strict=True) if b != a]
    n, fewer = len(changes), min(changes.count("01"), changes.count("10"))
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n questions (Wilson 1927): which true shares would give what
    was found, up to the chance of 1 in 20."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def exam_settings(
    courses: Iterable[str], seeds: int, other_rates: bool = False
) -> list[dict[str, Any]]:
    """The base, which has no seed, once; each course with so many seeds; and the other rates, with
    the first seed."""
    taught = [name for name in dict.fromkeys(courses) if COURSES[name].method]
    found: list[dict[str, Any]] = [{"course": "base", "seed": 0}]
    found += [{"course": name, "seed": seed} for seed in range(seeds) for name in taught]
    if other_rates:
        for name in taught:
            others = COURSES[name].rates[1:]
            found += [{"course": name, "seed": 0, "lr": lr} for lr in others]
    return found


def at_recipe_rate(rows: Rows) -> Rows:
    """The rows without those of other rates than their course's own."""
    return [row for row in rows if row["lr"] in (None, *COURSES[row["course"]].rates[:1])]


def shipped_exam() -> Rows:
    """The rows that come with the package."""
    return read_rows(ASSETS / "results" / "exam.json")
