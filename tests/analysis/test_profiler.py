"""Claims about the profiler: it changes nothing, puts everything back, and counts what is computed.

Times are compared with each other, never with a clock: a busy machine must not fail a test.
"""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rich.console import Console

from minilora import functional as F
from minilora import ops
from minilora.analysis.profiler import Profile, profile, profile_methods, profiled_step
from minilora.cli import main
from minilora.cli.terminal.tables import print_profile, profile_summary
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.optim import warmup_cosine
from minilora.plots import profile_figure
from minilora.tensor import Tensor, no_grad, record
from minilora.training.loop import TrainConfig, Training
from minilora.transformer import Transformer, TransformerConfig

B, T, V, C = 4, 8, 11, 16
GPT2 = dict(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=C)
LLAMA = GPT2 | dict(
    norm="rmsnorm", activation="swiglu", positions="rope", bias=False, n_kv_head=1, mlp_hidden=24,
    tie_embeddings=False,
)  # fmt: skip
LORA = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")


def draw(rng):
    ids = rng.integers(0, V, (B, T + 1))
    return ids[:, :-1], ids[:, 1:]


def training(lora=None, batch=draw, steps=6, **sizes):
    model = Transformer(TransformerConfig(**(GPT2 | sizes)), rng=np.random.default_rng(0))
    if lora:
        add_adapter(model, lora, rng=np.random.default_rng(1))
    return Training(model, batch, TrainConfig(steps=steps, lr=1e-2))


def one_step(lora=None, batch=draw, **sizes):
    """The profile of the first step of a training like `training`'s."""
    t, found = training(lora, batch, **sizes), Profile()
    ids, targets = batch(np.random.default_rng((t.config.seed, 0)))
    profiled_step(t.model, t.optimizer, ids, targets, found)
    return found


def leaf(*shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return Tensor(values, requires_grad=True)


def backward(out):
    out.backward(np.ones_like(out.data))


# It changes nothing


@pytest.mark.parametrize("sizes", [GPT2, LLAMA, GPT2 | {"dropout": 0.2}])
@pytest.mark.parametrize("lora", [None, LORA])
def test_training_is_bit_identical_with_and_without_a_profile(sizes, lora):
    plain, watched = training(lora, **sizes), training(lora, **sizes)
    for _ in range(3):
        loss = plain.step()
        with profile():
            assert watched.step() == loss
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_profiled_step_is_the_step_of_training(lora):
    plain, watched = training(lora, steps=1), training(lora, steps=1)
    plain.optimizer.lr = watched.optimizer.lr = 1e-2
    ids, targets = draw(np.random.default_rng((0, 0)))
    watched.optimizer.lr *= warmup_cosine(0, 1, watched.config.warmup)
    loss = profiled_step(watched.model, watched.optimizer, ids, targets, Profile())
    assert plain.step() == loss
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()


def test_an_exception_ends_the_profile():
    with pytest.raises(ValueError, match="linear"), profile() as found:
        F.linear(leaf(2, 3), leaf(4, 5))
    leaf(2) * 2
    assert found.ops == {}
    with profile():
        pass


def test_another_thread_is_not_seen():
    with profile() as found, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: leaf(2) * 2).result(10)
    assert found.ops == {}


def test_a_failed_op_counts_no_call_and_leaves_the_clock_right():
    with profile() as found:
        with pytest.raises(ValueError, match="linear"):
            F.linear(leaf(2, 3), leaf(4, 5))
        _ = leaf(2, 2) + 1
    assert {name: cost.calls for name, cost in found.ops.items()} == {"add": 1}
    assert 0 < found.op_seconds <= found.seconds


def test_dropped_vjps_stay_dropped():
    frozen = Tensor(np.ones((3, 4), np.float32))
    with profile():
        y = F.linear(leaf(2, 3), frozen)
        assert not F.linear(Tensor(np.ones((2, 3), np.float32)), frozen).requires_grad
    assert len(y.node.edges) == 1


def test_an_engine_error_still_names_the_op():
    with profile(), pytest.raises(TypeError, match="^mul: operands mix"):
        leaf(2) * Tensor(np.ones(2, np.float64))


def test_a_second_profile_inside_the_first_is_refused():
    with profile() as found:
        with pytest.raises(RuntimeError, match="already being observed"), profile():
            pass
        leaf(2) * 2
    assert found.ops["mul"].calls == 1


