"""The playground: LoRA and full fine-tuning learn a change of known rank."""
