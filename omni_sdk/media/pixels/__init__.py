"""From a decoder's planes to upright RGB, resized images and patches."""
