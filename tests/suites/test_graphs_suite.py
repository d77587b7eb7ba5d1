"""Claims about the suite of random graphs: a part of it holds, and it notices what is wrong."""

import graphs
import numpy as np
import pytest
import random_graphs

from minilora import functional as F
from minilora import ops
from minilora.tensor import Tensor, grad, record

OPS = "add sub mul div neg power matmul exp log sqrt tanh tensor_sum mean tensor_max reshape "
OPS += "swapaxes getitem concatenate where"
FUSED = "linear lora_linear embedding layer_norm rms_norm gelu silu softmax cross_entropy dropout "
FUSED += "rope attention"


def test_the_gradients_of_random_graphs_are_right_and_wrong_shapes_are_refused():
    ends = graphs.SUITE.run(seed=1, trials=60)
    assert not graphs.SUITE.faults(ends), ends
    assert ends[graphs.RIGHT] > 30 and ends[graphs.REFUSED] > 5


def spoiled(op, factor):
    """The same op, whose gradients are all `factor` times the true ones."""

    def f(*args, **kwargs):
        out = op(*args, **kwargs)
        return record(out.data * 1, (out, lambda g: np.asarray(g * factor)))

    return f


def test_a_gradient_wrong_by_a_millionth_is_noticed_and_its_line_printed(monkeypatch):
    monkeypatch.setattr(F, "softmax", spoiled(F.softmax, 1 + 1e-6))
    found = [graphs.trial(1, i) for i in range(120) if i % 4 != 3]
    wrong = [how for end, how in found if end == "wrong"]
    assert wrong
    shortest = min(wrong, key=len)
    assert "v0 = F.softmax(x0" in shortest and "return [v0]" in shortest


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*OPS.split(), *FUSED.split()])
def test_every_op_is_drawn_and_its_gradient_judged(name, monkeypatch):
    module = ops if name in OPS.split() else F
    monkeypatch.setattr(module, name, spoiled(getattr(module, name), 1 + 1e-6))
    assert any(graphs.trial(2, i)[0] == "wrong" for i in range(1200))


def test_a_drawn_graph_is_the_same_each_time_and_its_script_repeats_its_gradients():
    first, again = (random_graphs.draw(np.random.default_rng((5, 0))) for _ in range(2))
    assert first.source() == again.source()
    weights = np.ones_like(first.values[f"v{len(first.lines) - 1}"])
    printed = []
    exec(first.script(weights), {"print": printed.append})
    tensors = [Tensor(x, leaf.train) for x, leaf in zip(first.arrays(), first.leaves, strict=True)]
    out = first.function(random_graphs.OURS)(*tensors)[-1]
    found = grad((out * weights).sum(), [t for t in tensors if t.requires_grad])
    assert len(printed[0]) == len(found) and all(map(np.array_equal, printed[0], found))