def test_what_happens_after_the_profile_is_not_timed():
    with profile() as found:
        out = leaf(2, 3) * 2
    seconds = found.op_seconds
    backward(out)
    assert found.op_seconds == seconds and found.ops["mul"].backward_seconds == 0


def test_a_profile_can_be_added_to():
    total, x = Profile(), leaf(2)
    for _ in range(2):
        with profile(total) as same:
            x * 2
        assert same is total
    assert total.ops["mul"].calls == 2


# It counts calls


def test_calls_per_op_follow_from_the_architecture():
    calls = {name: cost.calls for name, cost in one_step().ops.items()}
    layers = GPT2["n_layer"]
    assert calls == {
        "embedding": 2,
        "add": 1 + 2 * layers,
        "layer_norm": 1 + 2 * layers,
        "linear": 1 + 6 * layers,
        "attention": layers,
        "gelu": layers,
        "swapaxes": 1,  # the tied head
        "cross_entropy": 1,
        "mul": 1,  # the shard's weight in the batch
        "clip_grad_norm": 1,
        "AdamW.step": 1,
    }


def test_calls_of_a_llama_with_lora():
    def batch(rng):
        ids = rng.integers(0, V, (8, 65))  # in two shards, each with enough rows for lora_linear
        return ids[:, :-1], ids[:, 1:]

    ops = one_step(LORA, batch, **(LLAMA | {"block_size": 64})).ops
    calls = {name: cost.calls for name, cost in ops.items()}
    assert calls["lora_linear"] == 2 * 2 * 7 and calls["linear"] == 2  # the head
    assert calls["rms_norm"] == 2 * 5 and calls["silu"] == 2 * 2 and calls["rope"] == 2 * 4


def test_operators_count_once_whatever_side_the_tensor_is_on():
    x = leaf(2, 2)
    with profile() as found:
        _ = (1 + x) - (2 * x) / 3 + np.ones((2, 2), np.float32) @ x - x.mean()
    calls = {name: cost.calls for name, cost in found.ops.items()}
    # the mean is a sum times 1/n
    expected = {"add": 2, "mul": 2, "div": 1, "sub": 2, "matmul": 1, "tensor_sum": 1}
    assert calls == expected


def test_dropout_that_does_nothing_is_no_call():
    x = leaf(2, 2)
    with profile() as found:
        assert F.dropout(x, 0.5, None) is x
        F.dropout(x, 0.5, np.random.default_rng(0))
    assert found.ops["dropout"].calls == 1


def test_somebody_elses_op_may_have_the_name_of_one_of_ours():
    def vjp(g):
        return 2 * g

    vjp.__qualname__ = "attention.<locals>.vjp"
    with profile() as found:
        x = leaf(3)
        backward(record(2 * x.data, (x, vjp)))
    assert found.ops["attention"].calls == 1 and found.ops["attention"].forward_flops == 0


def test_ops_without_a_gradient_are_seen_too():
    x = leaf(2, 3)
    with profile() as found, no_grad():
        F.silu(F.gelu(x)) + F.softmax(x)
    assert {name: cost.calls for name, cost in found.ops.items()} == {
        "gelu": 1, "silu": 1, "softmax": 1, "add": 1,
    }  # fmt: skip
    assert sum(cost.backward_seconds for cost in found.ops.values()) == 0


def test_a_vjp_recorded_by_no_op_is_timed_under_the_name_of_its_function():
    def double(x):
        return ops.record(2 * x.data, (x, lambda g: 2 * g))

    x = leaf(3)
    with profile() as found:
        backward(double(x))
    (name,) = found.ops
    assert name.startswith("test_a_vjp") and found.ops[name].bytes == 12 + 12
    assert np.array_equal(x.grad, np.full(3, 2, np.float32))
    assert ops.record is record


def test_what_is_no_operation_can_be_timed_by_name():
    with profile() as found:
        leaf(3) * 2
        with found.timed("sort"):
            sorted(range(1000))
    assert {name: cost.calls for name, cost in found.ops.items()} == {"mul": 1, "sort": 1}
    assert found.ops["sort"].forward_seconds > 0


# It counts seconds and bytes


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_ops_take_more_than_half_of_the_step_and_never_more_than_all(lora):
    def batch(rng):
        ids = rng.integers(0, 96, (12, 65))
        return ids[:, :-1], ids[:, 1:]

    found = one_step(lora, batch, vocab_size=96, block_size=64, n_embd=128)
    assert 0.5 * found.seconds < found.op_seconds <= found.seconds


