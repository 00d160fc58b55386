"""GRPO of the reasoner on TRL: configuration, trainer, checkpoints."""
