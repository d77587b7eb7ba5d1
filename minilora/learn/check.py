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
from minilora.learn.lesson_07 import effective_rank, intruders, k90, similarity, truncate, tuned_how
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
    "Verdict",
    "adapt",
    "best_adapter",
    "best_rank_error",
    "break_even_rank",
    "count_lora",
    "count_model",
    "delta_weight",
    "effective_rank",
    "intruders",
    "k90",
    "largest_rank",
    "lora_forward",
    "lora_gradients",
    "lora_op",
    "merge",
    "predict",
    "predict_knee",
    "rank_for_gpu",
    "share_of_gain",
    "similarity",
    "smallest_rank",
    "start_factors",
    "strict",
    "train_lora",
    "trained_share",
    "training_gigabytes",
    "truncate",
    "tuned_how",
]
