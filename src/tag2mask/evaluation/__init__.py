"""Scores of masks and tags against the truth."""
