"""Scores of masks and tags against true masks and true tags."""
