"""The numbers of the live model: docs-tiny, and its code adapter at several steps of training.

The adapter is trained when the page is made, by the recipe of `minilora compare`: nothing that is
shipped can become stale. All numbers are float16, as docs-tiny's file has them, in base64.

ΔW = s A B does not change if A's columns and B's rows are recombined, A B = (A M)(M⁻¹ B). Here they
are chosen by the SVD, ΔW = U Σ Vᵀ: A' = U √Σ and B' = √Σ Vᵀ, the strongest direction first. So the
best ΔW of rank k (Eckart & Young 1936) is that of the first k columns and rows, and
σ_i = ‖column i of A'‖ ‖row i of B'‖.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minilora.experiments.tuning import Tuned, set_up
from minilora.lora import get_delta_weight, lora_layers
from minilora.system.cores import one_blas_thread
from minilora.text.alphabet import ALPHABET, decode
from minilora.text.corpora import Corpus, load_corpus
from minilora.text.windows import WINDOW, spaced_windows
from minilora.training.progress import progress_bar
from minilora.training.quality import text_loss
from minilora.transformer import Transformer

WINDOWS = 8  # of 64 characters: on so many the page measures how well a model knows a text
STRENGTHS = tuple(i / 4 for i in range(13))  # 0 to 3: where the curves of the page have points
MARKS = (0, 5, 10, 20, 50, 100, 200, 300)  # the steps of training that the page can show


def live_data(marks: Sequence[int] = MARKS, quiet: bool = False) -> dict[str, Any]:
    """What live.js expects. marks: the steps of training to keep, in rising order."""
    tuned = set_up("code", "lora")
    texts = [load_corpus(name) for name in ("code", "prose")]
    adapters, curves = [], []
    with one_blas_thread(), progress_bar("code adapter", 0, marks[-1], 0, quiet) as bar:
        for mark in marks:
            while tuned.training.steps_done < mark:
                tuned.training.step()
                bar.update()
            adapters.append(_base64(_sorted_factors(tuned)))
            curves.append([_losses(tuned.model, text) for text in texts])
    config = tuned.base.config
    return {
        "alphabet": ALPHABET,
        "heads": config.n_head,
        "layers": config.n_layer,
        "block": config.block_size,
        "epsilon": config.norm_eps,
        "shapes": {name: list(p.shape) for name, p in tuned.base.named_parameters()},
        "weights": _base64(p.data for _, p in tuned.base.named_parameters()),
        "adapted": list(lora_layers(tuned.model)),
        "rank": tuned.row["r"],
        "steps": list(marks),
        "heldOut": [_windows(text) for text in texts],
        "strengths": STRENGTHS,
        "curves": curves,
        "adapters": adapters,
    }


def _sorted_factors(tuned: Tuned) -> Iterable[np.ndarray]:
    """A' (d_in, r) and B' (r, d_out) of one adapted layer after the other."""
    r = int(tuned.row["r"])
    for path in lora_layers(tuned.model):
        delta = get_delta_weight(tuned.model, path).astype(np.float64)
        U, S, Vt = np.linalg.svd(delta, full_matrices=False)
        root = np.sqrt(S[:r])
        yield U[:, :r] * root
        yield root[:, None] * Vt[:r]


def _losses(model: Transformer, text: Corpus) -> list[float]:
    """Nats per character on the windows of a text, at each of STRENGTHS."""
    adapters = [layer.adapters["default"] for layer in lora_layers(model).values()]
    trained, losses = [adapter.s for adapter in adapters], []
    for strength in (*STRENGTHS, 1):  # 1 last, as the training goes on from it
        for adapter, s in zip(adapters, trained, strict=True):
            adapter.s = strength * s
        losses.append(round(text_loss(model, text.test, WINDOWS), 4))
    return losses[:-1]


def _windows(corpus: Corpus) -> list[str]:
    """The windows on which ml.text_loss(model, corpus.test, WINDOWS) measures."""
    ids, targets = spaced_windows(corpus.test, WINDOWS, WINDOW - 1)
    return [decode([*row, last]) for row, last in zip(ids, targets[:, -1], strict=True)]


def _base64(arrays: Iterable[np.ndarray]) -> str:
    numbers = np.concatenate([array.ravel() for array in arrays]).astype("<f2")
    return base64.b64encode(numbers.tobytes()).decode("ascii")
