"""Text from outside sources, such as names, captions and headers, made valid Unicode where it enters."""


def clean_text(text: str | bytes) -> str:
    """Replaces whatever cannot be written as UTF-8 with U+FFFD.

    Args:
        text: bytes that should be UTF-8, or a string that may hold lone surrogates, from a JSON escape cut in half or
            from bytes that Python could not decode. A pair of surrogates becomes the character that it encodes.
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
    """Returns the text on one line for a terminal; control characters and other invisible ones are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in clean_text(text))
