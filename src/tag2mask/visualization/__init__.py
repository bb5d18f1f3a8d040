"""Pictures of what a network computes: panels, strips, heat maps, affinity maps."""
