"""Recipes: the schema of every setting, YAML files, stages, overrides."""
