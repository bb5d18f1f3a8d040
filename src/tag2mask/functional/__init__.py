"""Pure functions that several methods share: CAMs, affinities, pseudo-labels, filters."""
