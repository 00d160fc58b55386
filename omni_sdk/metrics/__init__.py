"""Scores of masks, boxes and time spans. numpy only; training and evaluation share them."""
