"""The command line: one thin module for each job that a person starts."""

import model  # noqa: F401 - sets up threads before anything here imports torch
