"""What is trained on what, and how: the two base models and the tasks they are fine-tuned to.

`docs-tiny` has read English documentation; its new task is Python code, or a text of the user's.
`words-tiny` solves seven string tasks; its new ones are to reverse and to sort a word.

The learning rates are each method's best on the validation split, or within 0.01 of it (nats, or
share of words): on code a lower one then, which costs less of the old task; to reverse words,
several rates are equally good. They were swept (`minilora study learning_rate_sweep`, and
how_few_numbers for methods that train very few); sort uses those of reverse. Results are on the
test split.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minilora.analysis.counting import ARCHITECTURES
from minilora.lora_config import LoraConfig
from minilora.nn import Rng
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET, decode, encode
from minilora.text.corpora import Corpus, load_corpus, load_text, load_words
from minilora.text.pairs import Example, pair_batches
from minilora.text.string_tasks import PRETRAIN_TASKS, STRING_TASKS, string_batch, string_examples
from minilora.text.windows import WINDOW, random_windows
from minilora.tokens.chat import Message
from minilora.tokens.tokenizer import Tokenizer
from minilora.training.loop import TrainConfig
from minilora.training.quality import (
    EXACT,
    NATS,
    NATS_PER_TOKEN,
    Metric,
    answer_loss,
    exact_match,
    text_loss,
)
from minilora.transformer import Transformer, TransformerConfig

IdsAndTargets = tuple[np.ndarray, np.ndarray]  # int64 (B, T) each


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    """Of what is learned, and judged by meanwhile: a run that was cut off goes on with no other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        crc = zlib.crc32(str(array.shape).encode(), crc)
    return crc


@dataclass(frozen=True)
class TextData:
    """A text to be continued: its batches, and how well a model knows one of its splits."""

    corpus: Corpus
    batch_size: int
    length: int = WINDOW - 1  # of a row of a batch, in symbols
    metric: Metric = NATS

    def checksum(self) -> int:
        return _checksum([self.corpus.train, self.corpus.val])

    def batch(self, rng: Rng) -> IdsAndTargets:
        return random_windows(self.corpus.train, self.batch_size, self.length, rng)

    def quality(self, model: Transformer, split: str, examples: int | None = None) -> float:
        """Nats per character, on so many windows (256 unless said) of "val" or "test"."""
        tokens = getattr(self.corpus, split)
        return text_loss(model, tokens, 256 if examples is None else examples)


@dataclass(frozen=True)
class StringData:
    """Words to be changed by one of these string tasks, likewise."""

    tasks: tuple[str, ...]
    batch_size: int
    length: int = 28
    words: dict[str, list[str]] = field(default_factory=load_words, repr=False)
    metric: Metric = EXACT

    def checksum(self) -> int:
        return _checksum([encode("\n".join(self.words[split])) for split in ("train", "val")])

    def batch(self, rng: Rng) -> IdsAndTargets:
        return string_batch(self.tasks, self.words["train"], self.batch_size, self.length, rng)

    def quality(self, model: Transformer, split: str, examples: int | None = None) -> float:
        """The share of words, of the first so many (all unless said) of "val" or "test", of which
        the whole answer is right."""
        rng = np.random.default_rng(0)  # the same examples every time
        ids, targets = string_examples(self.tasks, self.words[split], self.length, rng)
        return exact_match(model, ids[:examples], targets[:examples])


@dataclass(frozen=True)
class ExampleData:
    """Chats, or pieces of a text, in the tokens of a model: some to learn from, others to judge by.

    about: what was read, in words. asked: what to let the model answer (messages), or continue
    (a text), to see what has changed.
    """

    learned: list[Example] = field(repr=False)
    judged: list[Example] = field(repr=False)
    about: str
    asked: Sequence[Message] | str
    batch_size: int = 4
    metric: Metric = NATS_PER_TOKEN

    @property
    def length(self) -> int:
        """Of the longest example, in tokens."""
        return max(len(ids) for ids, _ in [*self.learned, *self.judged])

    @property
    def measured_on(self) -> str:
        return "what was held out" if self.judged else "what was learned"

    def checksum(self) -> int:
        return _checksum([array for one in (*self.learned, *self.judged) for array in one])

    def batch(self, rng: Rng) -> IdsAndTargets:
        return pair_batches(self.learned, self.batch_size)(rng)

    def quality(self, model: Transformer, split: str, examples: int | None = None) -> float:
        """Nats per token that counts, on what is held out, which serves as "val" and as "test"; on
        what is learned if nothing is."""
        return answer_loss(model, (self.judged or self.learned)[:examples])


Data = TextData | StringData | ExampleData


@dataclass(frozen=True)
class BaseModel:
    """A recipe for one of the models that are shipped. data() loads what it learns."""

    name: str
    model: TransformerConfig
    training: TrainConfig
    data: Callable[[], Data]


def _prose() -> TextData:
    return TextData(load_corpus("prose"), 16)


_PRETRAINING = TrainConfig(steps=3000, lr=2e-3, warmup=100, weight_decay=0.05)
BASE_MODELS = {
    "docs-tiny": BaseModel("docs-tiny", ARCHITECTURES["docs-tiny"], _PRETRAINING, _prose),
    "words-tiny": BaseModel(
        "words-tiny",
        ARCHITECTURES["words-tiny"],
        replace(_PRETRAINING, seed=1),  # with seed 0 reverse is harder to learn: see README
        lambda: StringData(PRETRAIN_TASKS, 64),
    ),
}
assert all(base.model.vocab_size == len(ALPHABET) for base in BASE_MODELS.values())


