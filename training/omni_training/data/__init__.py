"""Training samples: data sets, the procedural world, prompts."""
