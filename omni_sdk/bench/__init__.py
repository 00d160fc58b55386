"""How long each stage takes on this machine, and whether two such measurements differ."""
