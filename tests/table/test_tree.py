"""Claims about `print(model)`: the tree of modules, what each holds and what of it trains."""

import re

import numpy as np
import pytest
from builders import adapted, tiny

import minilora as ml
from minilora.module import Module
from minilora.nn import Linear
from minilora.transformer import Transformer, TransformerConfig

TREE = """\
                                                                   parameters  train
Transformer                                                           421,376  4,096
  tok_embed: Embedding(96 ids, 128)                                    12,288      0
  pos_embed: Embedding(64 ids, 128)                                     8,192      0
  layers: ModuleList                                                  400,640  4,096
    0-1: 2 x Block                                                    200,320  2,048
      attn_norm: LayerNorm                                                256      0
      attn: Attention                                                  68,096  2,048
        q_proj: LoraLinear(128 -> 128, default: r=4, s=2, active)      17,536  1,024
        k_proj: Linear(128 -> 128)                                     16,512      0
        v_proj: LoraLinear(128 -> 128, default: r=4, s=2, active)      17,536  1,024
        o_proj: Linear(128 -> 128)                                     16,512      0
      mlp_norm: LayerNorm                                                 256      0
      mlp: MLP                                                        131,712      0
        up_proj: Linear(128 -> 512)                                    66,048      0
        down_proj: Linear(512 -> 128)                                  65,664      0
  norm: LayerNorm                                                         256      0"""


def test_the_tree_of_an_adapted_model():
    model = ml.load_model("docs-tiny")
    config = ml.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    assert repr(model) == str(model) == TREE


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_numbers_of_a_line_are_those_of_its_module(family):
    model = adapted(family, target_modules=["q_proj"])
    first, *lines = repr(model).splitlines()
    assert first.split() == ["parameters", "train"]
    total, trained = lines[0].split()[-2:]
    assert int(total.replace(",", "")) == sum(p.size for p in model.parameters())
    assert int(trained.replace(",", "")) == sum(p.size for p in model.trainable_parameters())
    q_proj = model.layers[0].attn.q_proj
    (line,) = [line for line in lines if "q_proj" in line]
    for printed, ps in zip(
        line.split()[-2:], (q_proj.parameters(), q_proj.trainable_parameters()), strict=True
    ):
        assert printed == f"{sum(p.size for p in ps):,}"


def test_layers_that_differ_are_listed_apart_and_their_neighbours_together():
    model = tiny(n_layer=5)
    config = ml.LoraConfig(r=2, target_modules=["layers.2.attn.q_proj"])
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    lines = [line.strip() for line in repr(model).splitlines()]
    blocks = [re.split(r"\s{2,}", line)[0] for line in lines if "Block " in line]
    assert blocks == ["0-1: 2 x Block", "2: Block", "3-4: 2 x Block"]


def test_what_has_a_name_is_never_folded_though_it_be_alike():
    text = repr(tiny())
    assert all(f"{name}_proj: Linear(16 -> 16)" in text for name in "qkvo")


def test_lists_side_by_side_are_not_mixed():
    class Two(Module):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.a = [Linear(2, 2, rng=rng) for _ in range(2)]
            self.b = [Linear(2, 2, rng=rng), Linear(2, 3, rng=rng)]

    names = [line.split()[0] for line in repr(Two()).splitlines()[2:]]
    assert names == ["a.0-1:", "b.0:", "b.1:"]


def test_a_model_of_12_layers_fits_a_screen_and_every_console():
    sizes = dict(vocab_size=5, block_size=4, n_layer=12, n_head=2, n_embd=4)
    model = Transformer(TransformerConfig(**sizes), rng=np.random.default_rng(0))
    text = repr(model)
    assert len(text.splitlines()) <= 25 and max(map(len, text.splitlines())) <= 80
    assert text.isascii() and "0x" not in text


def test_an_empty_module_has_a_line():
    assert repr(Module()).split() == ["parameters", "train", "Module", "0", "0"]
