"""Refiners: (image, probs) -> probs."""
