"""Masks in the formats that labeling tools import."""
