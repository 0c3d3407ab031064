"""The targets of fuzzing: how an input is made, and which code must handle it. `TARGETS` lists them."""

import ingest_targets
import render_targets
import train_targets

TARGETS = {**ingest_targets.TARGETS, **render_targets.TARGETS, **train_targets.TARGETS}
"""The targets of ``make fuzz``."""
