"""What the suites of determinism and of threads run: small jobs, each with a fingerprint of all it
made, to the bit.

A job is called with a seed, a number of threads and a folder of its own; on_step is called with
whatever is at hand whenever the job can be interrupted from within. Run as a script, this file does
one job under the conditions it is given as JSON, and prints the fingerprint.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import suite  # noqa: F401  (finds builders)
from builders import tiny

import minilora as ml
from minilora.experiments.comparison import compare as run_comparison
from minilora.experiments.sweeps import sweep as run_sweep
from minilora.experiments.tasks import load_task
from minilora.text.windows import random_windows

VARYING = ("seconds_per_step", "peak_memory_bytes", "cpu_seconds_per_step")  # the machine's
SIZES: dict[str, Any] = dict(vocab_size=96, block_size=16, n_layer=1, n_head=2, dropout=0.1)
TOKENS = np.random.default_rng(7).integers(96, size=3000)
STEPS = 8
OnStep = Callable[[Any], Any]


def nothing(what: Any) -> None:
    pass


def fingerprint(*things: Any) -> str:
    """Of arrays, files, and what JSON can hold: of all their bits."""
    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, np.ndarray):
            found.update(f"{thing.dtype}{thing.shape}".encode())
            found.update(thing.tobytes())
        elif isinstance(thing, Path):
            for file in sorted(thing.rglob("*.*")):
                found.update(file.name.encode() + file.read_bytes())
        else:
            found.update(json.dumps(thing).encode())
    return found.hexdigest()[:16]


def _training(
    seed: int, threads: int | None, folder: Path, on_step: OnStep, **lora: Any
) -> tuple[ml.Transformer, Any]:
    model = tiny(seed=seed, **SIZES)
    if lora:
        config = ml.LoraConfig(**dict(r=2, target_modules="all-linear", lora_dropout=0.1) | lora)
        ml.add_adapter(model, config, rng=np.random.default_rng(seed))

    def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        on_step(model)
        return random_windows(TOKENS, 32, 16, rng)  # 512 symbols: in two shards

    history = ml.train(
        model,
        batch,
        ml.TrainConfig(steps=STEPS, lr=1e-2, warmup=3, seed=seed),
        threads,
        evaluate=lambda model: float(model(batch(np.random.default_rng(0))[0]).data.sum()),
        evaluate_every=4,
        checkpoint=folder / "run.safetensors",
        save_every=3,
        quiet=True,
    )
    return model, history


def _trained(*args: Any, **lora: Any) -> str:
    model, history = _training(*args, **lora)
    weights = [p.data for p in model.parameters()]
    return fingerprint(history.losses, history.evaluations, *weights)


def full(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    return _trained(seed, threads, folder, on_step)


def lora(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    return _trained(seed, threads, folder, on_step, lora_alpha=8)


def dora(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    return _trained(seed, threads, folder, on_step, use_dora=True, init_lora_weights="pissa")


def files(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    """Train, save, load, merge, unmerge, save: all files that come of it."""
    made = folder / "made"
    model, _ = _training(seed, threads, folder, on_step, lora_alpha=8)
    ml.save_adapter(model, made / "adapter")
    other = tiny(seed=seed, **SIZES)
    ml.load_adapter(other, made / "adapter", "read")
    on_step(other)
    ml.merge_adapter(other)
    ml.unmerge_adapter(other)
    ml.save_adapter(other, made / "again", "read")
    on_step(other)
    ml.merge_and_unload(other)
    ml.save_model(other, made / "merged")
    return fingerprint(made)


def generation(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    """With the cache and past it, sampled and not, alone and in a batch; and a text."""
    model, rng = ml.load_model("docs-tiny"), np.random.default_rng(seed)
    prompts = rng.integers(0, model.config.vocab_size, (3, 40))
    sampled = ml.generate(model, prompts, 30, temperature=0.8, top_p=0.9, rng=rng, on_token=on_step)
    likely = ml.generate(model, prompts[:1], 10, temperature=0, on_token=on_step)
    text = ml.write(model, "def ", 40, seed=seed, on_text=on_step)
    with ml.no_grad():
        logits = model(prompts).data
    return fingerprint(sampled, likely, text, logits)


def compare(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    """Three methods side by side, with everything measured and saved."""
    task = replace(load_task("reverse"), examples=10)
    methods = ("full", "lora", "bitfit")
    entry = run_comparison(
        task, folder, methods=methods, seeds=[seed], steps=3, threads=threads, quiet=True
    )
    rows = [{k: v for k, v in row.items() if k not in VARYING} for row in entry.pop("runs")]
    saved = sorted(folder.glob("reverse-*"))
    return fingerprint(entry, rows, *saved)


def one_run(method: str, seed: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return [{"method": method, "made": JOBS[method](seed, 1, Path(folder))}]


def sweep(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    """Runs in so many processes."""
    settings = [{"method": method, "seed": seed} for method in ("lora", "full", "dora")]
    return fingerprint(run_sweep(one_run, settings, folder / "runs", jobs=threads, quiet=True))


def exam(seed: int, threads: int | None, folder: Path, on_step: OnStep = nothing) -> str:
    """A tiny model is taught and sits the exam."""
    from small_exam import FEW, write_chat_model

    from minilora.experiments import exam as exams

    exams.load_exam, exams.ANSWER = lambda: FEW, 3  # type: ignore[assignment]
    model = write_chat_model(folder / "model")
    (row,) = exams.exam_run("lora", seed, steps=2, model=model, threads=threads, quiet=True)
    return fingerprint({k: v for k, v in row.items() if k not in VARYING})


JOBS: dict[str, Callable[..., str]] = {
    job.__name__: job for job in (full, lora, dora, files, generation, compare, sweep, exam)
}


def do(name: str, seed: int, threads: int | None = None) -> str:
    """The fingerprint of a job, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return JOBS[name](seed, threads, Path(folder))


def _do_elsewhere(where: str, *args: Any) -> str:
    """In a thread, in a forked or spawned process, or right here."""
    if where == "here":
        return do(*args)
    if where == "thread":
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(do(*args)))
        thread.start()
        thread.join()
        return found[0]
    with multiprocessing.get_context(where).Pool(1) as pool:
        return pool.apply(do, args)


def main() -> None:
    asked = json.loads(sys.argv[1])
    for name in asked.get("before", ()):
        do(name, 5)
        np.random.seed(3)
        gc.collect()
    where, threads = asked.get("where", "here"), asked.get("threads")
    print(_do_elsewhere(where, asked["job"], asked["seed"], threads))


if __name__ == "__main__":
    main()
