"""The networks and their layers: the generator, its ablations, the discriminators, and the frozen networks."""
