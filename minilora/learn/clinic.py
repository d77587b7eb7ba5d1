"""The checkers of the bug clinic: ten training scripts, each with one silent fault.

An answer is a script that returns its diagnosis, a letter of FAULTS, and the model that it ships.
It is run on a model of three narrow blocks and a task of its own, and judged by what it does: how
it starts, what has moved in the end and how far, whether what is shipped is what was trained, and
how far the loss on each symbol of the answer fell. So any repair passes that repairs; one that only
looks different does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import minilora as ml
from minilora.learn.examination import (
    CONFIG,
    CONFIG_WITH_HEAD,
    FAULTS,
    RATE,
    Adam,
    Batches,
    Chart,
    Examples,
    length_of_change,
    nats,
    weights,
)
from minilora.learn.exercises import Yours, exercise, require, unpack
from minilora.lora_config import LoraConfig
from minilora.system.errors import how_many
from minilora.text.windows import IGNORE_INDEX
from minilora.transformer import Transformer, TransformerConfig

NAMED = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
_PROMPT, _ANSWER, _STEPS = 8, 4, 8
_FAR = 1.6  # times a sound run's length; twice the sound rate, with which words-tiny diverges
_NUMBERS = 3  # so few that in eight steps more is learned than which symbols may be answers
_END = 0  # after an answer; also fills up the row, as in words-tiny's tasks


def _tiny(own_head: bool) -> Transformer:
    config = TransformerConfig(
        vocab_size=1 + 2 * _NUMBERS, block_size=_PROMPT + _ANSWER, n_layer=3, n_head=2, n_embd=16,
        tie_embeddings=not own_head,
    )  # fmt: skip
    model = Transformer(config, rng=np.random.default_rng(0))
    head = model.head if own_head else model.tok_embed
    # large, so that a model that was never trained makes a difference between inputs
    for weight in (head.weight, model.pos_embed.weight):
        weight.data *= 20
    return model


def _draw(seed: int, rows: int = 8) -> Examples:
    """Prompts "abababab" of numbers from 1 to 3, and answers of the symbols 4 to 6, the first b + 3
    and then on in a circle, and the end; only answer and end count. No two places of an answer are
    alike, so that a target in the wrong place shows."""
    rng = np.random.default_rng((9, seed))
    a, b = rng.integers(1, 1 + _NUMBERS, size=(2, rows, 1))
    prompt, end = np.tile(np.hstack([a, b]), _PROMPT // 2), np.full((rows, 2), _END)
    answer = (b - 1 + np.arange(_ANSWER - 1)) % _NUMBERS + 1 + _NUMBERS
    text = np.hstack([prompt, answer, end])
    targets = text[:, 1:].copy()
    targets[:, : _PROMPT - 1] = IGNORE_INDEX
    targets[:, _PROMPT + _ANSWER - 1 :] = IGNORE_INDEX
    return text[:, :-1], targets


def _of_the_prompt(examples: Examples) -> Examples:
    """The same with the prompt's next numbers for targets, and not the answer's."""
    ids, _ = examples
    targets = np.full_like(ids, IGNORE_INDEX)
    targets[:, : _PROMPT - 1] = ids[:, 1:_PROMPT]
    return ids, targets


def _nats_by_symbol(model: Transformer, examples: Examples) -> list[float]:
    """The loss on each symbol of the answer."""
    ids, targets = examples
    places = range(_PROMPT - 1, _PROMPT + _ANSWER - 1)
    with ml.no_grad():
        logits = model(ids)
        return [ml.cross_entropy(logits[:, i], targets[:, i]).item() for i in places]


@dataclass(frozen=True)
class _Reference:
    """The base of a kind, and how far a sound script gets from it."""

    weights: dict[str, np.ndarray]
    losses: list[float]
    loss_on_prompt: float
    sound_losses: list[float]
    sound_loss_on_prompt: float
    length: float


@lru_cache
def _reference(kind: str) -> _Reference:
    config = {"all": CONFIG, "head": CONFIG_WITH_HEAD, "named": NAMED}[kind]
    chart, test = Chart(lambda: _tiny(kind == "head"), _STEPS), _draw(1000, 32)
    model = chart.load()
    base, losses = weights(model), _nats_by_symbol(model, test)
    loss_on_prompt = nats(model, _of_the_prompt(test))
    ml.add_adapter(model, config, rng=np.random.default_rng(3))
    optimizer = Adam(model.trainable_parameters(), RATE, chart)
    for ids, targets in _batches():
        ml.cross_entropy(model(ids), targets).backward()
        optimizer.step()
    return _Reference(
        base,
        losses,
        loss_on_prompt,
        sound_losses=_nats_by_symbol(model, test),
        sound_loss_on_prompt=nats(model, _of_the_prompt(test)),
        length=length_of_change(chart.at_end, base),
    )


@lru_cache
def _batches() -> Batches:
    return Batches(_draw(i) for i in range(_STEPS))


def _examined(yours: Yours, fault: str, kind: str = "all") -> None:
    """Require the diagnosis `fault` and a sound script. kind: which base, and what is adapted."""
    chart = Chart(lambda: _tiny(kind == "head"), _STEPS)
    with np.errstate(all="ignore"):  # a rate may be far too high
        result = yours(chart.load, _batches(), chart)
        diagnosis, shipped = unpack(result, "diagnosis, model")
        symptom = _symptom(chart, shipped, kind)
    said = diagnosis.strip() if isinstance(diagnosis, str) else f"a {type(diagnosis).__name__}"
    letters = {text.casefold(): letter for letter, text in FAULTS.items()}
    letter = letters.get(said.casefold(), said.upper())
    if symptom is None:
        how = f"the script is sound now; its diagnosis is {said!r}, and that was not the fault"
        require(letter == fault, how)
        return
    if letter not in FAULTS:  # a symptom would give the diagnosis away
        require(
            False, f"the diagnosis is {said!r}; expected a letter of the list, and a sound script"
        )
    if letter == fault:
        require(False, f"the diagnosis is right, but the script is not sound: {symptom}")
    require(False, f"{letter} is not the fault, and {symptom}")


def _symptom(chart: Chart, shipped: Any, kind: str) -> str | None:
    """What is unsound about a run, or None."""
    if chart.model is None or len(chart.rows) != _STEPS:
        made = how_many(len(chart.rows), "step")
        return f"it made {made}; expected one of Adam for each of {_STEPS} batches"
    if not isinstance(shipped, Transformer):
        return f"it ships a {type(shipped).__name__}; expected the model"
    base = _reference(kind).weights
    off = length_of_change(chart.at_start, base)
    if off > 1e-6:
        return (
            f"before the first step the model is {off:.2g} away from its base; expected no change"
        )
    for name, W in base.items():
        change = chart.at_end[name] - W
        if name == "head.weight" and kind == "head":
            if not np.any(change):
                return "the new head has not changed; expected it to be trained"
            continue
        if not name.endswith("_proj.weight"):
            if np.any(change):
                return f"{name} has changed; expected it to be frozen"
        elif not np.isfinite(change).all():
            return f"{name} is no finite number any more; expected a rate that is not too high"
        elif np.linalg.matrix_rank(change, tol=1e-4) > 8:
            return f"the change of {name} is of full rank; expected that of an adapter"
        elif not np.any(change) and _is_named(name, kind):
            return f"the change of {name} is zero; expected it to learn"
        elif np.linalg.matrix_rank(change, rtol=1e-3) == 1:
            return f"the change of {name} is of rank 1; expected rank {CONFIG.r}, as the adapter's"
    moved = np.array([row["moved"] for row in chart.rows])
    idle = np.sum(moved < 0.1 * moved.max())
    if idle >= _STEPS / 2:  # a schedule's slow start and end are fewer
        return f"{idle} of the {_STEPS} steps moved next to nothing; expected all of them to train"
    for factor in ("A", "B"):
        if len({row[factor] for row in chart.rows}) == 1:
            return f"{factor} is the same after every step; expected A and B to train"
    sound = _reference("all" if kind == "named" else kind).length
    length = length_of_change(chart.at_end, base)
    if length > _FAR * sound:
        return f"the change is {length:.1f} long; expected about {sound:.1f}, as in a sound run"
    return _shipping_symptom(chart, shipped, _reference(kind))


def _is_named(name: str, kind: str) -> bool:
    targets = NAMED.target_modules
    return kind != "named" or any(f".{one}." in name for one in targets)


def _shipping_symptom(chart: Chart, shipped: Transformer, of: _Reference) -> str | None:
    now, test = weights(shipped), _draw(1000, 32)
    trained, found = (length_of_change(one, of.weights) for one in (chart.at_end, now))
    off = length_of_change(now, chart.at_end)
    if off > 1e-3 * trained:
        return (
            f"training moved the model by {trained:.2f} from the base; what is shipped has moved "
            f"by {found:.2f} and is {off:.2f} away from that; expected the trained model"
        )
    on_prompt = nats(shipped, _of_the_prompt(test))
    if on_prompt < min(of.loss_on_prompt, of.sound_loss_on_prompt) - 0.4:
        return (
            f"the loss on the prompt fell from {of.loss_on_prompt:.2f} to {on_prompt:.2f}; "
            "expected only the answer to be learned"
        )
    by_symbol = zip(of.losses, _nats_by_symbol(shipped, test), of.sound_losses, strict=True)
    for i, (before, after, sound) in enumerate(by_symbol):
        if not after < before - 0.45 * (before - sound):
            return (
                f"the loss on symbol {i + 1} of {_ANSWER} of the answer went from {before:.2f} to "
                f"{after:.2f}; expected about {sound:.2f}"
            )
    return None


@exercise(
    hints=(
        "Which lengths stay at zero, and which gradients? What would each gradient need in order "
        "not to be zero?",
        "One line sets a factor to zero that has to be random: a point that no gradient leads away "
        "from. Without the loop A is random and B zero.",
    )
)
def script_1(yours: Yours) -> str:
    _examined(yours, "C")
    return "C: with A = B = 0 both gradients are zero for ever. One factor zero, the other random."


@exercise(
    hints=(
        "The curves are those of a sound run. Compare the two lengths of change: by which number "
        "do they differ, and where does this number come from?",
        "`get_delta_weight` gives s A B: s = alpha / r is in it already.",
    )
)
def script_2(yours: Yours) -> str:
    _examined(yours, "K")
    return "K: the change that was shipped was s times the one that was trained."


@exercise(
    hints=(
        "B has a gradient and stays zero. How many numbers are in the optimizer, and how many of "
        "them ever get a gradient?",
        "The order of a run: add the adapter, *then* ask for what trains.",
    )
)
def script_3(yours: Yours) -> str:
    _examined(yours, "F")
    return (
        "F: the optimizer was made before A and B were. PyTorch's would not have told you either."
    )


@exercise(
    hints=(
        "The gradients are as large as ever, but the loss on the answers falls slowly. What else "
        "is being learned?",
        "The batch brings targets in which every place but the answer holds -100. The script "
        "makes its own.",
    )
)
def script_4(yours: Yours) -> str:
    _examined(yours, "J")
    return "J: most of the loss was that of the prompt, which nobody asks the model to write."


@exercise(
    hints=(
        "All goes in the right direction. Compare the length of B with that of the sound run.",
        "The rate is full fine-tuning's. LoRA's is usually about ten times as large.",
    )
)
def script_5(yours: Yours) -> str:
    _examined(yours, "B")
    return (
        "B: nothing was broken but the rate. A slow run is the hardest fault to see in one curve."
    )


@exercise(
    hints=(
        "How many layers have an adapter? How many did whoever wrote the comment want?",
        "A regular expression may match a part of what was meant. Print the names: "
        "`[path for path, _ in model.named_modules()]`.",
    )
)
def script_6(yours: Yours) -> str:
    _examined(yours, "I", "named")
    return "I: of three names one matched. Look at the number of adapted layers in every run."


@exercise(
    hints=(
        "The curves are sound and what is shipped is not. How often does the change count there?",
        "After W has been given the change, the adapter is still active beside it. "
        "`ml.merge_and_unload(model)` does both.",
    )
)
def script_7(yours: Yours) -> str:
    _examined(yours, "L")
    return "L: what is shipped counted the adapter twice, in W and beside it."


@exercise(
    hints=(
        "Look at the gradients by block. Where do they end?",
        "`x.detach()` is a constant. A frozen layer needs no gradient of its own, but those below "
        "need the one that passes through it.",
    )
)
def script_8(yours: Yours) -> str:
    _examined(yours, "H")
    return "H: each block was cut off from the next one, so only the last one learned."


@exercise(
    hints=(
        "What is shipped is exactly the base, though training went well. Which adapter went well?",
        "`add_adapter` makes the new adapter the active one, and only the active one trains: "
        "`ml.set_adapter(model, name)`.",
    )
)
def script_9(yours: Yours) -> str:
    _examined(yours, "M")
    return "M: what was trained was the adapter that happened to be added last."


@exercise(
    hints=(
        "What is shipped differs a little in length and much in loss. What was trained beside A "
        "and B?",
        "The file takes only what has `.adapters.` in its name. The head was trained as well.",
    )
)
def script_10(yours: Yours) -> str:
    _examined(yours, "N", "head")
    return "N: the new head was trained, and is not in the file; the loaded model had a random one."
