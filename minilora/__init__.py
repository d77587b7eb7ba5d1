"""LoRA understood: a NumPy autograd engine, a transformer, and full fine-tuning beside LoRA.

    import minilora as ml

README.md has a reader's path through the files. The names below are loaded at once; rooms such as
`ml.plots` or `ml.studies`, and what stands in them, are opened when they are first used.
"""

from importlib import import_module
from typing import Any

import minilora.methods.variants  # noqa: F401  (adds DoRA, PiSSA and OLoRA to lora.KINDS)
from minilora.functional import cross_entropy
from minilora.generation.answers import answer
from minilora.generation.sampling import generate, write
from minilora.hub import load_adapter, load_model, load_tokenizer, save_adapter, save_model
from minilora.lora import (
    LoraLinear,
    active_adapter,
    add_adapter,
    delete_adapter,
    disable_adapter,
    get_delta_weight,
    merge_adapter,
    merge_and_unload,
    set_adapter,
    unmerge_adapter,
)
from minilora.lora_config import LoraConfig
from minilora.methods.trainable import (
    count_parameters,
    lora_state_dict,
    print_trainable_parameters,
)
from minilora.module import ModuleList
from minilora.nn import Embedding, LayerNorm, Linear, Module, Parameter, RMSNorm
from minilora.optim import SGD, AdamW, clip_grad_norm, warmup_cosine
from minilora.system.memory import keep_freed_memory
from minilora.system.version import __version__
from minilora.tensor import Tensor, grad, no_grad
from minilora.testing import gradcheck
from minilora.text.alphabet import decode, encode, to_alphabet
from minilora.text.corpora import load_corpus, load_text, load_words
from minilora.text.windows import random_windows
from minilora.training.loop import TrainConfig, Training, train
from minilora.training.quality import exact_match, text_loss
from minilora.transformer import Transformer, TransformerConfig

_ROOMS = ("analysis", "experiments", "plots", "studies", "learn")
_ON_FIRST_USE = {
    "extract_adapter": "minilora.combining.extract",
    "adapters_per_row": "minilora.combining.per_row",
    "combine_adapters": "minilora.combining.combine",
    "disk_bytes": "minilora.experiments.costs",
    "dequantize": "minilora.quantization.quantized",
    "quantize_nf4": "minilora.quantization.nf4",
    "step_memory": "minilora.experiments.costs",
    "tune": "minilora.experiments.tuning",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"minilora.{name}")
    if name in _ON_FIRST_USE:
        return getattr(import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f"module 'minilora' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS, *_ON_FIRST_USE])


__all__ = [
    "SGD", "AdamW", "Embedding", "LayerNorm", "Linear", "LoraConfig", "LoraLinear", "Module",
    "ModuleList", "Parameter", "RMSNorm", "Tensor", "TrainConfig", "Training", "Transformer",
    "TransformerConfig", "__version__", "active_adapter", "add_adapter", "answer",
    "clip_grad_norm", "count_parameters", "cross_entropy", "decode", "delete_adapter",
    "disable_adapter", "encode",
    "exact_match", "generate", "get_delta_weight", "grad", "gradcheck", "keep_freed_memory",
    "load_adapter", "load_corpus", "load_model", "load_text", "load_tokenizer", "load_words",
    "lora_state_dict", "merge_adapter", "merge_and_unload", "no_grad",
    "print_trainable_parameters", "random_windows", "save_adapter", "save_model", "set_adapter",
    "text_loss", "to_alphabet", "train", "unmerge_adapter", "warmup_cosine", "write",
]  # fmt: skip
