"""Exceptions that the command line reports in one line."""


class InputError(ValueError):
    """A flag, file, URL, picture, checkpoint or request that cannot be used.

    The message is one line that names the thing, its value and what to do. The command line prints it and exits with
    code 2; a pipeline turns it into a row of ``rejects`` or of the manifest.
    """


class DivergenceError(RuntimeError):
    """Training diverged: a loss is no longer a finite number."""


def one_line(error: BaseException) -> str:
    """Returns an error's message as one line of bounded length, or its class if it has no message."""
    return " ".join(str(error).split())[:300] or type(error).__name__
