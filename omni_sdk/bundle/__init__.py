"""Model directories: manifest, hashes, variants, what they take in memory, where they come from."""
