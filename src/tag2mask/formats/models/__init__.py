"""Model files that run without tag2mask, one file per format; found by their folder."""
