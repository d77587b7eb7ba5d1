"""Claims about REINFORCE: its loss and gradient, what is sampled and rewarded, that it learns."""

import numpy as np
import pytest
from builders import tiny

import minilora as ml
from minilora.tensor import Tensor
from minilora.testing import gradcheck
from minilora.text.windows import IGNORE_INDEX
from minilora.training.loop import TrainConfig
from minilora.training.reinforce import policy_loss, reinforce, sampled_answers

END = 0
RNG = np.random.default_rng


def logits_and_targets():
    rng = RNG(0)
    targets = rng.integers(5, size=(3, 4))
    targets[0, :2] = targets[1, 3:] = IGNORE_INDEX
    return rng.standard_normal((3, 4, 5)), targets


def test_loss_is_minus_the_mean_of_advantage_times_log_p():
    z, targets = logits_and_targets()
    advantage = np.array([0.5, -0.25, 2.0])
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    by_hand = 0.0
    for b, t in np.argwhere(targets != IGNORE_INDEX):
        by_hand -= advantage[b] * log_p[b, t, targets[b, t]] / 3
    assert policy_loss(Tensor(z), targets, advantage).item() == pytest.approx(by_hand)


def test_gradient_of_the_loss_is_the_advantage_times_p_minus_onehot():
    z, targets = logits_and_targets()
    advantage = np.array([0.5, -0.25, 2.0])
    logits = Tensor(z, requires_grad=True)
    gradcheck(lambda x: policy_loss(x, targets, advantage), logits)
    policy_loss(logits, targets, advantage).backward()
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    expected = p - np.eye(5)[np.maximum(targets, 0)]
    expected *= advantage[:, None, None] / 3 * (targets != IGNORE_INDEX)[..., None]
    np.testing.assert_allclose(logits.grad, expected, atol=1e-12)


def test_with_advantage_one_it_is_cross_entropy():
    z, targets = logits_and_targets()
    n = (targets != IGNORE_INDEX).sum()
    loss = policy_loss(Tensor(z), targets, np.ones(3)).item()
    assert loss * 3 / n == pytest.approx(ml.cross_entropy(Tensor(z), targets).item())


def test_only_exactly_the_answer_is_rewarded_and_targets_end_with_what_was_written():
    model = tiny(vocab_size=4, block_size=8)
    prompts = np.tile([[3, 2]], (400, 1))
    answers = np.tile([[1, 2, END]], (400, 1))
    model.tok_embed.weight.data *= 0.1  # so that every symbol is drawn now and then
    ids, targets, reward = sampled_answers(model, prompts, answers, RNG(0))
    assert ids.shape == targets.shape == (400, 4)
    np.testing.assert_array_equal(ids[:, :2], prompts)
    lengths = set()
    for row, target, r in zip(ids, targets, reward, strict=True):
        assert target[0] == IGNORE_INDEX  # the prompt's own symbol
        written = target[target != IGNORE_INDEX]
        np.testing.assert_array_equal(written[:-1], row[2 : 1 + len(written)])
        assert END not in written[:-1] and (len(written) == 3 or written[-1] == END)
        assert r == (list(written) == [1, 2, END])
        lengths.add(len(written))
    assert lengths == {1, 2, 3} and 0 < reward.sum() < 40


def answer_is_always_two(rng):
    return np.tile([[3, 1]], (8, 1)), np.tile([[2, END]], (8, 1))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_rewards_alone_teach_an_answer(method):
    model = tiny(vocab_size=4, block_size=4)
    model.tok_embed.weight.data *= 4  # also the head: so that it can be sure of a symbol
    if method == "lora":
        ml.add_adapter(model, ml.LoraConfig(r=1, target_modules="all-linear"), rng=RNG(0))
    frozen = {k: p.data.copy() for k, p in model.named_parameters() if not p.requires_grad}
    told = []
    rewards = reinforce(
        model,
        answer_is_always_two,
        TrainConfig(60, 2e-2, warmup=5),
        on_step=lambda step, so_far: told.append((step, len(so_far))),
    )
    assert np.mean(rewards[:5]) < 0.4 < 0.9 < np.mean(rewards[-10:])
    assert told == [(i, i) for i in range(61)] and len(rewards) == 60
    after = dict(model.named_parameters())
    assert all(np.array_equal(after[name].data, before) for name, before in frozen.items())


def test_same_seed_gives_the_same_rewards():
    runs = [
        reinforce(tiny(), answer_is_always_two, TrainConfig(3, 1e-2, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_where_no_answer_is_ever_right_nothing_changes():
    model = tiny()
    before = model.state_dict()
    unknown = np.array([[11, END]])  # 11 is not in the vocabulary
    rewards = reinforce(model, lambda rng: (np.array([[3, 5]]), unknown), TrainConfig(5, 1e-2))
    assert rewards == [0.0] * 5
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_one_sample_has_nothing_to_be_compared_with():
    with pytest.raises(ValueError, match="samples must be 2 or more, to compare answers; got 1"):
        reinforce(tiny(), answer_is_always_two, TrainConfig(1, 1e-2), samples=1)
