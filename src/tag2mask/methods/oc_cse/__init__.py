"""OC-CSE: class-specific erasing judged by an ordinary classifier."""
