"""The benchmark's jobs in minilora."""

import numpy as np
from shapes import ADAMW, SCALE, TARGETS, Shape, base_weights, batch, lora_weights

import minilora as ml


def make_model(s: Shape, mode: str, r: int) -> ml.Transformer:
    config = ml.TransformerConfig(s.V, s.T, s.layers, s.heads, s.C, tie_embeddings=False)
    model = ml.Transformer(config, rng=np.random.default_rng(0))
    model.load_state_dict(base_weights(s))
    if mode in TARGETS:
        wanted = ml.LoraConfig(r=r, lora_alpha=SCALE * r, target_modules=TARGETS[mode])
        ml.add_adapter(model, wanted, rng=np.random.default_rng(0))
        for path, (A, B) in lora_weights(s, mode, r).items():
            layer = model.get_submodule(path)
            layer.lora_A["default"].data[...] = A
            layer.lora_B["default"].data[...] = B
    return model


def make_step(s: Shape, mode: str, r: int, threads: int):
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


def gradients(s: Shape, mode: str, r: int) -> dict[str, np.ndarray]:
    """loss, and d(loss)/d(parameter) by name, before any update."""
    model = make_model(s, mode, r)
    ids, targets = batch(s)
    loss = ml.cross_entropy(model(ids), targets)
    loss.backward()
    found = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.data, **found}


def make_generate(s: Shape):
    model = make_model(s, "full", 0)
    start = np.zeros((1, 1), dtype=np.int64)
    return lambda: ml.generate(model, start, s.T - 1, temperature=0)
