"""Models, tokenizers and adapters as files, in the layouts of Hugging Face and PEFT."""

from minilora.hub.adapters import adapter_base, load_adapter, save_adapter
from minilora.hub.models import load_model, save_model
from minilora.hub.tokenizers import load_tokenizer

__all__ = [
    "adapter_base",
    "load_adapter",
    "load_model",
    "load_tokenizer",
    "save_adapter",
    "save_model",
]
