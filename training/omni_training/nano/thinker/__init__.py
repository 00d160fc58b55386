"""The nano thinker, made from nothing."""
