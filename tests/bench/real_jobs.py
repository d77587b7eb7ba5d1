"""The jobs of real.py, in minilora and in transformers with PEFT, on a model in a folder.

A job is its kind and its batch, such as "lora 4": "lora" is a step of LoRA with r = 8 on every
linear of the blocks, "answers" the same where only the last quarter of the targets counts, as when
a model learns answers to questions, "full" trains everything, and "generate" continues prompts of
16 tokens greedily by 32. A step reads T = 128 tokens in each row.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from shapes import ADAMW, SCALE, R

T, PROMPT, NEW = 128, 16, 32
IGNORED = -100


def batch(kind: str, rows: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """ids and targets, int64 (B, T) each; the targets of "answers" count from 3/4 of T on."""
    ids = np.random.default_rng(2).integers(0, vocabulary, (rows, T + 1))
    targets = ids[:, 1:].copy()
    if kind == "answers":
        targets[:, : T * 3 // 4] = IGNORED
    return ids[:, :-1].copy(), targets


def minilora_job(job: str, folder: Path) -> Callable[[], float | list]:
    import minilora as ml
    from minilora.training.parallel import loss_and_gradients

    kind, rows = job.split()
    model = ml.load_model(folder)
    ids, targets = batch(kind, int(rows), model.config.vocab_size)
    if kind == "generate":
        return lambda: ml.generate(model, ids[:, :PROMPT], NEW, temperature=0).tolist()
    if kind != "full":
        wanted = ml.LoraConfig(r=R, lora_alpha=SCALE * R, target_modules="all-linear")
        ml.add_adapter(model, wanted, rng=np.random.default_rng(0))
    params = model.trainable_parameters()
    optimizer = ml.AdamW(params, **ADAMW)

    def step() -> float:
        loss, gradients = loss_and_gradients(model, params, ids, targets)
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def transformers_job(job: str, folder: Path) -> Callable[[], float | list]:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.nn.functional import cross_entropy

    kind, rows = job.split()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    arrays = batch(kind, int(rows), model.config.vocab_size)
    ids, targets = (torch.from_numpy(array) for array in arrays)
    if kind == "generate":
        options = dict(do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW, pad_token_id=0)
        start = ids[:, :PROMPT]
        mask = torch.ones_like(start)
        return lambda: model.generate(start, attention_mask=mask, **options).tolist()
    if kind != "full":
        wanted = LoraConfig(
            r=R, lora_alpha=SCALE * R, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, wanted)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, **ADAMW)

    def step() -> float:
        logits = model(input_ids=ids, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


MAKERS = {"minilora": minilora_job, "transformers": transformers_job}
