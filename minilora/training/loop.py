"""The training loop: batch, loss, gradients, clip, AdamW, again.

One loop serves pretraining, full fine-tuning, LoRA and every other method; they differ only in
which parameters are trainable. A `Training` can be stepped by hand; `run` steps several in turn, so
that two methods are timed under the same conditions and seen to learn side by side.

Everything random in step i comes from a generator seeded with (seed, i). So both methods see the
same batches, and a run that was killed goes on from its checkpoint exactly as if it had not been.
Imports nn.py, optim.py, parallel.py, transformer.py, lora.py, files.py.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from minilora.lora import adapters
from minilora.nn import Rng
from minilora.optim import AdamW, clip_grad_norm, warmup_cosine
from minilora.system.cores import one_blas_thread, usable_cores
from minilora.system.errors import MiniloraError, UsageError
from minilora.system.files import write_atomically
from minilora.training.parallel import SHARDS, loss_and_gradients
from minilora.transformer import Transformer

Batch = Callable[[Rng], tuple[np.ndarray, np.ndarray]]
Evaluate = Callable[[Transformer], float]


class DivergedError(MiniloraError, ArithmeticError):
    """The loss or its gradient is no longer a finite number."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C came; what there was to save is saved."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Each step's rate is lr times warmup_cosine's factor, which rises for `warmup`
    steps and falls to a tenth; clip is the highest joint length of the gradient. LoRA+ (Hayou et
    al. 2024) trains every B at loraplus_lr_ratio times the rate."""

    steps: int
    lr: float
    warmup: int = 20
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    seed: int = 0
    loraplus_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, got {self.steps}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UsageError(f"lr must be a positive number, got {self.lr}")


@dataclass
class History:
    """What happened: every step's loss and seconds, and the evaluations as (step, value)."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def seconds_per_step(self) -> float:
        """The median, which a busy moment of the machine does not move."""
        return median(self.seconds) if self.seconds else math.nan


class Training:
    """A model on its way: `step()` until `done`, `save()` whenever.

    batch: draws (ids, targets), int (B, T) each, with the generator it is given.
    evaluate: measured every `evaluate_every` steps and at both ends, into history.evaluations.
    checkpoint: a file to save to every `save_every` steps; if it is there already, and of this very
    run, training goes on from it. Raises ValueError if it is of another run, or damaged.
    """

    def __init__(
        self,
        model: Transformer,
        batch: Batch,
        config: TrainConfig,
        *,
        name: str = "training",
        evaluate: Evaluate | None = None,
        evaluate_every: int = 0,
        checkpoint: Path | None = None,
        save_every: int = 100,
    ) -> None:
        self.model, self.batch, self.config, self.name = model, batch, config, name
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.checkpoint, self.save_every = checkpoint, save_every
        self.history = History()
        self._fingerprint = self._identify() if checkpoint else {}
        self.params = model.trainable_parameters()
        self.optimizer = AdamW(
            self.params,
            config.lr,
            config.betas,
            weight_decay=config.weight_decay,
            lr_factors=_lr_factors(model, config.loraplus_lr_ratio),
        )
        if checkpoint and checkpoint.exists():
            self._resume(checkpoint)

    @property
    def steps_done(self) -> int:
        return len(self.history.losses)

    @property
    def done(self) -> bool:
        return self.steps_done == self.config.steps

    @np.errstate(over="ignore", invalid="ignore")  # it ends in DivergedError
    def step(self, pool: Executor | None = None) -> float:
        """One step, its shards in the threads of `pool` if there is one; returns the loss before
        it. Raises DivergedError instead of making an update that is not finite, so the parameters
        stay as they were."""
        c, i = self.config, self.steps_done
        if i == 0 and not self.history.evaluations:
            self._evaluate()
        began = time.perf_counter()
        ids, targets = self.batch(np.random.default_rng((c.seed, i)))
        loss, gradients = loss_and_gradients(
            self.model,
            self.params,
            ids,
            targets,
            lambda shard: np.random.default_rng((c.seed, i, 1 + shard)),  # draws dropout, if any
            pool,
        )
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = g
        norm = clip_grad_norm(self.params, c.clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(self._describe_divergence(loss))
        self.optimizer.lr = c.lr * warmup_cosine(i, c.steps, c.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad()  # not kept alive through the next forward pass
        self.history.losses.append(loss)
        self.history.seconds.append(time.perf_counter() - began)
        if self.done or (self.evaluate_every and self.steps_done % self.evaluate_every == 0):
            self._evaluate()
        if self.done or self.steps_done % self.save_every == 0:
            self.save()
        return loss

    def _evaluate(self) -> None:
        if self.evaluate:
            self.history.evaluations.append((self.steps_done, self.evaluate(self.model)))

    def _describe_divergence(self, loss: float) -> str:
        kept = "no checkpoint was kept"
        if self.checkpoint and self.checkpoint.exists():
            kept = f"the last good checkpoint, {self.checkpoint}, is of step {_saved_step(self)}"
        return (
            f"{self.name}: the loss is {loss} at step {self.steps_done} and its gradient is not "
            f"finite; {kept}. Use a learning rate below {self.config.lr:g}"
        )

    def save(self) -> None:
        """Write parameters, moments and history to the checkpoint file, if there is one."""
        if self.checkpoint is None or not np.isfinite(self.optimizer.flat).all():
            return
        about = {
            "run": json.dumps(self._fingerprint),
            "history": json.dumps(asdict(self.history)),
        }
        state = self.optimizer.state()
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoint, lambda path: path.write_bytes(save(state, about)))

    def _identify(self) -> dict[str, Any]:
        """What makes this run this run: a checkpoint is used only where all of it agrees."""
        parameters = dict(self.model.named_parameters())
        weights = 0
        for p in parameters.values():
            weights = zlib.crc32(p.data.tobytes(), weights)
        ids, targets = self.batch(np.random.default_rng((self.config.seed, 0)))
        return {
            **json.loads(json.dumps(asdict(self.config))),
            "model": repr(self.model.config),
            "adapters": {name: repr(a.config) for name, a in adapters(self.model).items()},
            "trained parameters": [k for k, p in parameters.items() if p.requires_grad],
            "first weights": weights,
            "first batch": zlib.crc32(ids.tobytes() + targets.tobytes()),
        }

    def _resume(self, path: Path) -> None:
        state, run, history = _read_checkpoint(path)
        other = [key for key, value in self._fingerprint.items() if run.get(key) != value]
        if other:
            raise UsageError(
                f"{path} is the checkpoint of another run (it differs in: {', '.join(other)}); "
                "delete it, or choose another folder"
            )
        self.optimizer.load_state(state)
        self.history = history


def _lr_factors(model: Transformer, ratio: float) -> list[float] | None:
    if ratio == 1:
        return None
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return [ratio if ".adapters." in name and name.endswith(".B") else 1.0 for name in trained]


def _read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], History]:
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        history = json.loads(about["history"])
        history["evaluations"] = [tuple(pair) for pair in history["evaluations"]]
        return state, json.loads(about["run"]), History(**history)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is incomplete or damaged ({error}); delete it to start again"
        ) from None


