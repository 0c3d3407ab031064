"""The storage of a training run: the stream of patches, and the run folder."""
