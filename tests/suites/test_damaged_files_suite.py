"""Claims about the suite of damaged files: what it promises of a few, and that it finds faults."""

import warnings

import damaged_files
import numpy as np
import pytest
from damaged_files import KINDS, SUITE

from minilora.hub import load_adapter, load_model
from minilora.system.errors import UsageError

MODEL, ADAPTER = KINDS[0], next(kind for kind in KINDS if kind.name == "adapter (LoRA)")


def ends(kind, trials=12):
    """How the first trials of one kind of file end."""
    first = KINDS.index(kind)
    return {SUITE.trial(0, first + n * len(KINDS))[0] for n in range(trials)}


def one_number_off(folder, target):
    model = load_model(folder)
    model.parameters()[-1].data = model.parameters()[-1].data + np.float32(1e-6)
    return model


def half_loaded(folder, target):
    try:
        load_adapter(target, folder)
    except UsageError:
        target.parameters()[0].data.flat[0] += 1
        raise
    return target


def removing(folder, target):
    try:
        return load_model(folder)
    except UsageError:
        (folder / "config.json").unlink()
        raise


def too_late(folder, target):
    while True:
        pass


def too_large(folder, target):
    bytearray(2 << 20)
    raise UsageError(f"{folder}: no")


def warning(folder, target):
    warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)
    raise UsageError(f"{folder}: no")


def raising(text, kind=UsageError):
    def load(folder, target):
        raise kind(text.replace("FOLDER", f"{folder}"))

    return load


@pytest.mark.parametrize("trials", [3 * len(KINDS), pytest.param(3000, marks=pytest.mark.thorough)])
def test_what_is_loaded_is_what_the_file_says_and_all_else_is_refused(trials, capsys):
    assert SUITE.faults(SUITE.run(20, trials)) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "load", "fault"),
    [
        (MODEL, one_number_off, "silent wrong"),
        (ADAPTER, half_loaded, "half loaded"),
        (MODEL, removing, "half loaded"),
        (MODEL, too_late, "hang"),
        (MODEL, too_large, "memory"),
        (MODEL, warning, "NumPy warned"),
        (MODEL, raising("FOLDER", KeyError), "raw exception"),
        (MODEL, raising("FOLDER is damaged\nin two lines"), "not one sentence"),
        (MODEL, raising("it is damaged"), "names no file"),
        (MODEL, raising("FOLDER is refused always"), "refused although whole"),
    ],
)
def test_a_reader_with_a_fault_is_found_out(kind, load, fault, monkeypatch):
    monkeypatch.setattr(kind, "load", load)
    monkeypatch.setattr(damaged_files, "SECONDS", 1.0 if load is not too_late else 0.02)
    trials = 120 if fault == "refused although whole" else 12
    assert fault in ends(kind, trials)
