"""The networks, the world they span, and their training. Does not depend on Beam."""

from model.threads import spin_briefly

spin_briefly()
