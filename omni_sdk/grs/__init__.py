"""The Global Reasoning System without torch: processor, positions, generation, answer parser."""
