"""Exceptions that the command line turns into one line."""


class InputError(ValueError):
    """A flag, file, URL, picture, checkpoint or request that cannot be used.

    The message is one line that names the thing, its value and the cure. The command line prints it and exits with
    code 2; a pipeline turns it into a row of ``rejects`` or of the manifest.
    """


class DivergenceError(RuntimeError):
    """Training went wrong: a loss is no longer a finite number."""
