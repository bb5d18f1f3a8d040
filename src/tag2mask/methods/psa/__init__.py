"""PSA: AffinityNet and its random walk."""
