"""Numbers about weights, sizes and time; what a notebook reaches for is `ml.analysis.NAME`."""

from minilora.analysis.counting import (
    ARCHITECTURES,
    NF4_BITS,
    break_even_rank,
    checkpoint_bytes,
    count_rows,
    lora_parameters,
    matrix_shapes,
    memory_ladder,
    total_parameters,
    training_bytes,
)
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.analysis.inspection import inspect_adapter
from minilora.analysis.paper import HU_2021
from minilora.analysis.spectrum import (
    chance_best_cosine,
    eckart_young_tail,
    effective_rank,
    intruder_dimensions,
    k90,
    relative_norm,
    singular_values,
    stable_rank,
    truncate,
)
from minilora.analysis.subspaces import (
    amplification,
    chance_similarity,
    subspace_similarities,
    subspace_similarity,
)

__all__ = [
    "ARCHITECTURES", "HU_2021", "NF4_BITS", "amplification", "break_even_rank",
    "chance_best_cosine", "chance_similarity", "checkpoint_bytes", "count_rows", "delta_weights",
    "eckart_young_tail", "effective_rank", "inspect_adapter", "intruder_dimensions", "k90",
    "lora_parameters", "matrix_shapes", "memory_ladder", "relative_norm", "singular_values",
    "stable_rank", "subspace_similarities", "subspace_similarity", "total_parameters",
    "training_bytes", "truncate", "weight_matrices",
]  # fmt: skip
