"""An endless world: its definition, and the rendering of any window of it."""
