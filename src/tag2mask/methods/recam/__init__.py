"""ReCAM: class re-activation maps."""
