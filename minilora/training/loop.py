"""The training loop, its evaluations, and what Ctrl-C does.

For every method the loop is these eight lines, which may be written by hand:

    for i in range(steps):
        ids, targets = batch(np.random.default_rng((seed, i)))
        loss = ml.cross_entropy(model(ids), targets)
        loss.backward()
        ml.clip_grad_norm(params, 1.0)
        optimizer.lr = lr * ml.warmup_cosine(i, steps)
        optimizer.step()
        optimizer.zero_grad()

Pretraining, full fine-tuning, LoRA and all others differ only in which parameters are trainable.
A `Training` is this loop, to be stepped by hand; `run` steps several in turn, so that two methods
are timed under the same conditions and seen to learn side by side; `train` is for one. They add
what is no idea of training's: checkpoints, evaluations, a progress bar, Ctrl-C, two cores
(parallel.py), one thread for BLAS, and memory that is not given back between two steps, without
which every new array costs page faults (in a loop of one's own: ml.keep_freed_memory()).

Everything random in step i comes from a generator seeded with (seed, i). So both methods see the
same batches, and a run that was killed goes on from its checkpoint exactly as if it had not been.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.nn import Module
from minilora.optim import AdamW, check_adam, clip_grad_norm, warmup_cosine
from minilora.system.checks import require_positive, require_whole
from minilora.system.cores import one_blas_thread, usable_cores
from minilora.system.errors import MiniloraError, StateError, UsageError
from minilora.system.memory import keep_freed_memory
from minilora.text.windows import Batch
from minilora.training.checkpoint import (
    History,
    damaged,
    file_to_write,
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)
from minilora.training.parallel import SHARDS, loss_and_gradients, threads_for_shards
from minilora.training.progress import progress_bar
from minilora.transformer import Transformer

if TYPE_CHECKING:
    from concurrent.futures import Executor

Evaluate = Callable[[Transformer], float]


class DivergedError(MiniloraError, ArithmeticError):
    """The loss or its gradient is no longer a finite number."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C came; what there was to save is saved."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Each step's rate is lr times warmup_cosine's factor, which rises for `warmup`
    steps and falls to a tenth; clip is the highest joint length of the gradient (math.inf: none);
    betas and weight_decay are AdamW's. LoRA+ (Hayou et al. 2024) trains every B at
    loraplus_lr_ratio times the rate. Raises ValueError for numbers that make no sense."""

    steps: int
    lr: float
    warmup: int = 20
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    seed: int = 0
    loraplus_lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        require_whole(1, steps=self.steps)
        require_whole(0, warmup=self.warmup, seed=self.seed)
        require_positive(lr=self.lr, loraplus_lr_ratio=self.loraplus_lr_ratio)
        if self.clip != math.inf:
            require_positive(clip=self.clip)
        check_adam(self.betas, self.weight_decay)
        plain: dict[str, Any] = {
            name: int(vars(self)[name]) for name in ("steps", "warmup", "seed")
        }
        for name in ("lr", "weight_decay", "clip", "loraplus_lr_ratio"):
            plain[name] = float(vars(self)[name])
        plain["betas"] = tuple(float(beta) for beta in self.betas)
        for name, value in plain.items():  # NumPy's numbers become Python's, which JSON can write
            object.__setattr__(self, name, value)


class Training:
    """A model on its way: `step()` until `done`, `save()` whenever.

    batch: draws (ids, targets), int (B, T) each, with the generator it is given, as what
    corpus.batches(B, T) returns.
    evaluate: measured every `evaluate_every` steps and at both ends, into history.evaluations.
    checkpoint: a file to save to every `save_every` steps; if it is there already, and of this very
    run, training goes on from it.
    identity: stands for what the batches are drawn from, such as a checksum of a text, so that a
    run does not go on with another.
    Raises ValueError if an argument cannot be meant, if nothing in the model is trainable, and for
    a checkpoint that is of another run, or damaged; the model is then as it was.
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
        checkpoint: str | os.PathLike[str] | None = None,
        save_every: int = 100,
        identity: str = "",
    ) -> None:
        _check_training(model, batch, config, evaluate, evaluate_every, save_every)
        keep_freed_memory()
        self.model, self.batch, self.config, self.name = model, batch, config, name
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.checkpoint = None if checkpoint is None else file_to_write(checkpoint)
        self.save_every = save_every
        self.history = History()
        self._saved_step: int | None = None
        self._identity: dict[str, Any] = {}
        if self.checkpoint:
            self._identity = fingerprint(model, asdict(config), *self._draw(0), identity)
        self.params = model.trainable_parameters()
        arrays = [p.data for p in self.params]
        self.optimizer = AdamW(
            self.params,
            config.lr,
            config.betas,
            weight_decay=config.weight_decay,
            lr_factors=_lr_factors(model, config.loraplus_lr_ratio),
        )
        if self.checkpoint and self.checkpoint.exists():
            try:
                self._resume()
            except BaseException:  # the optimizer had given them its own arrays
                for p, array in zip(self.params, arrays, strict=True):
                    p.data = array
                raise

    @property
    def steps_done(self) -> int:
        return len(self.history.losses)

    @property
    def done(self) -> bool:
        return self.steps_done >= self.config.steps

    @np.errstate(over="ignore", invalid="ignore")  # it ends in DivergedError
    def step(self, pool: Executor | None = None) -> float:
        """One step, its shards in the threads of `pool` if there is one; returns the loss before
        it. Raises DivergedError instead of making an update that is not finite, so the parameters
        stay as they were; ValueError if the model came with weights that are not finite."""
        c, i = self.config, self.steps_done
        if self.done:
            raise StateError(f"{self.name} is at its end: all {c.steps} steps are done")
        if i == 0 and not self.history.evaluations:
            self._evaluate()
        began = time.perf_counter()
        ids, targets = self._draw(i)
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
            raise self._divergence(loss)
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

    def save(self) -> None:
        """Write parameters, moments and history to the checkpoint file, if there is one. Numbers
        that are not finite do not replace it."""
        if self.checkpoint is None:
            return
        state = self.optimizer.state()
        if not all(np.isfinite(array).all() for array in state.values()):
            return
        write_checkpoint(self.checkpoint, self._identity, self.history, state)
        self._saved_step = self.steps_done

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.batch(np.random.default_rng((self.config.seed, step)))
        if not isinstance(drawn, tuple | list) or len(drawn) != 2:
            raise UsageError(f"batch must return (ids, targets), got a {type(drawn).__name__}")
        ids, targets = np.asarray(drawn[0]), np.asarray(drawn[1])
        whole = ids.dtype.kind in "iu" and targets.dtype.kind in "iu"
        if not whole or ids.ndim != 2 or ids.shape != targets.shape or not ids.size:
            raise UsageError(
                "batch must return ids and targets, whole numbers of one shape (B, T), B and T at "
                f"least 1; got {ids.dtype} {ids.shape} and {targets.dtype} {targets.shape}"
            )
        return ids, targets

    def _evaluate(self) -> None:
        if not self.evaluate:
            return
        value = self.evaluate(self.model)
        try:
            self.history.evaluations.append((self.steps_done, float(value)))
        except (TypeError, ValueError):
            raise UsageError(f"evaluate must return a number, got {value!r}") from None

    def _divergence(self, loss: float) -> Exception:
        """The error to raise: before the first update, the learning rate is not to blame."""
        bad = [k for k, p in self.model.named_parameters() if not np.isfinite(p.data).all()]
        if self.steps_done == 0 and bad:
            return UsageError(
                f"{self.name}: the model came with weights that are not finite numbers, in "
                f"{bad[0]}{f' and {len(bad) - 1} others' if bad[1:] else ''}; load it anew"
            )
        what = f"{self.name}: the loss is {loss} at step {self.steps_done}"
        if self.steps_done == 0:
            return DivergedError(
                f"{what} and its gradient is not finite, before any update: the model's weights "
                "are finite, but too large to compute with"
            )
        kept = "no checkpoint was kept"
        if self._saved_step is not None:
            kept = f"the last good checkpoint, {self.checkpoint}, is of step {self._saved_step}"
        return DivergedError(
            f"{what} and its gradient is not finite; {kept}. "
            f"Use a learning rate below {self.config.lr:g}"
        )

    def _resume(self) -> None:
        assert self.checkpoint is not None
        history, state = read_checkpoint(self.checkpoint, self._identity)
        done, steps = len(history.losses), self.config.steps
        if done > steps:
            raise damaged(self.checkpoint, f"it has {done} steps, and the run {steps}")
        try:
            self.optimizer.load_state(state)
        except UsageError as error:
            raise damaged(self.checkpoint, error) from None
        self.history, self._saved_step = history, len(history.losses)


