"""OC-CSE: class-specific erasing evaluated by an ordinary classifier."""
