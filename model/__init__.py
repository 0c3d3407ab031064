"""The networks, the world they span, and their training. Knows nothing of Beam."""
