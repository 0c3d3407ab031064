"""Exceptions that the command line turns into one line."""


class InputError(ValueError):
    """A flag, file, URL, picture, checkpoint or request that cannot be used.

    The message is one line that names the thing, its value and the cure. The command line prints it and exits with
    code 2; a pipeline turns it into a row of ``rejects`` or of the manifest.
    """


class DivergenceError(RuntimeError):
    """Training went wrong: a loss is no longer a finite number."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bounded length; its kind, if it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
