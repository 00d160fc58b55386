"""Readers of the published data sets' layouts. numpy only; training and evaluation share them."""
