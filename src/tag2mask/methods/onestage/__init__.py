"""1Stage: single-stage segmentation from image labels."""
