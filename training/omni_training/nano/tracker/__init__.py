"""The nano tracker, made from nothing."""
