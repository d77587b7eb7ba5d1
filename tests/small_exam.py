"""A real model's exam in small: a tiny model that reads bytes and a few pieces, and few items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import FAMILIES
from tokens import write_tokenizer

from minilora.experiments.exam_items import PARTS, load_exam
from minilora.hub import save_model
from minilora.hub.tokenizers import load_tokenizer
from minilora.transformer import Transformer, TransformerConfig

ITEMS = load_exam()
FEW = replace(
    ITEMS,
    questions=tuple(q for part in PARTS for q in ITEMS.part(part)[:3]),
    statements=ITEMS.statements[:9],
    controls=ITEMS.controls[:3],
    paragraph=ITEMS.paragraph[:60],
    samples=ITEMS.samples[:1],
)


def write_chat_model(folder: Path) -> Path:
    """A model that knows nothing yet, and its tokenizer."""
    pytest.importorskip("jinja2")
    write_tokenizer(folder)
    sizes = dict(vocab_size=load_tokenizer(folder).vocab_size, block_size=600)
    shape = dict(n_layer=1, n_head=4, n_embd=16)
    config = TransformerConfig(**FAMILIES["llama"] | sizes | shape)
    save_model(Transformer(config, rng=np.random.default_rng(0)), folder)
    return folder
