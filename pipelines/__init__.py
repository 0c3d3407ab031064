"""What a person starts: one thin module a job."""

import model  # noqa: F401 - which sets up threads before anything here imports torch
