"""Training: the only package that handles optimizers, ranks and training devices."""