def new_model(base: BaseModel, seed: int) -> Transformer:
    """The model of a recipe with random weights."""
    return Transformer(base.model, rng=np.random.default_rng(seed))


@dataclass(frozen=True)
class Task:
    """Something new for a base model to learn, with what it could do before.

    lr: the learning rate of each method (of methods.METHODS, and "scratch"). data: what is new,
    known: what the base model was trained for. prompts: what to let the models continue when they
    are shown to people. examples: how many of them quality is measured on (None: all that there
    are; of a text, 256 windows). `replace(task, examples=8)` is a task that is quickly measured.
    tokenizer: of a real model; None for the symbols of ALPHABET. quantized: the base is kept in the
    few bits that its file has.
    """

    name: str
    base: str
    about: str
    steps: int
    lr: dict[str, float]
    lora: LoraConfig
    data: Data
    known: Data | None
    prompts: tuple[str, ...]
    examples: int | None = None
    warmup: int = 20
    tokenizer: Tokenizer | None = None
    quantized: bool = False

    @property
    def metric(self) -> Metric:
        return self.data.metric

    def batch(self, rng: Rng) -> IdsAndTargets:
        """Ids and targets to learn from, int64 (B, T) each."""
        return self.data.batch(rng)

    def val(self, model: Transformer) -> float:
        """Quality on the new task's validation split, in the unit of `metric`."""
        return self.data.quality(model, "val", self.examples)

    def test(self, model: Transformer) -> float:
        """Quality on the new task's test split, in the unit of `metric`."""
        return self.data.quality(model, "test", self.examples)

    def old(self, model: Transformer) -> float:
        """Quality on the test split of what the base model was trained for, NaN where that is not
        known."""
        return self.known.quality(model, "test", self.examples) if self.known else math.nan


_TEXT_RATES = {
    "full": 1e-3, "lora": 1e-2, "rslora": 1e-2, "lora+": 3e-3, "dora": 1e-2, "pissa": 3e-3,
    "olora": 3e-3, "head": 1e-2, "last-block": 3e-3, "bitfit": 1e-1, "adapter": 1e-2,
    "prompt": 3e-1, "prefix": 3e-1, "ia3": 1e-1, "lora-fa": 3e-2, "vera": 1e-1, "lora-xs": 3e-2,
    "scratch": _PRETRAINING.lr,
}  # fmt: skip
_STRING_RATES = {
    "full": 3e-3, "lora": 1e-2, "rslora": 1e-2, "lora+": 1e-3, "dora": 3e-3, "pissa": 3e-3,
    "olora": 1e-3, "head": 1e-2, "last-block": 3e-2, "bitfit": 1e-1, "adapter": 3e-2,
    "prompt": 3e-2, "prefix": 3e-1, "ia3": 1e-1, "lora-fa": 3e-2, "vera": 1e-1, "lora-xs": 1e-2,
    "scratch": _PRETRAINING.lr,
}  # fmt: skip
TEXT_LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
TASKS = ("code", "reverse", "sort")


def load_task(name: str | Path | Task) -> Task:
    """The task "code", "reverse" or "sort", or that of learning a text file.

    A str of these three is the task, also where a file of this name is there: Path("code") and
    "./code" are the file. A text is read anew at each call. Raises ValueError for a name that is
    neither, and TextError for a text that cannot be used.
    """
    if isinstance(name, Task):
        return name
    if not isinstance(name, str | Path):
        raise UsageError(f"a task is its name, the path of a text file, or a Task; got {name!r}")
    if name == "code":
        task = text_task(load_corpus("code"))
        return replace(task, about="English documentation → Python code", prompts=("def ",))
    if name in TASKS:
        return _string_task(str(name))
    is_path = Path(name).suffix or len(Path(name).parts) > 1
    if isinstance(name, str) and not (is_path or (name and Path(name).exists())):
        raise UsageError(
            f"there is no task {name!r}; use one of: {', '.join(TASKS)}, or the path of a text file"
        )
    task = text_task(load_text(name))
    return replace(task, name=f"{task.name}-text") if task.name in TASKS else task


def text_task(corpus: Corpus) -> Task:
    """The task of continuing any text, such as that of load_text()."""
    first_words = decode(corpus.test[:200]).split()[:3]
    return Task(
        corpus.name,
        "docs-tiny",
        f"English documentation → {corpus.name}",
        steps=300,
        lr=_TEXT_RATES,
        lora=TEXT_LORA,
        data=TextData(corpus, 12),
        known=_prose(),
        prompts=(" ".join(first_words) + " ",),
    )


def _string_task(name: str) -> Task:
    r, symbol = {"reverse": 2, "sort": 4}[name], STRING_TASKS[name].symbol
    data = StringData((name,), 32)
    words = [word for word in data.words["test"] if len(word) == 6]
    return Task(
        name,
        "words-tiny",
        f"seven string tasks → {name} a word",
        steps=600,
        lr=_STRING_RATES,
        lora=LoraConfig(r=r, lora_alpha=4, use_rslora=True, target_modules="all-linear"),
        data=data,
        known=StringData(PRETRAIN_TASKS, 32),
        prompts=tuple(f"{symbol}{word}>" for word in words[:: len(words) // 3][:3]),
    )
