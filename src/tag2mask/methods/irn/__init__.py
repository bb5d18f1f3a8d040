"""IRN: inter-pixel relations from class boundaries."""
