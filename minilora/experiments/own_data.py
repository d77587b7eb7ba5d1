"""What a real model is fine-tuned to: questions and answers, or a text, from a file of the user's.

The recipe is that of a small chat model on some fifty answers: a minute on two cores. What is held
out to judge by is the same whatever the method, the seed and the number of steps.
"""

from __future__ import annotations

from pathlib import Path

from minilora.experiments.tasks import ExampleData, Task
from minilora.hub import load_tokenizer
from minilora.lora_config import LoraConfig
from minilora.system.errors import UsageError
from minilora.text.alphabet import TextError
from minilora.text.corpora import read_text
from minilora.text.pairs import pair_example, read_pairs, text_examples
from minilora.tokens.tokenizer import Tokenizer

PAIRS = (".jsonl", ".json")  # what files of questions and answers are called
_LONGEST = 512  # tokens of a chat
_WINDOW = 256  # tokens of a piece of text
_HELD_OUT = 0.1


def own_task(model: str | Path, file: str | Path, quantized: bool = False) -> Task:
    """The task of teaching a real model a file: questions and answers if its name ends in .jsonl,
    else a text.

    quantized: keep the model, of a .gguf file, in its 4 or 8 bits, as QLoRA does. Raises what
    load_tokenizer and read_pairs raise, and TextError for a text that cannot be used.
    """
    tokenizer, file = load_tokenizer(model), Path(file)
    data = (_chats if file.suffix.lower() in PAIRS else _text)(file, tokenizer)
    return real_task(file.name, model, tokenizer, data, quantized)


def real_task(
    name: str, model: str | Path, tokenizer: Tokenizer, data: ExampleData, quantized: bool = False
) -> Task:
    """The task of teaching these examples to a real model, with the recipe's steps and rates."""
    return Task(
        name,
        str(model),
        f"{model} → {name}",
        steps=48,
        warmup=5,
        lr={"full": 1e-4, "lora": 2e-3},
        lora=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
        data=data,
        known=None,
        prompts=(data.asked,) if isinstance(data.asked, str) else (),
        tokenizer=tokenizer,
        quantized=quantized,
    )


def _chats(file: Path, tokenizer: Tokenizer) -> ExampleData:
    pairs, examples, cut_off = read_pairs(file), [], 0
    for line, chat in zip(pairs.lines, pairs.chats, strict=True):
        try:
            examples.append(pair_example(tokenizer, chat, _LONGEST))
            cut_off += len(tokenizer.encode_answers(chat)[0]) - 1 > _LONGEST
        except UsageError as error:
            raise UsageError(f"{file}, line {line}: {error}") from None
    held_out = pairs.held_out(_HELD_OUT)
    about = [f"{len(examples)} chats ({pairs.names})"]
    about += [f"{sum(held_out)} of them held out to judge by" if any(held_out) else "none held out"]
    about += [f"{cut_off} longer than {_LONGEST} tokens and cut off"] if cut_off else []
    shown = pairs.chats[held_out.index(True) if any(held_out) else 0]
    last = max(i for i, message in enumerate(shown) if message["role"] == "assistant")
    return ExampleData(
        [e for e, held in zip(examples, held_out, strict=True) if not held],
        [e for e, held in zip(examples, held_out, strict=True) if held],
        ", ".join(about),
        shown[:last],
    )


def _text(file: Path, tokenizer: Tokenizer) -> ExampleData:
    """The last twentieth, of whole pieces, is to judge by."""
    text = read_text(file)
    pieces = text_examples(tokenizer, text, _WINDOW)
    if len(pieces) < 20:
        raise TextError(
            f"{file} is too short: it has {sum(len(ids) for ids, _ in pieces)} tokens and needs "
            f"some {20 * _WINDOW}; choose a longer text"
        )
    learned = pieces[: len(pieces) * 95 // 100]
    judged = pieces[len(learned) :]
    tokens = sum(len(ids) for ids, _ in pieces)
    about = f"{tokens:,} tokens, the last twentieth of them to judge by"
    first_words = tokenizer.decode(judged[0][0]).split()[:3]
    return ExampleData(learned, judged, about, " ".join(first_words))
