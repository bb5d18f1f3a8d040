"""Supervised segmentation on masks or pseudo-labels."""
