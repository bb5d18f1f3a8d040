"""Formats of labeling tools and data sets, one file each; found by their folder."""
