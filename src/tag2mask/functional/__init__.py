"""Pure functions: maps, affinities, pseudo-labels, information; no state, no files."""
