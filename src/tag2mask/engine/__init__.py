"""Training: the only place with optimiser, device and ranks."""
