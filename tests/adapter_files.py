"""Adapters as files, written by hand: of any model, of any size, and wrong in any way."""

import json

import numpy as np
from safetensors.numpy import save_file

PREFIX = "base_model.model.model."


def factors(path, d_in=12, d_out=9, r=4, seed=0):
    """PEFT's tensors of one module: lora_A (r, d_in) and lora_B (d_out, r)."""
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((r, d_in)), rng.standard_normal((d_out, r))
    names = (f"{PREFIX}{path}.lora_{half}.weight" for half in "AB")
    return {name: array.astype(np.float32) for name, array in zip(names, (A, B), strict=True)}


def write_adapter(folder, tensors, **options):
    """adapter_config.json and adapter_model.safetensors; returns the folder."""
    folder.mkdir(exist_ok=True)
    config = dict(peft_type="LORA", r=4, lora_alpha=8, target_modules=["q"]) | options
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
