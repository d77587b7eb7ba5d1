"""METHODS: the name of each way to fine-tune, its label and what it makes of a model.

Three families: *selective* methods train some of the model's own numbers, *additive* ones put
small new modules into it, *reparameterized* ones (LoRA and its kin) train a change of W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.additive import bottleneck_adapter, prefix_tuning, prompt_tuning
from minilora.methods.frozen_factors import lora_fa, lora_xs, vera
from minilora.methods.ia3 import ia3
from minilora.methods.selective import bitfit, full, head_only, last_block
from minilora.nn import Rng
from minilora.system.checks import require_rng
from minilora.system.errors import UsageError
from minilora.transformer import Transformer

Change = Callable[[Transformer, LoraConfig, Rng], None]


@dataclass(frozen=True)
class Method:
    """A way to fine-tune: its name, its label in figures, its family, and what it does to a model.

    loraplus_lr_ratio: how many times the rate the B of an adapter gets (LoRA+).
    """

    name: str
    label: str
    family: str
    change: Change
    loraplus_lr_ratio: float = 1.0

    def prepare(self, model: Transformer, lora: LoraConfig, rng: Rng) -> None:
        """Change the model in place: then `model.trainable_parameters()` are what this method
        trains, and everything else is frozen.

        lora: the configuration that LoRA itself would have: its kin vary it, and additive methods
        take their size from it. rng draws what is new. All or nothing: raises ValueError or
        TypeError, and changes nothing, for a model that is merged, that has adapters (LoRA and its
        kin may be added beside others) or that the method does not fit.
        """
        if not isinstance(model, Transformer) or not isinstance(lora, LoraConfig):
            given = f"{type(model).__name__} and {type(lora).__name__}"
            raise TypeError(f"{self.label} needs a Transformer and a LoraConfig, got {given}")
        require_rng(rng)
        if self.family != "reparameterized":
            _require_plain(model, self.label)
        self.change(model, lora, rng)


def _require_plain(model: Transformer, label: str) -> None:
    wrappers = (type(m).__name__ for _, m in model.named_modules() if "base" in vars(m))
    if wrapper := next(wrappers, None):
        raise UsageError(
            f"{label} starts from a plain model, and this one has been changed already (it holds "
            f"a {wrapper}): call merge_and_unload(model), or load the model again"
        )


def _lora(**changes: Any) -> Change:
    def prepare(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
        add_adapter(model, replace(lora, **changes), rng=rng)

    return prepare


_SELECT, _ADD, _LOW_RANK = "selective", "additive", "reparameterized"
METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", "full", full),
        Method("head", "head only", _SELECT, head_only),
        Method("last-block", "last block", _SELECT, last_block),
        Method("bitfit", "BitFit", _SELECT, bitfit),
        Method("adapter", "bottleneck adapter", _ADD, bottleneck_adapter),
        Method("prompt", "prompt tuning", _ADD, prompt_tuning),
        Method("prefix", "prefix tuning", _ADD, prefix_tuning),
        Method("ia3", "IA³", _ADD, ia3),
        Method("lora", "LoRA", _LOW_RANK, _lora()),
        Method("rslora", "rsLoRA", _LOW_RANK, _lora(use_rslora=True)),
        Method("lora+", "LoRA+", _LOW_RANK, _lora(), loraplus_lr_ratio=16),
        Method("dora", "DoRA", _LOW_RANK, _lora(use_dora=True)),
        Method("pissa", "PiSSA", _LOW_RANK, _lora(init_lora_weights="pissa")),
        Method("olora", "OLoRA", _LOW_RANK, _lora(init_lora_weights="olora")),
        Method("lora-fa", "LoRA-FA", _LOW_RANK, lora_fa),
        Method("vera", "VeRA", _LOW_RANK, vera),
        Method("lora-xs", "LoRA-XS", _LOW_RANK, lora_xs),
    )
}
LABELS = {name: method.label for name, method in METHODS.items()} | {"scratch": "from scratch"}
