"""Checkpoint -> bundle of ONNX graphs -> engines, with a parity report."""
