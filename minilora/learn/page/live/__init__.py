"""The live model: a GPT-2 and its adapter, at any strength, rank and step of training."""
