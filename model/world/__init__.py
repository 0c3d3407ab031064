"""An endless world: what it is made of, and any window of it."""
