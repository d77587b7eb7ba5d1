"""The sizes of a transformer, and the switches that make it GPT-2 or Llama."""

from __future__ import annotations

from dataclasses import dataclass

from minilora.system.checks import is_number, require_positive, require_whole
from minilora.system.errors import UsageError

_SWITCHES = dict(
    norm=("layernorm", "rmsnorm"),
    activation=("gelu", "swiglu"),
    positions=("learned", "rope"),
    bias=(True, False),
    tie_embeddings=(True, False),
)


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches. What changed from GPT-2 (the defaults) to Llama: norm="rmsnorm",
    activation="swiglu", positions="rope", bias=False, and fewer key/value heads (n_kv_head).

    mlp_hidden defaults to 4 C. dropout acts on the embedding and on what attention and MLP add.
    Raises ValueError for a value that cannot be, and for sizes that do not fit together.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_kv_head: int | None = None
    mlp_hidden: int | None = None
    norm: str = "layernorm"
    activation: str = "gelu"
    positions: str = "learned"
    bias: bool = True
    tie_embeddings: bool = True
    dropout: float = 0.0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            require_whole(1, **{name: getattr(self, name)})
        require_whole(1, n_kv_head=self.kv_heads, mlp_hidden=self.hidden)
        for name, allowed in _SWITCHES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.n_embd % self.n_head:
            raise UsageError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.n_head % self.kv_heads:
            raise UsageError(f"n_kv_head={self.kv_heads} must divide n_head={self.n_head}")
        if self.positions == "rope" and self.head_size % 2:
            raise UsageError(f"rope turns pairs: n_embd / n_head = {self.head_size} must be even")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {self.dropout!r}")
        require_positive(norm_eps=self.norm_eps, rope_theta=self.rope_theta)

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def hidden(self) -> int:
        return 4 * self.n_embd if self.mlp_hidden is None else self.mlp_hidden
