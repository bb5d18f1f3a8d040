"""AEFT: adversarial erasing with triplets."""
