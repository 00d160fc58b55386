"""GRPO training of the Global Reasoning System."""
