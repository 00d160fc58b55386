"""What a result leaves on a disk: masks, overlays, JSON."""
