"""Reading sources: container index, exact frame sampling, sound; writing overlays and masks."""
