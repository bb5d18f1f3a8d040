"""Images, tags and masks: sources, augmentation, loading, checks."""
