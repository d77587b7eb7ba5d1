"""Claims about the two files of a folder: every number is read exactly, damage and what is missing
are said in a sentence, and a save that fails leaves the old files."""

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from folders import (
    FILES,
    C,
    adapt,
    contents,
    load_any,
    make,
    read,
    rewrite,
    same,
    same_logits,
)
from safetensors import deserialize
from safetensors.numpy import load_file, save_file

from minilora.hub import load_adapter, load_model, safetensors_files, save_adapter, save_model
from minilora.lora import adapters
from minilora.system import scratch
from minilora.system.errors import UsageError

BOTH = pytest.mark.parametrize("which", FILES)


def save_any(which, folder, seed=0):
    if which == "model":
        save_model(make(seed=seed), folder)
    else:
        save_adapter(adapt(make(), seed=seed), folder)


def write_bfloat16(path):
    """The file at path again, each number cut to the upper half of its bits, by hand."""
    header, data = {}, b""
    for key, array in load_file(path).items():
        half = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(half)]
        header[key] = dict(dtype="BF16", shape=list(array.shape), data_offsets=offsets)
        data += half
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bfloat16_is_widened_without_changing_a_number(tmp_path):
    model = make()
    save_model(model, tmp_path)
    write_bfloat16(tmp_path / "model.safetensors")
    content = deserialize((tmp_path / "model.safetensors").read_bytes())
    assert {info["dtype"] for _, info in content} == {"BF16"}
    mask = np.uint32(0xFFFF0000)
    cut = {k: (v.view(np.uint32) & mask).view("f4") for k, v in model.state_dict().items()}
    assert same(load_model(tmp_path).state_dict(), cut)


def test_float64_files_load_and_integers_are_refused_by_name(tmp_path):
    model = make()
    save_model(model, tmp_path)
    rewrite(tmp_path, tensors={k: v.astype(np.float64) for k, v in read(tmp_path)[1].items()})
    assert same(load_model(tmp_path).state_dict(), model.state_dict())
    rewrite(tmp_path, tensors={"transformer.ln_f.bias": np.zeros(C, np.int8)})
    with pytest.raises(ValueError, match=r"transformer.ln_f.bias.*I8.*save it as float32"):
        load_model(tmp_path)


def test_model_in_shards_loads(tmp_path):
    model = make()
    save_model(model, tmp_path)
    _, tensors = read(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = {key: shards[i % 2] for i, key in enumerate(tensors)}
    for shard in shards:
        save_file({k: tensors[k] for k in tensors if files[k] == shard}, tmp_path / shard)
    index.write_text(json.dumps(dict(weight_map=files)))
    assert same(load_model(tmp_path).state_dict(), model.state_dict())
    (tmp_path / shards[1]).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"cannot read .*{shards[1]}: there is no such file"
    ):
        load_model(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="index.json: lacks weight_map"):
        load_model(tmp_path)


@BOTH
def test_json_with_a_byte_order_mark_loads(which, tmp_path):
    save_any(which, tmp_path)
    config = tmp_path / FILES[which][0]
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    load_any(which, tmp_path)


@BOTH
def test_weights_cut_short_anywhere_are_damaged(which, tmp_path):
    save_any(which, tmp_path)
    path = tmp_path / FILES[which][1]
    whole = path.read_bytes()
    cuts = [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]
    for content in [*(whole[:length] for length in cuts), b"\xff" * 64]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"safetensors is damaged \(.*download it again"):
            load_any(which, tmp_path)


@BOTH
@pytest.mark.parametrize("text", [b"", b'{"n_embd": 8', b"[]", b"\xff\xfe{", b"null"])
def test_a_damaged_config_is_named(which, text, tmp_path):
    save_any(which, tmp_path)
    (tmp_path / FILES[which][0]).write_bytes(text)
    with pytest.raises(ValueError, match="config.json (is damaged|is not UTF-8|must be an object)"):
        load_any(which, tmp_path)


@BOTH
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "run git lfs pull"),
        ("<!DOCTYPE html><html>Please log in</html>", "web page, not the file: download it"),
    ],
)
def test_what_stands_in_for_a_file_is_recognised(which, part, text, sentence, tmp_path):
    save_any(which, tmp_path)
    (tmp_path / FILES[which][part]).write_text(text)
    with pytest.raises(ValueError, match=f"{FILES[which][part]} is a .*{sentence}"):
        load_any(which, tmp_path)


@BOTH
def test_missing_files_are_named_with_a_remedy(which, tmp_path):
    config, weights = FILES[which]
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_any(which, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"has no {config} and no {weights}$"):
        load_any(which, tmp_path)
    (tmp_path / weights.replace("safetensors", "bin")).touch()
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / config).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model.bin.* is a pickle.*save_pretrained"):
        load_any(which, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"is a file; give the folder that holds {config}"):
        load_any(which, tmp_path / config)
    (tmp_path / config).unlink()
    (tmp_path / weights).touch()
    with pytest.raises(FileNotFoundError, match=f"has no {config}$"):
        load_any(which, tmp_path)


