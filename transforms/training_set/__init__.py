"""The training set on storage: its samples, shards, tables and ``dataset.json``."""
