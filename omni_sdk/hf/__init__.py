"""The stage Protocols on torch + transformers (extra `torch`): unexported checkpoints, parity oracle."""