def train(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    threads: int | None = None,
    *,
    name: str = "training",
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 100,
    quiet: bool = False,
) -> History:
    """Train the trainable parameters of `model`, with a progress bar that bears `name`.

    batch, evaluate, evaluate_every, checkpoint, save_every: see Training.
    threads: how many compute a batch together (default: two, where there are two cores).
    quiet: no progress bar; there is none either where output is not shown to a person.
    Raises DivergedError if the loss stops being finite, TrainingInterrupted on Ctrl-C.
    """
    training = Training(
        model,
        batch,
        config,
        name=name,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        checkpoint=checkpoint,
        save_every=save_every,
    )
    run([training], threads, quiet)
    return training.history


def run(
    trainings: Iterable[Training],
    threads: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Step all trainings in turn to their end, a progress bar for each.

    threads: see parallel.py; the results do not depend on it. say: told every tenth of the way
    where no bar is shown, so that a pipe or a log hears something. On Ctrl-C the step under way is
    finished, everything is saved, and TrainingInterrupted says how to go on. Raises ValueError for
    trainings that would undo each other: of one model, or with one checkpoint.
    """
    if threads is not None:
        require_whole(1, threads=threads)
    trainings = _check_together(trainings)
    workers = min(usable_cores() if threads is None else threads, SHARDS)
    bars = [
        progress_bar(t.name, t.steps_done, t.config.steps, i, quiet)
        for i, t in enumerate(trainings)
    ]
    try:
        with (
            _ctrl_c_sets_a_flag() as interrupted,  # first: it lets the others begin and end
            one_blas_thread(),
            threads_for_shards(workers) as pool,
        ):
            while not all(t.done for t in trainings):
                for training, bar in zip(trainings, bars, strict=True):
                    if not training.done:
                        bar.set_postfix(loss=f"{training.step(pool):.3f}", refresh=False)
                        bar.update()
                if say and bars[0].disable:
                    _say_losses(trainings, say)
                if interrupted.is_set():
                    raise TrainingInterrupted(_stop(trainings))
    finally:
        for bar in bars:
            bar.close()


def _check_training(
    model: Any, batch: Any, config: Any, evaluate: Any, evaluate_every: Any, save_every: Any
) -> None:
    if not isinstance(model, Module):
        raise UsageError(f"model must be a model, such as load_model() returns, got {model!r}")
    if not callable(batch):
        raise UsageError(
            "batch must be a function that draws with a generator, such as "
            f"corpus.batches(12, 64), got a {type(batch).__name__}"
        )
    if not isinstance(config, TrainConfig):
        raise UsageError(f"config must be a TrainConfig(steps=..., lr=...), got {config!r}")
    if evaluate is not None and not callable(evaluate):
        raise UsageError(f"evaluate must be a function of the model, got {evaluate!r}")
    require_whole(0, evaluate_every=evaluate_every)
    require_whole(1, save_every=save_every)
    if evaluate_every and evaluate is None:
        raise UsageError(f"evaluate_every={evaluate_every} needs evaluate, a function of the model")


def _check_together(trainings: Any) -> Sequence[Training]:
    if isinstance(trainings, Training) or not isinstance(trainings, Iterable):
        raise UsageError(f"run takes a list of Trainings, got one {type(trainings).__name__}")
    found = list(trainings)
    if not found or not all(isinstance(t, Training) for t in found):
        raise UsageError("run takes a list of Trainings, one at least")
    files = [t.checkpoint for t in found if t.checkpoint]
    for what, ids in (("model", [id(t.model) for t in found]), ("checkpoint", files)):
        if len(set(ids)) < len(ids):
            raise UsageError(
                f"two of these trainings have the same {what}, which only one can have"
            )
    return found


def _lr_factors(model: Transformer, ratio: float) -> list[float] | None:
    if ratio == 1:
        return None
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return [ratio if ".adapters." in name and name.endswith(".B") else 1.0 for name in trained]


def _say_losses(trainings: Sequence[Training], say: Callable[[str], None]) -> None:
    under_way = next((t for t in trainings if not t.done), trainings[0])
    done, steps = under_way.steps_done, under_way.config.steps
    if 10 * done // steps > 10 * (done - 1) // steps:
        losses = ", ".join(f"{t.name} {t.history.losses[-1]:.3f}" for t in trainings)
        say(f"step {done} of {steps}, loss: {losses}")


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
