"""The nano bundle made from nothing: its world as training data, its models, their training."""
