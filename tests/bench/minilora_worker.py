"""The benchmark's steps in minilora."""

import numpy as np
from shapes import ADAMW, ALPHA, TARGETS, Shape, base_weights, batch, lora_weights

import minilora as ml


def make_model(s: Shape, mode: str, r: int) -> ml.Transformer:
    config = ml.TransformerConfig(s.V, s.T, s.layers, s.heads, s.C, tie_embeddings=False)
    model = ml.Transformer(config, rng=np.random.default_rng(0))
    model.load_state_dict(base_weights(s))
    if mode in TARGETS:
        wanted = ml.LoraConfig(r=r, lora_alpha=ALPHA * r / 8, target_modules=TARGETS[mode])
        ml.add_adapter(model, wanted, rng=np.random.default_rng(0))
        for path, (A, B) in lora_weights(s, mode, r).items():
            layer = model.get_submodule(path)
            layer.lora_A["default"].data[...] = A
            layer.lora_B["default"].data[...] = B
    return model


def make_step(s: Shape, mode: str, r: int):
    model = make_model(s, mode, r)
    ids, targets = batch(s)
    optimizer = ml.AdamW(model.trainable_parameters(), **ADAMW)

    def step() -> float:
        loss = ml.cross_entropy(model(ids), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
