"""Inference engines: each module here is the only importer of its runtime."""
