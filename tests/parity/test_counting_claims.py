"""What the cards on counting and on published texts say of PEFT is so there."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
load_file = pytest.importorskip("safetensors.torch").load_file

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

D_IN, D_OUT, R = 48, 80, 4


class TwoLayers(torch.nn.Module):
    """One layer to adapt, with a bias, and a head that is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = torch.nn.Linear(D_IN, D_OUT), torch.nn.Linear(D_OUT, 5)

    def forward(self, x):
        return self.head(self.layer(x))


def adapted(model, **options):
    return peft.get_peft_model(model, peft.LoraConfig(**options))


def two_layers(**options):
    return adapted(TwoLayers(), **{"r": R, "target_modules": ["layer"]} | options)


def trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def full_size(family, **sizes):
    """A model of full width without memory for its numbers."""
    config = getattr(transformers, f"{family}Config")(**sizes)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


LLAMA_3_8B = dict(
    hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=1,
    intermediate_size=14336,
)  # fmt: skip


@pytest.mark.parametrize(
    ("family", "sizes", "r", "targets", "numbers"),
    [
        ("Llama", {}, 8, ["q_proj", "v_proj"], 4_194_304),  # the defaults are Llama-2-7B's
        ("GPT2", {}, 8, ["c_attn"], 294_912),
        ("Llama", LLAMA_3_8B, 16, ["v_proj"], 81_920),
    ],
)
def test_peft_trains_as_many_numbers_as_the_cards_say(family, sizes, r, targets, numbers):
    model = adapted(full_size(family, **sizes), r=r, target_modules=targets)
    assert trained(model) == numbers


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, 0),
        ({"use_dora": True}, D_OUT),
        ({"bias": "lora_only"}, D_OUT),
        ({"bias": "all"}, D_OUT + 5),
        ({"modules_to_save": ["head"]}, 5 * D_OUT + 5),
        ({"lora_bias": True}, D_OUT),
    ],
)
def test_an_option_adds_what_the_cards_say(options, more):
    assert trained(two_layers(**options)) == R * (D_IN + D_OUT) + more


def test_a_rank_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive"):
        two_layers(r=0)


def test_the_file_holds_the_transposes_in_four_bytes_a_number(tmp_path):
    model = two_layers()
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    lora_A, lora_B = (array for _, array in sorted(load_file(file).items()))
    assert (lora_A.shape, lora_B.shape) == ((R, D_IN), (D_OUT, R))
    assert 4 * trained(model) < file.stat().st_size < 4 * trained(model) + 1000


@pytest.mark.skipif(not peft.__version__.startswith("0.21"), reason="the card is about PEFT 0.21")
@pytest.mark.parametrize(("rslora", "longer"), [(False, 1), (True, R**0.5)])
def test_one_adapter_combined_with_weight_one(rslora, longer):
    model = two_layers(lora_alpha=6, use_rslora=rslora, init_lora_weights=False)
    model.base_model.add_weighted_adapter(["default"], [1.0], "combined", combination_type="cat")
    layer = model.base_model.model.layer
    lengths = [layer.get_delta_weight(name).norm().item() for name in ("combined", "default")]
    assert lengths[0] / lengths[1] == pytest.approx(longer)
