"""What a training run reads and writes: the stream of patches, and the run folder."""
