"""The web page of one run: look at masks, move thresholds, correct with a brush, save."""
