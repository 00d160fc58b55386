"""SAM 2 over four graphs: prompts, memory bank, propagation, tracker."""
