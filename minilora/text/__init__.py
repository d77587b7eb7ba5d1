"""From text to ids and back: alphabets and tokenizers, texts, chats, and text from a model."""
