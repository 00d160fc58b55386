"""Masks warped by the motion of points from tracked frames to the frames in between."""
