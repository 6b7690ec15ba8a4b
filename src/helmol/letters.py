"""Names and texts in a locale that lacks their letters.

What is in files is UTF-8. Names of files are bytes, which Python reads by the locale: in one without an ``é``
its bytes become lone surrogates (PEP 383), with which the file is found but nothing can be written. So a
name that stands in a file is made one of the locale (:func:`os_name`) before it is looked for, and a name of
the locale is made letters (:func:`letters`, :func:`text_of`) before it is written or shown.
"""

from __future__ import annotations

import logging
import os


def os_name(text: str) -> str:
    """Return a name as the locale has it; letters that it lacks are the bytes of UTF-8.

    Raises:
        UnicodeEncodeError: surrogates that stand for no byte.
    """
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode(errors="surrogateescape"))
    return text


def letters(text: str) -> str:
    """Return a text with its surrogates made letters where they are UTF-8; other bytes stay surrogates."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text


def shown(text: str) -> str:
    """Return a text that can be printed: bytes that are no letters become escapes, other surrogates ``?``."""
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()


def text_of(name: str | os.PathLike[str]) -> str:
    """Return a name as text that can be written in UTF-8, whatever the locale read its bytes as."""
    text = os.fspath(name)
    try:
        return os.fsencode(os_name(text)).decode()
    except UnicodeError:
        return text.encode(errors="surrogateescape").decode(errors="replace")


class Lines(logging.Formatter):
    """Write log records with names of files that can be shown."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return shown(super().format(record))
