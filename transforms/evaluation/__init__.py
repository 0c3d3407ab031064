"""The comparison of a generator with photographs."""
