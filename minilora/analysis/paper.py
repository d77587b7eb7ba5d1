"""What Hu et al. 2021 (LoRA) print about sizes, beside the same numbers computed here.

Nothing is taken from the paper but what it prints: each claim holds the sum in plain numbers, and a
note where the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minilora.analysis.counting import (
    ARCHITECTURES,
    checkpoint_bytes,
    lora_parameters,
    total_parameters,
)
from minilora.transformer import TransformerConfig


@dataclass(frozen=True)
class Claim:
    """A number that a paper prints, beside the same number computed here, in the same unit.

    how: the sum in plain numbers. note: why the two differ; empty where they agree.
    """

    name: str
    how: str
    computed: float
    printed: str
    unit: str
    note: str = ""

    @property
    def rounded(self) -> str:
        """The computed number with as many decimals as the printed one."""
        return f"{self.computed:,.{len(self.printed.partition('.')[2])}f}"


# Hu et al. 2021, table 4: 651.5 million more than the sizes give. The paper does not say what it
# counts; a head that is not tied to the embedding would be 617.6 million.
GPT3_PRINTED = 175_255_800_000


def _hu_2021() -> tuple[Claim, ...]:
    """What Hu et al. 2021 print in the abstract, section 4.2 and the tables, computed."""
    gpt3, medium, gpt2 = (ARCHITECTURES[name] for name in ("gpt3-175b", "gpt2-medium", "gpt2"))
    q, qv, qkvo = ("q_proj",), ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")

    def million(config: TransformerConfig, r: int, targets: Sequence[str] = qv) -> float:
        return lora_parameters(config, r, targets) / 1e6

    model, adapter = checkpoint_bytes(GPT3_PRINTED), checkpoint_bytes(lora_parameters(gpt3, 4, qv))
    M, cut = "million", "18.9 cut to 18"
    return (
        Claim("GPT-3", "(96 * (12*12288**2 + 13*12288) + (50257 + 2048 + 2) * 12288) / 1e6",
              total_parameters(gpt3) / 1e6, "175,255.8", M, "the paper does not say why"),
        Claim("GPT-3, q v, r=1", "96*2*1 * (12288+12288) / 1e6", million(gpt3, 1), "4.7", M),
        Claim("GPT-3, q v, r=4", "96*2*4 * (12288+12288) / 1e6", million(gpt3, 4), "18.9", M),
        Claim("GPT-3, q v, r=8", "96*2*8 * (12288+12288) / 1e6", million(gpt3, 8), "37.7", M),
        Claim("GPT-3, fewer with q v, r=4", "175255.8e6 / (96*2*4 * (12288+12288))",
              GPT3_PRINTED / lora_parameters(gpt3, 4, qv), "10,000", "times", "9,285 rounded up"),
        Claim("Table 5, q, r=8", "96*1*8 * 2*12288 / 1e6", million(gpt3, 8, q), "18", M, cut),
        Claim("Table 5, q v, r=4", "96*2*4 * 2*12288 / 1e6", million(gpt3, 4, qv), "18", M, cut),
        Claim("Table 5, qkvo, r=2", "96*4*2 * 2*12288 / 1e6", million(gpt3, 2, qkvo), "18", M, cut),
        Claim("GPT-2 medium, q v, r=4", "24*2*4 * (1024+1024) / 1e6",
              million(medium, 4), "0.35", M, "the paper does not say why"),
        # an encoder, but the matrices of its 12 blocks are those of gpt2
        Claim("RoBERTa base, q v, r=8", "12*2*8 * (768+768) / 1e6", million(gpt2, 8), "0.3", M),
        Claim("GPT-3's file", "2 * 175255.8e6 / 1e9",
              model / 1e9, "350", "GB", "from 175 billion, 2 bytes each"),
        Claim("GPT-3's adapter file, q v, r=4", "2 * 96*2*4 * (12288+12288) / 1e6",
              adapter / 1e6, "35", "MB", "350 GB / 10,000, and 10,000 is 9,285 rounded up"),
        Claim("100 models", "100 * 2 * 175255.8e6 / 1e12", 100 * model / 1e12, "35", "TB"),
        Claim("1 model, 100 adapters", "(2 * 175255.8e6 + 100 * 2 * 96*2*4 * (12288+12288)) / 1e9",
              (model + 100 * adapter) / 1e9, "354", "GB"),
    )  # fmt: skip


HU_2021 = _hu_2021()
