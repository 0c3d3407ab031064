"""The networks, the world they span, and their training. Knows nothing of Beam."""

from model.threads import spin_briefly

spin_briefly()