def test_an_op_made_of_others_is_charged_as_those():
    x = leaf(300, 300)
    with profile() as found:
        x.mean()
    assert set(found.ops) == {"tensor_sum", "mul"}
    assert found.op_seconds <= found.seconds


def test_bytes_are_those_of_the_result_and_the_gradients_without_views():
    x, W, b = leaf(5, 3), leaf(3, 4), leaf(4)
    with profile() as found:
        backward(F.linear(x, W, b))
    assert found.ops["linear"].bytes == 4 * (5 * 4 + 5 * 3 + 3 * 4 + 4)
    with profile() as found:
        backward(leaf(2, 3).reshape(6).swapaxes(0, 0) + leaf(6))
    assert {name: cost.bytes for name, cost in found.ops.items()} == {
        "reshape": 0, "swapaxes": 0, "add": 4 * 6,
    }  # fmt: skip


# It counts floating-point operations


def test_flops_of_linear_are_2_n_d_in_d_out_for_the_result_and_each_gradient():
    with profile() as found:
        backward(F.linear(leaf(2, 5, 3), leaf(3, 4), leaf(4)))
    cost = found.ops["linear"]
    assert cost.forward_flops == 2 * 10 * 3 * 4
    assert cost.backward_flops == 2 * (2 * 10 * 3 * 4)


def test_frozen_weights_need_no_flops_for_dW():
    with profile() as found:
        backward(F.linear(leaf(10, 3), Tensor(np.ones((3, 4), np.float32))))
    assert found.ops["linear"].backward_flops == 2 * 10 * 3 * 4  # dx alone
    with profile() as found:
        backward(F.linear(Tensor(np.ones((10, 3), np.float32)), leaf(3, 4)))
    assert found.ops["linear"].backward_flops == 2 * 10 * 3 * 4  # dW alone


def test_flops_of_lora_linear_are_those_of_its_thin_products_and_no_dW():
    n, d_in, d_out, r = 50, 8, 12, 2
    W = Tensor(np.ones((d_in, d_out), np.float32))
    with profile() as found:
        backward(F.lora_linear(leaf(n, d_in), W, None, leaf(d_in, r), leaf(r, d_out), 2.0))
    cost = found.ops["lora_linear"]
    assert cost.forward_flops == 2 * n * d_in * d_out + 2 * d_in * r * d_out
    dA = 2 * n * d_out * r + 2 * d_in * n * r  # G Bᵀ, then xᵀ of it
    dB = 2 * n * d_in * r + 2 * r * n * d_out  # x A, then its transpose times G
    assert cost.backward_flops == 2 * n * d_in * d_out + dA + dB


def test_flops_of_a_step_of_full_fine_tuning_by_hand():
    cost = one_step().ops["linear"]
    weights = 2 * (4 * C * C + 2 * C * 4 * C) + C * V
    assert cost.forward_flops == 2 * B * T * weights
    assert cost.backward_flops == 2 * cost.forward_flops


def test_lora_steps_have_no_flops_for_frozen_weights():
    ops, layers, N, r = one_step(LORA).ops, 2, B * T, LORA.r
    linear, fused = ops["linear"], ops["lora_linear"]
    assert (linear.calls, fused.calls) == (1, 6 * layers) and "matmul" not in ops
    assert linear.forward_flops == linear.backward_flops == 2 * N * C * V  # the head, and its dx
    matrices = layers * (4 * [(C, C)] + [(C, 4 * C), (4 * C, C)])
    dx = sum(2 * N * d_in * d_out for d_in, d_out in matrices)
    thin = sum(2 * N * r * (d_in + d_out) for d_in, d_out in matrices)
    assert fused.forward_flops == dx + sum(2 * d_in * r * d_out for d_in, d_out in matrices)
    first = 3 * 2 * N * C * C  # nothing trains below the first q_proj, k_proj and v_proj
    assert fused.backward_flops == dx - first + 2 * thin


