"""The benchmark's steps in PyTorch, written as one would: nn.Linear, nn.LayerNorm, fused q, k, v.

"eager" computes attention from matmul and softmax, and uses AdamW as it is by default; "sdpa" uses
scaled_dot_product_attention and the fused AdamW.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from shapes import ADAMW, SCALE, Shape, base_weights, batch, lora_weights
from torch import nn


class Lora(nn.Module):
    """PEFT's layer: the frozen Linear, and beside it two thin ones."""

    def __init__(self, base: nn.Linear, A, B) -> None:
        super().__init__()
        self.base = base
        self.A, self.B = (nn.Parameter(torch.from_numpy(m.T.copy())) for m in (A, B))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.A), self.B) * SCALE


class Attention(nn.Module):
    def __init__(self, s: Shape, variant: str, fused: bool) -> None:
        super().__init__()
        self.heads, self.variant, self.fused = s.heads, variant, fused
        if fused:
            self.qkv = nn.Linear(s.C, 3 * s.C)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(s.C, s.C) for _ in range(3))
        self.o_proj = nn.Linear(s.C, s.C)
        mask = torch.triu(torch.full((s.T, s.T), -math.inf), 1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        D = C // self.heads
        if self.fused:
            q, k, v = self.qkv(x).split(C, dim=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = (t.view(B, -1, self.heads, D).transpose(1, 2) for t in (q, k, v))
        if cache is not None:
            past, end = cache["length"], cache["length"] + T
            cache["k"][:, :, past:end], cache["v"][:, :, past:end] = k, v
            k, v, cache["length"] = cache["k"][:, :, :end], cache["v"][:, :, :end], end
        if self.variant == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        else:
            scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(D))
            if T > 1:
                scores = scores + self.mask[:T, :T]
            y = F.softmax(scores, dim=-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, s: Shape, variant: str, fused: bool) -> None:
        super().__init__()
        self.attn_norm, self.mlp_norm = nn.LayerNorm(s.C), nn.LayerNorm(s.C)
        self.attn = Attention(s, variant, fused)
        self.mlp = nn.ModuleDict(
            {"up_proj": nn.Linear(s.C, 4 * s.C), "down_proj": nn.Linear(4 * s.C, s.C)}
        )

    def forward(self, x, cache=None):
        x = x + self.attn(self.attn_norm(x), cache)
        h = F.gelu(self.mlp["up_proj"](self.mlp_norm(x)), approximate="tanh")
        return x + self.mlp["down_proj"](h)


class Model(nn.Module):
    def __init__(self, s: Shape, variant: str, fused: bool) -> None:
        super().__init__()
        self.tok_embed, self.pos_embed = nn.Embedding(s.V, s.C), nn.Embedding(s.T, s.C)
        self.layers = nn.ModuleList(Block(s, variant, fused) for _ in range(s.layers))
        self.norm, self.head = nn.LayerNorm(s.C), nn.Linear(s.C, s.V, bias=False)

    def forward(self, ids, caches=None):
        start = caches[0]["length"] if caches else 0
        x = self.tok_embed(ids) + self.pos_embed.weight[start : start + ids.shape[1]]
        for i, block in enumerate(self.layers):
            x = block(x, caches[i] if caches else None)
        return self.head(self.norm(x))


def make_model(s: Shape, mode: str, r: int, variant: str) -> Model:
    fused = mode == "full"
    model, weights = Model(s, variant, fused), base_weights(s)
    state = {}
    for name in model.state_dict():
        if ".qkv." in name:
            parts = [weights[name.replace("qkv", f"{p}_proj")] for p in "qkv"]
            array = torch.cat([torch.from_numpy(part) for part in parts], dim=-1)
        else:
            array = torch.from_numpy(weights[name])
        linear = array.ndim == 2 and "embed" not in name
        state[name] = array.T.contiguous() if linear else array
    model.load_state_dict(state)
    if not fused:
        model.requires_grad_(False)
        for path, (A, B) in lora_weights(s, mode, r).items():
            parent, _, name = path.rpartition(".")
            holder = model.get_submodule(parent)
            adapted = Lora(model.get_submodule(path), A, B)
            if isinstance(holder, nn.ModuleDict):
                holder[name] = adapted
            else:
                setattr(holder, name, adapted)
    return model


def make_step(s: Shape, mode: str, r: int, variant: str):
    model = make_model(s, mode, r, variant)
    ids, targets = (torch.from_numpy(a) for a in batch(s))
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, **ADAMW, fused=variant == "sdpa" or None)

    def step() -> float:
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    step.model = model
    return step


def gradients(s: Shape, mode: str, r: int, variant: str) -> dict:
    """loss, and d(loss)/d(parameter) by minilora's names and in its layout, before any update."""
    model = make_model(s, mode, r, variant)
    ids, targets = (torch.from_numpy(a) for a in batch(s))
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    loss.backward()
    found = {"loss": loss.detach().numpy()}
    for name, p in model.named_parameters():
        if p.grad is None:
            continue
        g = p.grad.numpy()
        g = g.T if g.ndim == 2 and "embed" not in name else g
        if ".qkv." in name:
            for letter, part in zip("qkv", np.split(g, 3, axis=-1), strict=True):
                found[name.replace("qkv", f"{letter}_proj")] = part
        elif name.endswith((".A", ".B")):
            found[f"{name[:-2]}.adapters.default.{name[-1]}"] = g
        else:
            found[name] = g
    return found


def make_generate(s: Shape, variant: str):
    model = make_model(s, "full", 0, variant).eval()

    @torch.inference_mode()
    def generate(tokens: int) -> list[int]:
        """Greedy, with a preallocated KV cache."""
        shape = (1, s.heads, s.T, s.C // s.heads)
        caches = [
            {"k": torch.empty(shape), "v": torch.empty(shape), "length": 0} for _ in range(s.layers)
        ]
        ids = [0]
        new = torch.tensor([[0]])
        for _ in range(tokens):
            new = model(new, caches)[:, -1].argmax(-1, keepdim=True)
            ids.append(int(new))
        return ids

    return generate
