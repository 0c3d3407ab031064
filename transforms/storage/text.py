"""Text from outside: names, captions, headers, rows. It is made valid Unicode where it enters."""


def clean_text(text: str | bytes) -> str:
    """Returns the text with U+FFFD in place of whatever cannot be written as UTF-8.

    Args:
        text: bytes that should be UTF-8, or a string that may hold lone surrogates: of a JSON escape that was cut in
            half, or of bytes that Python could not decode. Surrogates that make a pair become the character they mean.
    """
    if isinstance(text, str):
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text
    return text.decode("utf-8", "replace")


def printable(text: str) -> str:
    """Returns the text in one line for a terminal: control characters, and all else that is not seen, are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in clean_text(text))
