"""Masks in the formats that labelling tools import."""
