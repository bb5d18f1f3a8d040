"""Training: the only place with optimizer, device and ranks."""
