"""Claims about weights that lie: headers, shards and an index are checked before numbers are read,
every lie is one sentence, and none makes a file cost more memory than twice its size."""

import json
import tracemalloc

import numpy as np
import pytest
from folders import adapt, make, read, rewrite, same
from safetensors.numpy import save_file

import minilora as ml
from minilora.hub import load_model, save_model
from minilora.hub.safetensors_files import read_safetensors
from minilora.system.errors import UsageError


def write(path, header, data=b""):
    """A safetensors file of a header, as it is or as JSON, and bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape, start, end, kind="F32"):
    return dict(dtype=kind, shape=shape, data_offsets=[start, end])


def twice(one, other):
    return b'{"a": %s, "a": %s}' % (json.dumps(one).encode(), json.dumps(other).encode())


ONE = entry([1], 0, 4)
HEADERS = {
    "65 dimensions": ({"a": entry([1] * 65, 0, 4)}, 4, "a has 65 dimensions"),
    "a name twice, two places": (twice(ONE, entry([1], 4, 8)), 8, "is damaged"),
    "a name twice, one place": (twice(entry([2], 0, 4, "F16"), ONE), 4, "it has 'a' twice"),
    "a name of a megabyte": ({"a" * 10**6: ONE}, 4, "'aaa.*aaa' is no name of a tensor"),
    "a name of two lines": ({"a\nb": ONE}, 4, r"'a\\nb' is no name"),
    "a name that colours the terminal": ({"\x1b[31m": ONE}, 4, r"'\\x1b\[31m' is no name"),
    "no name": ({"": ONE}, 4, "'' is no name of a tensor"),
    "overlapping": ({"a": ONE, "b": entry([1], 2, 6)}, 8, "invalid offset"),
    "bytes that belong to none": ({"a": ONE}, 5, "not fully covered"),
    "2**66 numbers": ({"a": entry([2**33, 2**33], 0, 4)}, 4, "overflow"),
    "half a number": ({"a": entry([0.5], 0, 2)}, 2, "is damaged"),
    "a list": (b"[1]", 0, "is damaged"),
    "lists in lists": (b"[" * 100_000, 0, "is damaged"),
    "a long header": (b"{" + b" " * 5_000_000 + b"}", 0, "a header of 5,000,002 bytes"),
    "many nothings": ({f"{i}": entry([0], 0, 0) for i in range(70_000)}, 0, "a header of"),
    "eight bits": ({"a": entry([4], 0, 4, "F8_E4M3")}, 4, "a in .* stored as F8_E4M3.* float32"),
    "an unknown kind": ({"a": entry([4], 0, 4, "F31")}, 4, "is damaged"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused_in_one_short_sentence(name, tmp_path):
    header, size, sentence = HEADERS[name]
    path = write(tmp_path / "file.safetensors", header, bytes(size))
    tracemalloc.start()
    with pytest.raises(UsageError, match=sentence) as raised:
        read_safetensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(raised.value)
    assert "file.safetensors" in text and text.isprintable() and len(text) < 400
    assert peak < 2 * path.stat().st_size + 2_000_000


def test_numbers_none_and_single_ones_are_tensors_too(tmp_path):
    header = {"none": entry([0, 10**12], 0, 0), "one": entry([], 0, 4)}
    found = read_safetensors(write(tmp_path / "x.safetensors", header, np.float32(3).tobytes()))
    assert found["none"].shape == (0, 10**12) and found["one"] == 3


def in_shards(folder, places):
    """The model saved in a folder as shards, {shard: its tensors}, and an index of all."""
    tensors = read(folder)[1]
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    for i, shard in enumerate(places):
        save_file({key: tensors[key] for key in names[i :: len(places)]}, folder / shard)
    index = {key: places[i % len(places)] for i, key in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=index)))
    return index


SHARDS = ["one.safetensors", "two.safetensors"]
WTE, WPE = "transformer.wte.weight", "transformer.wpe.weight"


def add(folder, shard, **tensors):
    held = {key: np.array(value) for key, value in read_safetensors(folder / shard).items()}
    save_file(held | tensors, folder / shard)


def other_numbers(folder, index):
    key = next(key for key, shard in index.items() if shard == SHARDS[0])
    add(folder, SHARDS[1], **{key: np.zeros(3, np.float32)})


def unlisted(folder, index):
    add(folder, SHARDS[0], extra=np.zeros(3, np.float32))


def wrong_shard(folder, index):
    index[WTE] = next(shard for shard in SHARDS if shard != index[WTE])


LIES = {
    "a tensor in the wrong shard": (wrong_shard, f"index.json places '{WTE}' in .* lacks it"),
    "a tensor nowhere": (lambda _, i: i.update(x=SHARDS[0]), "places 'x' in one.* lacks it"),
    "a tensor not listed": (unlisted, "index.json does not name extra, which is in .*one.safe"),
    "other numbers in two shards": (other_numbers, "in .*one.safetensors is not what .*two.safe"),
    "a way out": (lambda _, i: i.update({WTE: "../one.safetensors"}), r"'\.\./one.*no file beside"),
    "no name": (lambda _, i: i.update({WTE: ".."}), r"in '\.\.', no file beside"),
    "a number for a shard": (lambda _, i: i.update({WTE: 3}), "must be a text, got 3"),
    "a shard that is not there": (
        lambda _, i: i.update({WTE: "x.safetensors"}),
        "x.safetensors: there is no such",
    ),
    "an empty index": (lambda _, i: i.clear(), "weight_map must be .* not empty"),
}


@pytest.mark.parametrize("name", LIES)
def test_an_index_that_contradicts_its_shards_is_refused(name, tmp_path):
    save_model(make(), tmp_path)
    index = in_shards(tmp_path, SHARDS)
    lie, sentence = LIES[name]
    lie(tmp_path, index)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=index)))
    with pytest.raises((UsageError, FileNotFoundError), match=sentence):
        load_model(tmp_path)


def test_the_same_tensor_in_two_shards_is_accepted(tmp_path):
    model = make()
    save_model(model, tmp_path)
    index = in_shards(tmp_path, SHARDS)
    add(tmp_path, SHARDS[1], **{WTE: model.tok_embed.weight.data})
    assert index[WTE] in SHARDS
    assert same(load_model(tmp_path).state_dict(), model.state_dict())


SIZES = {  # what a config.json may claim of a model of a few kilobytes
    "gpt2": [("vocab_size", 10**12), ("n_layer", 10**5), ("n_layer", 28), ("n_embd", 10**300)]
    + [("n_positions", 10**12), ("n_inner", 10**12)],
    "llama": [("num_attention_heads", 10**9), ("head_dim", 10**9), ("num_hidden_layers", 20)]
    + [("num_key_value_heads", 10**9), ("intermediate_size", 10**12), ("vocab_size", 10**15)],
}


@pytest.mark.parametrize(
    ("kind", "key", "value"), [(kind, *one) for kind, some in SIZES.items() for one in some]
)
def test_sizes_are_compared_with_the_header_before_anything_is_made(
    kind, key, value, tmp_path, monkeypatch
):
    save_model(make(kind), tmp_path)
    rewrite(tmp_path, config={key: value})
    monkeypatch.setattr(ml.Transformer, "__init__", lambda *_, **__: pytest.fail("was made"))
    tracemalloc.start()
    with pytest.raises(UsageError) as raised:
        load_model(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 and "config.json" in str(raised.value)
    assert len(str(raised.value).replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_a_model_takes_at_most_twice_its_file(dtype, tmp_path):
    save_model(make(vocab_size=20_000), tmp_path)
    rewrite(tmp_path, tensors={k: v.astype(dtype) for k, v in read(tmp_path)[1].items()})
    size = (tmp_path / "model.safetensors").stat().st_size
    tracemalloc.start()
    load_model(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size + 500_000


def test_a_file_that_does_not_fit_its_config_is_refused_unread(tmp_path):
    save_model(make(vocab_size=20_000), tmp_path)
    rewrite(tmp_path, tensors={k: v.astype("<f2") for k, v in read(tmp_path)[1].items()})
    rewrite(tmp_path, config=dict(vocab_size=20_001))
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"\(20000, 8\) where \(20001, 8\) is needed"):
        load_model(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_adapter_takes_what_its_file_takes_however_large_the_model(kind, tmp_path):
    sizes = dict(n_embd=256, n_head=4, mlp_hidden=512)
    ml.save_adapter(adapt(make(kind, **sizes), target_modules="all-linear"), tmp_path)
    model = make(kind, **sizes)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    tracemalloc.start()
    ml.load_adapter(model, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size + 400_000  # the model has 4 MB
