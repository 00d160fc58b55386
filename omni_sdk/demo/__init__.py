"""The procedural audio-visual world: exact ground truth, any resolution, real mp4 with sound."""
