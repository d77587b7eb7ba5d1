"""How many numbers a model has and trains, and their bytes, by arithmetic alone.

All of it follows from the sizes of the matrices, so GPT-3 can be counted on a laptop: no weight is
ever made. LoRA trains r (d_in + d_out) numbers where a matrix has d_in · d_out (Hu et al. 2021,
section 4.1). What that saves is less than it seems: the frozen weights must still be in memory.
1 GB is 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minilora.system.checks import require_positive, require_whole
from minilora.system.errors import UsageError
from minilora.transformer import TransformerConfig


def _gpt2(n_layer: int, n_head: int, n_embd: int, block_size: int = 1024) -> TransformerConfig:
    return TransformerConfig(50257, block_size, n_layer, n_head, n_embd)


_LLAMA_2 = TransformerConfig(
    vocab_size=32000, block_size=4096, n_layer=32, n_head=32, n_embd=4096, mlp_hidden=11008,
    norm="rmsnorm", activation="swiglu", positions="rope", bias=False, tie_embeddings=False,
)  # fmt: skip

ARCHITECTURES: dict[str, TransformerConfig] = {
    # the two that come with the package (experiments/tasks.py says how they were trained)
    "docs-tiny": TransformerConfig(vocab_size=96, block_size=64, n_layer=2, n_head=4, n_embd=128),
    "words-tiny": TransformerConfig(vocab_size=96, block_size=28, n_layer=4, n_head=4, n_embd=64),
    # Radford et al. 2019 (GPT-2), table 2; heads from config.json on Hugging Face
    "gpt2": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    # Touvron et al. 2023 (Llama 2); sizes from config.json
    "llama-2-7b": _LLAMA_2,
    "llama-2-13b": replace(_LLAMA_2, n_layer=40, n_head=40, n_embd=5120, mlp_hidden=13824),
    "llama-2-70b": replace(
        _LLAMA_2, n_layer=80, n_head=64, n_embd=8192, n_kv_head=8, mlp_hidden=28672
    ),
    # Grattafiori et al. 2024 (Llama 3), table 3; vocab_size and block_size from config.json
    "llama-3-8b": replace(
        _LLAMA_2, vocab_size=128256, block_size=8192, n_kv_head=8, mlp_hidden=14336, rope_theta=5e5
    ),
    # Brown et al. 2020 (GPT-3), table 2.1; the architecture is GPT-2's
    "gpt3-175b": _gpt2(96, 96, 12288, block_size=2048),
}


def matrix_shapes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of every Linear in one block, by its short name."""
    C, hidden, D = config.n_embd, config.hidden, config.head_size
    wide, width = config.n_head * D, config.kv_heads * D
    shapes = {"q_proj": (C, wide), "k_proj": (C, width), "v_proj": (C, width), "o_proj": (wide, C)}
    if config.activation == "swiglu":
        shapes["gate_proj"] = (C, hidden)
    return {**shapes, "up_proj": (C, hidden), "down_proj": (hidden, C)}


def total_parameters(config: TransformerConfig) -> int:
    """How many numbers Transformer(config) has; a tied head is counted once."""
    C, shapes = config.n_embd, matrix_shapes(config)
    norm = 2 * C if config.norm == "layernorm" else C  # RMSNorm has no bias
    biases = sum(d_out for name, (_, d_out) in shapes.items() if config.has_bias(name))
    block = sum(d_in * d_out for d_in, d_out in shapes.values()) + biases + 2 * norm
    tables = config.vocab_size * C * (1 if config.tie_embeddings else 2)
    positions = config.block_size * C if config.positions == "learned" else 0
    return tables + positions + config.n_layer * block + norm


