"""Selective methods train some of the model's own numbers and freeze the others.

Each takes the same three arguments as every method (see registry.py) and needs only the model.
"""

from __future__ import annotations

from minilora.lora_config import LoraConfig
from minilora.nn import Rng
from minilora.quantization.quantized import is_quantized
from minilora.system.errors import UsageError
from minilora.transformer import Transformer


def full(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """Full fine-tuning: everything trains."""
    _require_numbers(model)
    model.requires_grad_(True)


def head_only(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """The last norm and the head. A tied head is the embedding, which then changes as input too."""
    _require_numbers(model)
    model.requires_grad_(False)
    model.norm.requires_grad_(True)
    (model.tok_embed if model.config.tie_embeddings else model.head).requires_grad_(True)


def last_block(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """The last of the model's blocks, whole; not the norm and the head behind it."""
    _require_numbers(model)
    model.requires_grad_(False)
    model.layers[-1].requires_grad_(True)


def bitfit(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """BitFit: all biases, and nothing else (Ben Zaken et al. 2022). Raises ValueError for a model
    without, such as a Llama."""
    biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
    if not biases:
        raise UsageError("BitFit trains biases, and this model has none; choose another method")
    model.requires_grad_(False)
    for p in biases:
        p.requires_grad = True


def _require_numbers(model: Transformer) -> None:
    if is_quantized(model):
        raise UsageError(
            "the base is kept in few bits and cannot train: use LoRA or another method that trains "
            "something beside it, or call dequantize(model) first"
        )