def test_flops_of_attention_count_the_blocks_that_are_computed(monkeypatch):
    monkeypatch.setattr(F, "QUERIES", 4)
    n, t, s, heads, kv_heads, D = 2, 6, 7, 4, 2, 3
    q, k, v = leaf(n, t, heads * D), leaf(n, s, kv_heads * D), leaf(n, s, kv_heads * D)
    with profile() as found:
        backward(F.attention(q, k, v, heads, kv_heads))
    pairs = 4 * 5 + 2 * 7  # queries 0..3 see keys up to 4, queries 4, 5 all seven
    product = 2 * n * heads * D * pairs
    assert found.ops["attention"].forward_flops == 2 * product
    assert found.ops["attention"].backward_flops == 4 * product  # dQ, dK, dV, and G Vᵀ for dS


@pytest.mark.parametrize(
    ("a", "b", "product"),
    [
        ((3, 4), (4, 5), 2 * 3 * 4 * 5),
        ((2, 3, 4), (4, 5), 2 * 2 * 3 * 4 * 5),
        ((2, 1, 3, 4), (6, 4, 5), 2 * 2 * 6 * 3 * 4 * 5),
        ((4,), (4, 5), 2 * 4 * 5),
        ((3, 4), (4,), 2 * 3 * 4),
    ],
)
def test_flops_of_matmul(a, b, product):
    with profile() as found:
        backward(leaf(*a) @ leaf(*b))
    assert found.ops["matmul"].forward_flops == product
    assert found.ops["matmul"].backward_flops == 2 * product


def test_flops_of_a_product_with_an_array_on_the_left():
    with profile() as found:
        backward(np.ones((3, 4), np.float32) @ leaf(4, 5))
    assert found.ops["matmul"].forward_flops == found.ops["matmul"].backward_flops == 120


# Both methods


@pytest.fixture(scope="module")
def result():
    model = Transformer(TransformerConfig(**GPT2), rng=np.random.default_rng(0))
    found = profile_methods(model, LORA, batch=3, steps=2, warmup=1)
    assert not any(p.requires_grad is False for p in model.parameters())  # it was copied
    return {"model": "made-[up]"} | found


def test_shares_add_up_to_the_whole_step(result):
    for method, about in result["methods"].items():
        shares = sum(row[method]["share"] for row in result["rows"] if row[method])
        between = about["seconds_between_ops"] / about["seconds"]
        assert between > 0 and shares + between == pytest.approx(1)
    assert (result["batch"], result["length"], result["steps"]) == (3, T, 2)


def test_rows_are_per_step_and_the_largest_comes_first(result):
    costs = {row["op"]: row for row in result["rows"]}
    assert costs["AdamW.step"]["full"]["calls"] == costs["AdamW.step"]["lora"]["calls"] == 1
    assert costs["linear"]["full"]["forward_flops"] == 2 * 3 * T * (2 * 12 * C * C + C * V)
    assert costs["lora_linear"]["full"] is None
    shares = [sum(row[m]["share"] for m in ("full", "lora") if row[m]) for row in result["rows"]]
    assert shares == sorted(shares, reverse=True)


