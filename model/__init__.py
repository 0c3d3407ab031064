"""The networks, the world they span, and their training. Does not depend on Beam."""

from model.memory import use_systems_pool
from model.threads import spin_briefly

spin_briefly()
use_systems_pool()
