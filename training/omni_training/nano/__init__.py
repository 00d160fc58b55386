"""The nano bundle's models, made from nothing on the procedural world."""
