"""Recipes fitted to a folder of images and to a machine."""
