"""(image, probability) -> probability."""
