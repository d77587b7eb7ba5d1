"""REINFORCE (Williams 1992): a model learns from rewards for what it wrote, shown no right answer.

Each question is answered several times, by sampling. An answer that was better than the others to
the same question becomes likelier, a worse one less likely:

    loss = - mean over answers of (reward - mean reward of the question) · log p(answer)

The mean over the group as baseline is that of RLOO and GRPO (Ahmadian et al. 2024, Shao et al.
2024), without their other parts. Where all answers to a question are right, or all wrong, it
teaches nothing: a reward that the model never meets cannot be learned from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilora.generation.sampling import generate
from minilora.nn import Rng
from minilora.optim import AdamW, clip_grad_norm, warmup_cosine
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError
from minilora.system.memory import keep_freed_memory
from minilora.tensor import Tensor
from minilora.text.windows import IGNORE_INDEX
from minilora.training.loop import TrainConfig
from minilora.transformer import Transformer

Questions = Callable[[Rng], tuple[np.ndarray, np.ndarray]]  # draws prompts (N, P), answers (N, S)


def reinforce(
    model: Transformer,
    questions: Questions,
    config: TrainConfig,
    *,
    samples: int = 8,
    on_step: Callable[[int, list[float]], None] | None = None,
) -> list[float]:
    """Train the trainable parameters of `model`; returns the mean reward of every step.

    questions: draws prompts int (N, P) and their right answers int (N, S), which end in the same
        symbol; the reward is 1 for exactly that answer, and 0 for any other. samples: answers to
        each question. on_step: told how many steps are done and their rewards, at the start and
        after each.
    Raises ValueError for fewer than two samples, among which none is better than the mean.
    """
    if samples < 2:
        raise UsageError(f"samples must be 2 or more, to compare answers; got {samples}")
    keep_freed_memory()
    params = model.trainable_parameters()
    optimizer = AdamW(params, config.lr, config.betas, weight_decay=config.weight_decay)
    rewards: list[float] = []
    with one_blas_thread():
        if on_step:
            on_step(0, rewards)
        for i in range(config.steps):
            rng = np.random.default_rng((config.seed, i))
            prompts, answers = (np.repeat(a, samples, axis=0) for a in questions(rng))
            ids, targets, reward = sampled_answers(model, prompts, answers, rng)
            group = reward.reshape(-1, samples)  # (N * samples,) -> (N, samples)
            advantage = (group - group.mean(axis=1, keepdims=True)).ravel()
            tells = advantage != 0  # of the other answers nothing is learned
            if tells.any():
                logits = model(ids[tells])
                policy_loss(logits, targets[tells], advantage[tells] * tells.mean()).backward()
                clip_grad_norm(params, config.clip)
                optimizer.lr = config.lr * warmup_cosine(i, config.steps, config.warmup)
                optimizer.step()
                optimizer.zero_grad()
            rewards.append(float(reward.mean()))
            if on_step:
                on_step(i + 1, rewards)
    return rewards


def sampled_answers(
    model: Transformer, prompts: np.ndarray, answers: np.ndarray, rng: Rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the model writes after each prompt, at temperature 1, and whether it is the answer.

    prompts int (B, P), answers int (B, S) -> ids and targets int (B, P + S - 1), as in training,
    with the targets of what was written until its end, and rewards (B,), 1 or 0.
    """
    P, end = prompts.shape[1], int(answers[0, -1])
    rows = generate(model, prompts, answers.shape[1], rng=rng, eos_token_id=end)
    written = rows[:, P:]  # (B, at most S)
    same = written == answers[:, : written.shape[1]]
    reward = same.all(axis=1) & (written[:, -1] == end)
    ended_before = np.cumsum(written == end, axis=1) - (written == end) > 0
    targets = rows[:, 1:].copy()
    targets[:, : P - 1] = IGNORE_INDEX
    targets[:, P - 1 :][ended_before] = IGNORE_INDEX
    return rows[:, :-1], targets, reward.astype(np.float64)


def policy_loss(logits: Tensor, targets: np.ndarray, advantage: np.ndarray) -> Tensor:
    """-mean of advantage · log p(answer): logits (B, T, V), targets int (B, T), advantage (B,).

    log p(answer) is the sum of log p over the targets of a row that are not IGNORE_INDEX.
    """
    row, at = np.nonzero(targets != IGNORE_INDEX)
    z = logits[row, at]  # (B, T, V) -> (n, V)
    z = z - z.data.max(axis=1, keepdims=True)
    log_p = z[np.arange(len(row)), targets[row, at]] - z.exp().sum(axis=1).log()  # (n,)
    return -(log_p * advantage[row].astype(z.dtype)).sum() * (1 / len(targets))
