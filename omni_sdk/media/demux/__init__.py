"""Containers: packets, index, damage, and decoding named frames exactly."""