def lora_parameters(config: TransformerConfig, r: int, targets: str | Sequence[str]) -> int:
    """How many numbers LoRA trains: r (d_in + d_out) for each target, in every block.

    targets: short names such as ["q_proj", "v_proj"], or "all-linear" for every Linear of a block.
        "c_attn" is q, k and v as GPT-2's files and PEFT have them: one matrix with one A.
    r may be so large that LoRA does not save: see break_even_rank. Raises ValueError for r < 1 and
    for targets that are unknown or named twice.
    """
    require_whole(1, r=r)
    shapes = matrix_shapes(config)
    names = [targets] if isinstance(targets, str) else list(targets)
    if names == ["all-linear"]:
        names = list(shapes)
    qkv = ("q_proj", "k_proj", "v_proj")
    shapes["c_attn"] = (config.n_embd, sum(shapes[name][1] for name in qkv))
    if not names:
        raise UsageError(f"name at least one target: {', '.join(shapes)}")
    if unknown := [name for name in names if name not in shapes]:
        raise UsageError(f"targets {unknown} are not in a block; it has: {', '.join(shapes)}")
    single = [part for name in names for part in (qkv if name == "c_attn" else (name,))]
    if len(set(single)) < len(single):
        raise UsageError(f"name each target once (c_attn is q, k and v together), got {names}")
    return config.n_layer * r * sum(sum(shapes[name]) for name in names)


def break_even_rank(d_in: int, d_out: int) -> float:
    """The rank d_in d_out / (d_in + d_out) at which A and B have as many numbers as W: LoRA trains
    fewer only below it, which is d / 2 for a square matrix. Raises ValueError for a size < 1."""
    require_whole(1, d_in=d_in, d_out=d_out)
    return d_in * d_out / (d_in + d_out)


def checkpoint_bytes(numbers: int) -> int:
    """The size of a file of so many numbers in float16 or bfloat16: 2 bytes each."""
    require_whole(0, numbers=numbers)
    return 2 * numbers


# NF4 (Dettmers et al. 2023, QLoRA, section 3): 4 bits a weight, a scale in 8 bits for each block of
# 64 weights, and (double quantization) a scale in 32 bits for each 256 of those scales.
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)


def training_bytes(frozen: int, trained: int, frozen_bits: float = 16) -> dict[str, float]:
    """The memory, in bytes, of training with AdamW and weights of 16 bits: weights, gradients,
    optimizer and their total. Activations are not counted, and are often the largest part.

    frozen, trained: how many numbers. A trained one has 2 bytes of weight, 2 of gradient and 8 of
    optimizer: AdamW's two moments, in float32 because they average over many steps additions too
    small for 16 bits. A frozen one is only stored. So 7e9 trained weights need 14 + 14 + 56 =
    84 GB. That is the least that is usual. Mixed precision also keeps a float32 copy of each
    trained weight: 16 bytes (Rajbhandari et al. 2020, ZeRO, section 3.1), and 18 with gradients in
    float32. Raises ValueError for counts below 0.
    """
    require_whole(0, frozen=frozen, trained=trained)
    require_positive(frozen_bits=frozen_bits)
    parts = {
        "weights": frozen * frozen_bits / 8 + 2 * trained,
        "gradients": 2.0 * trained,
        "optimizer": 8.0 * trained,
    }
    return {**parts, "total": sum(parts.values())}


def memory_ladder(
    config: TransformerConfig, r: int, targets: str | Sequence[str]
) -> dict[str, dict[str, float]]:
    """training_bytes of "full", "lora" and "qlora", each step down from the one before.

    LoRA saves gradients and optimizer, QLoRA also weights: it keeps the matrices of the blocks in
    NF4, everything else (embeddings, head, norms, biases) and the adapter in 16 bits.
    """
    total, adapter = total_parameters(config), lora_parameters(config, r, targets)
    in_nf4 = config.n_layer * sum(d_in * d_out for d_in, d_out in matrix_shapes(config).values())
    mean_bits = (in_nf4 * NF4_BITS + (total - in_nf4) * 16) / total
    return {
        "full": training_bytes(0, total),
        "lora": training_bytes(total, adapter),
        "qlora": training_bytes(total, adapter, mean_bits),
    }


def count_rows(rank: int, targets: str | Sequence[str]) -> list[dict[str, Any]]:
    """A row for each of ARCHITECTURES: model, total, trainable, share, model_bytes, adapter_bytes.

    share is trainable / total, of the base model (PEFT's "trainable%" adds the adapter to the
    total, and so is a little lower); bytes are at 2 a number.
    """
    keys = ("model", "total", "trainable", "share", "model_bytes", "adapter_bytes")
    rows = []
    for name, config in ARCHITECTURES.items():
        total, lora = total_parameters(config), lora_parameters(config, rank, targets)
        files = checkpoint_bytes(total), checkpoint_bytes(lora)
        rows.append(dict(zip(keys, (name, total, lora, lora / total, *files), strict=True)))
    return rows
