"""The checkers of all exercises by their names, as the lessons call them: `check.count_lora(...)`.

How a checker works is in exercises.py; those of a lesson are in its lesson_NN.py.
"""

from __future__ import annotations

from minilora.learn.exercises import EXERCISES, Verdict, strict
from minilora.learn.lesson_00 import (
    delta_weight,
    lora_forward,
    lora_gradients,
    merge,
    train_lora,
    trained_share,
)
from minilora.learn.lesson_01 import (
    Value,
    gradient_is_right,
    gradients,
    matmul_vjps,
    product_vjps,
    train_network,
    unbroadcast,
)
from minilora.learn.lesson_03 import (
    adamw_step,
    clip_together,
    diagnose,
    kept_numbers,
    learning_rate_at,
    memory_ledger,
    race,
)
from minilora.learn.lesson_04 import (
    Broken1,
    Broken2,
    Broken3,
    Broken4,
    Broken5,
    MergingLora,
    MyLora,
    adapt,
    lora_op,
    start_factors,
)
from minilora.learn.lesson_05 import (
    break_even_rank,
    count_lora,
    count_model,
    largest_rank,
    rank_for_gpu,
    training_gigabytes,
)
from minilora.learn.lesson_06 import (
    best_adapter,
    best_rank_error,
    predict_knee,
    share_of_gain,
    smallest_rank,
)
from minilora.learn.lesson_07 import (
    effective_rank,
    intruders,
    k90,
    similarity,
    truncate,
    tuned_how,
)
from minilora.learn.predictions import Prediction, predict

__all__ = [
    "EXERCISES",
    "Broken1",
    "Broken2",
    "Broken3",
    "Broken4",
    "Broken5",
    "MergingLora",
    "MyLora",
    "Prediction",
    "Value",
    "Verdict",
    "adamw_step",
    "adapt",
    "best_adapter",
    "best_rank_error",
    "break_even_rank",
    "clip_together",
    "count_lora",
    "count_model",
    "delta_weight",
    "diagnose",
    "effective_rank",
    "gradient_is_right",
    "gradients",
    "intruders",
    "k90",
    "kept_numbers",
    "largest_rank",
    "learning_rate_at",
    "lora_forward",
    "lora_gradients",
    "lora_op",
    "matmul_vjps",
    "memory_ledger",
    "merge",
    "predict",
    "predict_knee",
    "product_vjps",
    "race",
    "rank_for_gpu",
    "share_of_gain",
    "similarity",
    "smallest_rank",
    "start_factors",
    "strict",
    "train_lora",
    "train_network",
    "trained_share",
    "training_gigabytes",
    "truncate",
    "tuned_how",
    "unbroadcast",
]
