"""The web page of one run: inspect masks, move thresholds, correct with a brush, save."""
