"""What the page's counter knows of the named models: the sizes of their matrices."""

from __future__ import annotations

from typing import Any

from minilora.analysis.counting import (
    ARCHITECTURES,
    NF4_BITS,
    matrix_shapes,
    total_parameters,
)


def count_data() -> dict[str, Any]:
    """nf4_bits: of a weight in NF4. models: of each of ARCHITECTURES total, layers, and shapes
    (d_in, d_out) by name; where GPT-2's files fuse q, k and v, also those of c_attn."""
    models = {}
    for name, config in ARCHITECTURES.items():
        shapes = matrix_shapes(config)
        if name.startswith("gpt"):
            shapes["c_attn"] = (config.n_embd, 3 * config.n_embd)
        models[name] = {
            "total": total_parameters(config),
            "layers": config.n_layer,
            "shapes": shapes,
        }
    return {"nf4_bits": NF4_BITS, "models": models}
