"""One training step: losses, augmentation, and processes that train together."""
