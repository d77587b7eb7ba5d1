"""What a fine-tuning costs beside time, measured: memory of a step, bytes to keep on disk."""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np

from minilora.functional import cross_entropy
from minilora.hub import save_adapter, save_model
from minilora.lora import active_adapter
from minilora.optim import AdamW
from minilora.system.files import temporary_folder
from minilora.training.loop import Training
from minilora.transformer import Transformer


def step_memory(training: Training) -> int:
    """Bytes at the highest point of a training step, beyond the model's own weights: activations,
    gradients, and AdamW's moments and working arrays.

    Taken with tracemalloc on a copy, so that the training stays where it is; for the whole batch at
    once, which is also what two threads with half of it each come to.
    """
    ids, targets = training.batch(np.random.default_rng(training.config.seed))
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        twin = copy.deepcopy(training.model)
        weights = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        optimizer = AdamW(twin.trainable_parameters())
        cross_entropy(twin(ids), targets).backward()
        optimizer.step()
        return tracemalloc.get_traced_memory()[1] - weights
    finally:
        if not was_tracing:
            tracemalloc.stop()


def disk_bytes(model: Transformer) -> int:
    """Bytes of what has to be kept of a tuned model.

    Of an adapter, PEFT's two files; of a model all of which was trained, or nothing any more,
    Transformers' files; of other methods, the trained numbers alone.
    """
    trained = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    if not active_adapter(model) and 0 < len(trained) < len(model.parameters()):
        from safetensors.numpy import save

        return len(save(trained))
    with temporary_folder() as folder:
        (save_adapter if active_adapter(model) else save_model)(model, folder)
        return sum(file.stat().st_size for file in folder.iterdir())
