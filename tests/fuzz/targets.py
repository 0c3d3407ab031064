"""What is fuzzed. A target is an entry of `TARGETS`: how an input is made, and what must handle it."""

import ingest_targets
import render_targets
import train_targets

TARGETS = {**ingest_targets.TARGETS, **render_targets.TARGETS, **train_targets.TARGETS}
"""What ``make fuzz`` goes through."""
