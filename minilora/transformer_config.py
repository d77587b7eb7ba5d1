"""The sizes of a transformer, and the switches that make it GPT-2 or Llama."""

from __future__ import annotations

from dataclasses import dataclass

from minilora.rope_scaling import RopeScaling
from minilora.system.checks import is_number, require_between, require_size
from minilora.system.errors import UsageError, brief

_SIZES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
_SWITCHES = dict(
    norm=("layernorm", "rmsnorm"),
    activation=("gelu", "swiglu"),
    positions=("learned", "rope"),
    bias=(True, False, "attention", "qkv"),
    tie_embeddings=(True, False),
)
_BIASED = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qkv": ["q_proj", "k_proj", "v_proj"],
}


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches. What changed from GPT-2 (the defaults) to Llama: norm="rmsnorm",
    activation="swiglu", positions="rope", bias=False, and fewer key/value heads (n_kv_head).

    bias may also be "qkv" (as in Qwen2) or "attention": only these Linears have one then.
    mlp_hidden defaults to 4 C, head_dim to C / n_head. dropout acts on the embedding and on what
    attention and MLP add. Raises ValueError for a value that cannot be, and for sizes that do
    not fit together.
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
    bias: bool | str = True
    tie_embeddings: bool = True
    dropout: float = 0.0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    head_dim: int | None = None

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in _SIZES}
        optional = {name: getattr(self, name) for name in ("n_kv_head", "mlp_hidden", "head_dim")}
        sizes |= {name: size for name, size in optional.items() if size is not None}
        require_size(**sizes)
        for name, allowed in _SWITCHES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} must be one of {allowed}, got {brief(getattr(self, name))}"
                )
        if self.head_dim is None and self.n_embd % self.n_head:
            raise UsageError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.n_head % self.kv_heads:
            raise UsageError(f"n_kv_head={self.kv_heads} must divide n_head={self.n_head}")
        if self.positions == "rope" and self.head_size % 2:
            raise UsageError(f"rope turns pairs: a head's size, {self.head_size}, must be even")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {brief(self.dropout)}")
        require_between(1e-30, 1, norm_eps=self.norm_eps)
        require_between(1, 1e15, rope_theta=self.rope_theta)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise UsageError(f"rope_scaling must be a RopeScaling, got {brief(self.rope_scaling)}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    def has_bias(self, projection: str) -> bool:
        """Whether this Linear of a block, such as "q_proj", has a bias."""
        return projection in _BIASED[self.bias] if isinstance(self.bias, str) else self.bias

    @property
    def hidden(self) -> int:
        return 4 * self.n_embd if self.mlp_hidden is None else self.mlp_hidden
