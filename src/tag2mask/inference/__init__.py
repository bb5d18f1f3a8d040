"""From images to masks: test-time protocol, the Segmenter, mask files, sample strips."""
