"""Reading and writing images, masks and whole files."""