def test_folder_of_the_other_kind_and_sub_folders_are_named(tmp_path):
    save_any("model", tmp_path / "model")
    for name in ("french", "german"):
        save_any("adapter", tmp_path / "adapters" / name)
    with pytest.raises(FileNotFoundError, match="it is an adapter: load its model, then load_ad"):
        load_model(tmp_path / "adapters" / "french")
    with pytest.raises(FileNotFoundError, match=r"it is a model: load_model\(folder\)"):
        load_adapter(make(), tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="these sub-folders of it have: french, german"):
        load_adapter(make(), tmp_path / "adapters")


class Interrupted(BaseException):
    """As KeyboardInterrupt: not an Exception."""


def interrupt_step(monkeypatch, nth):
    """Let writing a file or renaming it be interrupted, the nth time that one of them is done."""
    steps = []

    def interrupt(owner, name):
        real = getattr(owner, name)

        def step(path, content, *args, **kwargs):
            steps.append(name)
            if len(steps) == nth + 1:
                if name.startswith("write"):
                    real(path, content[: len(content) // 2], *args, **kwargs)
                raise Interrupted
            return real(path, content, *args, **kwargs)

        monkeypatch.setattr(owner, name, step)

    interrupt(Path, "write_bytes")
    interrupt(Path, "write_text")
    interrupt(os, "replace")
    return steps


@BOTH
@pytest.mark.parametrize(("nth", "step"), [*enumerate(["write_text", "write_bytes", "replace"])])
@pytest.mark.parametrize("before", ["nothing", "the same config", "another config"])
def test_interrupted_save_leaves_the_old_files_and_nothing_else(
    which, nth, step, before, tmp_path, monkeypatch
):
    if before != "nothing":
        save_any(which, tmp_path)
    if before == "another config":  # which is kept beside it, until the save is whole
        rewrite_config(tmp_path, FILES[which][0], odd=1)
        nth += 2
    before = contents(tmp_path)
    steps = interrupt_step(monkeypatch, nth)
    with pytest.raises(Interrupted):
        save_any(which, tmp_path, seed=5)
    monkeypatch.undo()
    assert steps[nth] == step
    assert contents(tmp_path) == before


@BOTH
def test_interrupted_first_save_leaves_nothing(which, tmp_path, monkeypatch):
    interrupt_step(monkeypatch, 3)
    with pytest.raises(Interrupted):
        save_any(which, tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == {}


def changed(seed):
    """A model and an adapter of which another seed has other options and other numbers."""
    model = make(seed=seed, norm_eps=1e-5 * (1 + seed), dropout=0.25)
    return adapt(make(), seed=seed, lora_alpha=2 + seed), model


def test_save_that_is_stopped_between_its_two_files_loads_as_the_new_one(tmp_path, monkeypatch):
    for seed in (0, 5):
        adapted, model = changed(seed)
        if seed == 5:
            config = contents(tmp_path)["config.json"], contents(tmp_path)["adapter_config.json"]
        for save, what in ((save_adapter, adapted), (save_model, model)):
            with monkeypatch.context() as patch:
                if seed == 5:
                    interrupt_step(patch, 5)
                    with pytest.raises(Interrupted):
                        save(what, tmp_path)
                else:
                    save(what, tmp_path)
    files = contents(tmp_path)
    assert (files["config.json"], files["adapter_config.json"]) == config  # still the old ones
    loaded, again = load_model(tmp_path), make()
    load_adapter(again, tmp_path)
    assert loaded.config == model.config and same(loaded.state_dict(), model.state_dict())
    assert same_logits(again, adapted)
    for folder in (tmp_path, tmp_path / "other"):  # the next save leaves what a first one leaves
        save_model(model, folder)
        save_adapter(adapted, folder)
    shutil.move(tmp_path / "other", tmp_path.with_name("other"))
    assert contents(tmp_path) == contents(tmp_path.with_name("other"))


def save_both(folder, seed):
    adapted, model = changed(seed)
    save_model(model, folder)
    save_adapter(adapted, folder)


def seed_in(folder):
    """The seed that made the model and the adapter in a folder, if each is of one save."""
    model, adapted = load_model(folder), make()
    load_adapter(adapted, folder)
    for seed in SEEDS:
        adapter, source = changed(seed)
        if same(model.state_dict(), source.state_dict()) and same_logits(adapted, adapter):
            assert model.config == source.config
            return seed
    raise AssertionError("parts of several saves")


SEEDS = (0, 5, 7)


@pytest.mark.parametrize("nth", range(8))
def test_save_that_is_stopped_after_one_that_was_killed_leaves_one_of_them(
    nth, tmp_path, monkeypatch
):
    save_both(tmp_path, 0)
    for seed, stopped in ((5, 5), (7, nth)):
        adapted, model = changed(seed)
        for save, what in ((save_model, model), (save_adapter, adapted)):
            with monkeypatch.context() as patch, suppress(Interrupted):
                interrupt_step(patch, stopped)
                save(what, tmp_path)
    assert seed_in(tmp_path) in (5, 7)
    save_both(tmp_path, 0)
    assert seed_in(tmp_path) == 0
    assert contents(tmp_path).keys() == {*FILES["model"], *FILES["adapter"]}


@pytest.mark.skipif(not scratch.LOCKS, reason="needs locks")
def test_of_two_saves_at_once_one_waits_for_the_other(tmp_path, monkeypatch):
    others, replace = [], os.replace

    def and_another_begins(path, place):
        replace(path, place)
        if place.name == "model.safetensors" and not others:
            others.append(Thread(target=save_model, args=(changed(7)[1], tmp_path)))
            others[0].start()
            others[0].join(0.2)  # unless it waits, it ends meanwhile

    monkeypatch.setattr(os, "replace", and_another_begins)
    save_model(changed(5)[1], tmp_path)
    others[0].join()
    monkeypatch.undo()
    left = load_model(tmp_path)
    assert left.config == changed(7)[1].config  # of the one that came last
    assert same(left.state_dict(), changed(7)[1].state_dict())
    assert contents(tmp_path).keys() == {*FILES["model"]}


@pytest.mark.parametrize("when", ["before the weights are read", "after it"])
def test_what_is_saved_while_it_is_loaded_is_of_one_save(when, tmp_path, monkeypatch):
    save_both(tmp_path, 0)
    begun, in_file = [], safetensors_files._in_file

    def in_file_and_save(path):
        tensors = in_file(path) if when == "after it" else None
        if path.name not in begun:
            begun.append(path.name)
            save_both(tmp_path, 5)
        return tensors or in_file(path)

    monkeypatch.setattr(safetensors_files, "_in_file", in_file_and_save)
    model, adapted = load_model(tmp_path), make()
    load_adapter(adapted, tmp_path)
    assert model.config == changed(5)[1].config
    assert same(model.state_dict(), changed(5)[1].state_dict())
    assert same_logits(adapted, changed(5)[0]) and len(begun) == 2


def test_a_folder_that_is_saved_to_all_the_time_is_said_to_be(tmp_path, monkeypatch):
    save_model(make(), tmp_path)
    in_file = safetensors_files._in_file

    def in_file_and_save(path):
        os.utime(path, ns=(0, len(reads)))
        reads.append(path)
        return in_file(path)

    reads = []
    monkeypatch.setattr(safetensors_files, "_in_file", in_file_and_save)
    with pytest.raises(UsageError, match="is being saved to all the time; load it once"):
        load_model(tmp_path)


def test_config_that_was_edited_by_hand_is_what_counts(tmp_path):
    for seed in (0, 5):  # the second save replaces the first
        adapted, model = changed(seed)
        save_model(model, tmp_path)
        save_adapter(adapted, tmp_path)
    assert contents(tmp_path).keys() == {*FILES["model"], *FILES["adapter"]}
    rewrite_config(tmp_path, "config.json", layer_norm_epsilon=0.5)
    rewrite_config(tmp_path, "adapter_config.json", lora_alpha=32)
    assert load_model(tmp_path).config.norm_eps == 0.5
    again = make()
    load_adapter(again, tmp_path)
    assert adapters(again)["default"].config.lora_alpha == 16  # of 4 in c_attn, 2 in q


def rewrite_config(folder, name, **options):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


@BOTH
def test_save_that_the_disk_refuses_names_the_file_and_leaves_the_old_ones(
    which, tmp_path, monkeypatch
):
    save_any(which, tmp_path)
    before = contents(tmp_path)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"cannot write .*{FILES[which][1]}: the disk is full; free"):
        save_any(which, tmp_path, seed=5)
    assert contents(tmp_path) == before


@BOTH
def test_save_into_a_file_is_refused(which, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; give a folder"):
        save_any(which, tmp_path / "file")
    with pytest.raises(OSError, match="cannot write .*inside: .*file is not a folder"):
        save_any(which, tmp_path / "file" / "inside")
    assert (tmp_path / "file").read_text() == "mine"


@BOTH
def test_folder_holds_two_files_only_and_can_be_moved(which, tmp_path):
    save_any(which, tmp_path / "a")
    assert contents(tmp_path / "a").keys() == set(FILES[which])
    shutil.move(tmp_path / "a", tmp_path / "b")
    load_any(which, str(tmp_path / "b"))
