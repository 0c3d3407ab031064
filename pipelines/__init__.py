"""The command line: one thin module for each job that a person starts."""

import model  # noqa: F401 - sets up threads and memory before anything here imports torch or Arrow
