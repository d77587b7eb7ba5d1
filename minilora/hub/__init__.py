"""Models and adapters as files, in the layouts of Hugging Face and PEFT."""