def printed(result, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_profile(result, console)
    return console.file.getvalue()


def test_at_100_columns_both_methods_stand_in_one_table(result):
    text = printed(result, 100)
    assert "full fine-tuning and LoRA (rank 2)" in text and "made-[up]" in text and "…" not in text
    (header,) = [line for line in text.splitlines() if line.startswith("op ")]
    assert header.split().count("GFLOP/s") == 2
    assert text.count("whole step") == 1 and text.count("between ops") == 1


def test_at_80_columns_one_table_stands_below_the_other(result):
    text = printed(result, 80)
    assert "…" not in text and text.count("whole step") == 2
    full, lora = text.split("LoRA (rank 2)", 1)
    assert "lora_linear" not in full and "lora_linear" in lora


def cost(forward, back=0.0, flops=0, **changes):
    return {
        "calls": 1.0, "forward_seconds": forward, "backward_seconds": back, "bytes": 2.0**20,
        "forward_flops": flops, "backward_flops": 2 * flops, "share": 0.5,
    } | changes  # fmt: skip


def by_hand(**rows):
    return {
        "model": "m", "batch": 1, "length": 2, "steps": 3, "lora": {"r": 4},
        "methods": {
            "full": {"seconds": 0.1, "seconds_between_ops": 0.01},
            "lora": {"seconds": 0.08, "seconds_between_ops": 0.01},
        },
        "rows": [{"op": op, "full": full, "lora": lora} for op, (full, lora) in rows.items()],
    }  # fmt: skip


def test_the_sentences_say_where_lora_saves_and_where_not():
    saves, same = profile_summary(
        by_hand(
            linear=(cost(0.020, 0.040, 10**9), cost(0.004, 0.004, 10**8)),
            lora_linear=(None, cost(0.018, 0.016, 9 * 10**8, backward_flops=10**9)),
            attention=(cost(0.010, 0.010), cost(0.010, 0.010)),
            add=(cost(0.001), cost(0.003)),
            gelu=(cost(0.001), cost(0.0011)),
        )
    )
    assert saves == (
        "LoRA's step takes 80% of full fine-tuning's (80.0 of 100.0 ms). It saves in: backward of "
        "the linear layers (50% of the time, 60% of the floating-point operations: no dW of "
        "frozen weights)."
    )
    assert same == (
        "It does not save in: forward of the linear layers (110%: x W as in full, then A and B); "
        "attention (100%); add (3.00 ms instead of 1.00)."
    )


def test_the_sentences_say_nothing_where_there_is_nothing():
    saves, same = profile_summary(by_hand(linear=(cost(0, 0, 1), cost(0, 0, 1))))
    assert saves.endswith("It saves in: nothing.") and same == "It does not save in: nothing."


def test_the_table_has_the_numbers_of_the_rows():
    linear = cost(0.25, 0.75, 10**9, calls=26.0, share=0.9)
    text = printed(by_hand(linear=(linear, cost(0.002)), gelu=(cost(0.001, bytes=0), None)), 120)
    assert "26   250 750.00" not in text  # above 100 ms no decimals
    (row,) = [line.split() for line in text.splitlines() if line.startswith("linear")]
    assert row == ["linear", "26", "250", "750", "1.0", "3.0", "90.0%"] + [
        "1", "2.00", "–", "1.0", "–", "50.0%",
    ]  # fmt: skip
    (row,) = [line.split() for line in text.splitlines() if line.startswith("gelu")]
    assert row == ["gelu", "1", "1.00", "–", "–", "–", "50.0%"] + 6 * ["–"]
    (row,) = [line.split() for line in text.splitlines() if line.startswith("whole step")]
    assert row[2:8] == ["27", "251", "750", "1.0", "30.0", "100%"]


def test_the_figure_draws_the_rows_and_groups_the_small_ones():
    figure = profile_figure(
        by_hand(
            linear=(cost(0.02, 0.04), cost(0.02, 0.01)),
            add=(cost(0.0001, share=0.001), cost(0.0002, share=0.002)),
            mul=(cost(0.0003, share=0.003), None),
        )
    )
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["linear", "other ops", "between ops"]
    widths = [bar.get_width() for bar in ax.patches]
    full_forward, full_backward, lora_forward, lora_backward = np.split(np.array(widths), 4)
    assert full_forward == pytest.approx([20, 0.4, 10]) and full_backward[0] == pytest.approx(40)
    assert lora_forward == pytest.approx([20, 0.2, 10]) and lora_backward[0] == pytest.approx(10)


# The command


def test_the_command_prints_the_table_and_writes_the_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    out = tmp_path / "profile"
    options = "--steps 1 --batch 2 --length 8 --rank 2 --targets q_proj,v_proj --out".split()
    assert main(["profile", *options, str(out)]) == 0
    text = capsys.readouterr().out
    assert "full fine-tuning and LoRA (rank 2): 2 x 8 tokens, mean of 1 steps" in text
    assert "LoRA's step takes" in text and "It does not save in:" in text
    assert (out / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_every_number(capsys):
    assert main("profile --model words-tiny --steps 1 --batch 1 --json".split()) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert result["model"] == "words-tiny" and result["length"] == 28
    assert result["lora"] == {"r": 4, "alpha": 8.0, "targets": "all-linear"}
    assert {row["op"] for row in result["rows"]} >= {"linear", "attention", "AdamW.step"}
    assert result["command"].startswith("minilora profile --model")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--model docs-tinny", "there is no folder 'docs-tinny'"),
        ("--length 65", "65 tokens do not fit the model's block_size of 64"),
        ("--rank 999", "999"),
        ("--targets query", "query"),
    ],
)
def test_errors_are_one_line(options, sentence, capsys):
    assert main(["profile", "--steps", "1", *options.split()]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if not line.startswith("profile:")]
    assert line.startswith("minilora: ") and sentence in line
