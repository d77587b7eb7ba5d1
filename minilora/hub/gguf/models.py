"""A Llama in a .gguf file as a Transformer: names, sizes, and the order of q's and k's rows.

llama.cpp turns neighbouring channels of a head by one angle where Llama in transformers, and ours,
turns i and i + D/2; its files have the rows of q and k reordered for that, whole rows, so that
blocks stay whole when we put them back.
Source: gguf-py/gguf/tensor_mapping.py and convert_hf_to_gguf.py in ggml-org/llama.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilora.hub.gguf.reader import GgufFile, GgufTensor
from minilora.hub.hf_layout import SWITCHES, parameter_shapes
from minilora.hub.safetensors_files import require_fit
from minilora.quantization.gguf_blocks import GgufBlocks, dequantize, is_finite
from minilora.rope_scaling import RopeScaling
from minilora.system.errors import UsageError, brief
from minilora.transformer_config import TransformerConfig

# "#" is the layer's number. A weight of a Linear is (d_out, d_in) there.
_NAMES = {
    "tok_embed": "token_embd",
    "layers.#.attn_norm": "blk.#.attn_norm",
    "layers.#.attn.q_proj": "blk.#.attn_q",
    "layers.#.attn.k_proj": "blk.#.attn_k",
    "layers.#.attn.v_proj": "blk.#.attn_v",
    "layers.#.attn.o_proj": "blk.#.attn_output",
    "layers.#.mlp_norm": "blk.#.ffn_norm",
    "layers.#.mlp.gate_proj": "blk.#.ffn_gate",
    "layers.#.mlp.up_proj": "blk.#.ffn_up",
    "layers.#.mlp.down_proj": "blk.#.ffn_down",
    "norm": "output_norm",
    "head": "output",
}
_SIZES = {
    "block_size": "context_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_embd": "embedding_length",
    "mlp_hidden": "feed_forward_length",
    "n_kv_head": "attention.head_count_kv",
}


_NOT_OURS = "not supported; use a model of another kind"


def gguf_config(file: GgufFile) -> TransformerConfig:
    """The configuration in a file's metadata. Raises ValueError, which names the file, for what
    ours cannot compute."""
    try:
        return _config(file)
    except UsageError as error:
        if str(file.path) in str(error):
            raise
        raise UsageError(f"cannot load {file.path}: {error}") from None


def _config(file: GgufFile) -> TransformerConfig:
    said = file.metadata
    kind = said.get("general.architecture")
    if kind != "llama":
        raise UsageError(f"{file.path} holds a model of kind {brief(kind)}; supported: 'llama'")

    def get(key: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        value = said.get(f"llama.{key}", default)
        if not isinstance(value, kinds) or isinstance(value, bool):
            what = "a list" if isinstance(value, list) else brief(value)
            raise UsageError(f"{file.path}: llama.{key} is {what}, which is not supported")
        return value

    if said.get("split.count", 1) not in (0, 1):
        raise UsageError(
            f"{file.path} is one of several files; join them with llama.cpp's llama-gguf-split "
            "--merge"
        )
    if experts := said.get("llama.expert_count", 0):
        raise UsageError(f"{file.path} has {brief(experts)} experts, which are not supported")
    sizes = {ours: get(theirs, int, 0) for ours, theirs in _SIZES.items()}
    sizes["n_kv_head"] = sizes["n_kv_head"] or sizes["n_head"]
    if sizes["n_layer"] > len(file.tensors):
        raise UsageError(
            f"{file.path} says {sizes['n_layer']} layers, but holds only {len(file.tensors)} "
            "tensors; download it again"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UsageError(f"{file.path} has no token_embd.weight; download it again")
    width = get("attention.key_length", int, sizes["n_embd"] // max(1, sizes["n_head"]))
    if (values := get("attention.value_length", int, width)) != width:
        raise UsageError(f"{file.path} has {values} channels of v where k has {width}: {_NOT_OURS}")
    if (turned := get("rope.dimension_count", int, width)) != width:
        raise UsageError(f"{file.path} turns {turned} of {width} channels: {_NOT_OURS}")
    if "rope_freqs.weight" in file.tensors or get("rope.scaling.attn_factor", (int, float), 1) != 1:
        raise UsageError(f"{file.path} has the rope scaling of Llama 3 or YaRN: {_NOT_OURS}")
    slowed = get("rope.scaling.type", str, "linear")  # which is what it means to leave it out
    if slowed not in ("none", "linear"):
        raise UsageError(f"{file.path}: rope scaling {brief(slowed)} is {_NOT_OURS}")
    before = get("rope.scale_linear", (int, float), 1)  # what its key was called
    factor = get("rope.scaling.factor", (int, float), before)
    scaling = None if slowed == "none" or factor == 1 else RopeScaling("linear", float(factor))
    plain = width * sizes["n_head"] == sizes["n_embd"]
    return TransformerConfig(
        **sizes,
        **SWITCHES["llama"],
        bias=False,
        vocab_size=embedding.shape[0],
        tie_embeddings="output.weight" not in file.tensors,
        norm_eps=get("attention.layer_norm_rms_epsilon", float),
        rope_theta=float(get("rope.freq_base", (int, float), 10000.0)),
        rope_scaling=scaling,
        head_dim=None if plain else width,
    )


def gguf_tensors(file: GgufFile, config: TransformerConfig) -> dict[str, GgufTensor]:
    """The tensors by the names of our parameters, rows in our order, still in blocks.

    Raises ValueError, naming some, for tensors that are missing, left over or of a wrong shape.
    """
    shapes, found = {}, {}
    for ours, shape in parameter_shapes(config).items():
        path, _, kind = ours.rpartition(".")
        theirs = f"{_their_path(path)}.{kind}"
        shapes[theirs] = shape if path == "tok_embed" else shape[::-1]
        if theirs in file.tensors:
            found[ours] = _our_order(path, file.tensors[theirs], config)
    what = f"the tensors in {file.path} do not fit its metadata"
    require_fit(file.tensors, shapes, what, "download it again")
    return found


def gguf_arrays(
    tensors: dict[str, GgufTensor], file: GgufFile, keep_blocks: bool
) -> tuple[dict[str, np.ndarray], dict[str, GgufBlocks]]:
    """Our parameters in float32 and (keep_blocks) the matrices instead in the file's blocks.

    Raises ValueError for NaN and infinity.
    """
    arrays: dict[str, np.ndarray] = {}
    blocks: dict[str, GgufBlocks] = {}
    for name, tensor in tensors.items():
        if not is_finite(tensor.kind, tensor.blocks):
            raise UsageError(f"{name} in {file.path} holds NaN or infinity; download it again")
        if keep_blocks and len(tensor.shape) == 2:
            rows, columns = tensor.shape
            blocks[name] = GgufBlocks(tensor.kind, (rows, columns), tensor.blocks)
        else:
            array = dequantize(tensor.kind, tensor.blocks).reshape(tensor.shape)
            arrays[name] = array if name.startswith("tok_embed") else array.T
    return arrays, blocks


def _their_path(path: str) -> str:
    words = path.split(".")
    number = words[1] if words[0] == "layers" else ""
    ours = ".".join(["layers", "#", *words[2:]] if number else words)
    return _NAMES[ours].replace("#", number)


def _our_order(path: str, tensor: GgufTensor, c: TransformerConfig) -> GgufTensor:
    """Rows of q and k: of each head, pair by pair -> the first of all pairs, then the second."""
    heads = {"q_proj": c.n_head, "k_proj": c.kv_heads}.get(path.rpartition(".")[2])
    rows, size = tensor.blocks.shape
    if heads is None or rows % (2 * heads):
        return tensor
    pairs = tensor.blocks.reshape(heads, -1, 2, size)  # (H, D/2, 2, bytes of a row)
    ordered = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, size)
    return GgufTensor(tensor.kind, tensor.shape, ordered)
