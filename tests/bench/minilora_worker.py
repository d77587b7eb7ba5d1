"""The benchmark's jobs in minilora."""

import atexit
from contextlib import ExitStack

import numpy as np
from shapes import ADAMW, SCALE, TARGETS, Shape, base_weights, batch, lora_weights
from threadpoolctl import threadpool_limits

import minilora as ml
from minilora.training.parallel import loss_and_gradients, threads_for_shards


def make_model(s: Shape, mode: str, r: int) -> ml.Transformer:
    config = ml.TransformerConfig(s.V, s.T, s.layers, s.heads, s.C, tie_embeddings=False)
    model = ml.Transformer(config, rng=np.random.default_rng(0))
    model.load_state_dict(base_weights(s))
    if mode in TARGETS:
        wanted = ml.LoraConfig(r=r, lora_alpha=SCALE * r, target_modules=TARGETS[mode])
        ml.add_adapter(model, wanted, rng=np.random.default_rng(0))
        for path, (A, B) in lora_weights(s, mode, r).items():
            layer = model.get_submodule(path)
            layer.adapters["default"].A.data[...] = A
            layer.adapters["default"].B.data[...] = B
    return model


def make_step(s: Shape, mode: str, r: int, threads: int):
    """One thread: the loop a user writes. More: as in ml.train, shards of the batch in threads."""
    model = make_model(s, mode, r)
    ids, targets = batch(s)
    params = model.trainable_parameters()
    optimizer = ml.AdamW(params, **ADAMW)

    def step() -> float:
        loss = ml.cross_entropy(model(ids), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    if threads == 1:
        return step
    threadpool_limits(1)
    stack = ExitStack()
    pool = stack.enter_context(threads_for_shards(threads))
    atexit.register(stack.close)

    def parallel_step() -> float:
        loss, gradients = loss_and_gradients(model, params, ids, targets, pool=pool)
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return parallel_step


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