def _saved_step(training: Training) -> int:
    assert training.checkpoint is not None
    return len(_read_checkpoint(training.checkpoint)[2].losses)


def train(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    threads: int | None = None,
    **options: Any,
) -> History:
    """Train the trainable parameters of `model`, with a progress bar; `options` are Training's.

    threads: how many compute a batch together (default: two, where there are two cores).
    Raises DivergedError if the loss stops being finite, TrainingInterrupted on Ctrl-C.
    """
    training = Training(model, batch, config, **options)
    run([training], threads)
    return training.history


def run(trainings: Sequence[Training], threads: int | None = None, quiet: bool = False) -> None:
    """Step all trainings in turn to their end, a progress bar for each.

    threads: see parallel.py; the results do not depend on it. On Ctrl-C the step under way is
    finished, everything is saved, and TrainingInterrupted says how to go on.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    workers = min(usable_cores() if threads is None else threads, SHARDS)
    bars = [
        tqdm(
            total=t.config.steps, initial=t.steps_done, desc=f"{t.name:<16}", position=i,
            disable=quiet or None, unit="step", dynamic_ncols=True,
        )
        for i, t in enumerate(trainings)
    ]  # fmt: skip
    try:
        with (
            one_blas_thread(),
            ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool,
            _ctrl_c_sets_a_flag() as interrupted,
        ):
            while not all(t.done for t in trainings):
                for training, bar in zip(trainings, bars, strict=True):
                    if not training.done:
                        bar.set_postfix(loss=f"{training.step(pool):.3f}", refresh=False)
                        bar.update()
                if interrupted.is_set():
                    raise TrainingInterrupted(_stop(trainings))
    finally:
        for bar in bars:
            bar.close()


def _stop(trainings: Sequence[Training]) -> str:
    for training in trainings:
        training.save()
    where = ", ".join(f"{t.name} at step {t.steps_done} of {t.config.steps}" for t in trainings)
    if all(t.checkpoint for t in trainings):
        return f"stopped: {where}. All is saved; the same command goes on from here"
    return f"stopped: {where}. There is no checkpoint file to go on from"


@contextmanager
def _ctrl_c_sets_a_flag() -> Iterator[threading.Event]:
    """A KeyboardInterrupt may strike in the middle of an update; a flag is looked at between steps.
    A second Ctrl-C interrupts at once. Python delivers signals to the main thread only."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
