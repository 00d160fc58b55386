"""The Detail Understanding System: grounder, tracker, boxes and masks."""
