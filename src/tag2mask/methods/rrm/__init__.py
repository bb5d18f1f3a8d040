"""RRM: reliable regions as labels."""
