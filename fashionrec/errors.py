"""Every error that fashionrec raises on purpose.

::

    FashionrecError                exit 1   something failed during work
    ├── UsageError                 exit 2   wrong options or input; nothing was started
    │   ├── ConfigError                     a YAML file, a setting or a key=value
    │   ├── DataError                       a dataset, table or folder of photos
    │   │   └── ImageError                  an unreadable image file
    │   ├── ModelError                      a checkpoint, bundle or model id
    │   ├── CatalogueError                  a damaged or incompatible catalogue
    │   └── MissingExtra                    a package of an optional extra is not installed
    ├── CaptionError               exit 1   captioning failed
    ├── WriteError                 exit 1   the disk is full or failed
    ├── Refused                    exit 3   a limit or check failed
    └── Busy                       exit 75  another process holds the lock

An error is one line; its ``hint`` says what to do. :mod:`fashionrec.cli.session` prints both (a
traceback only with ``--debug``), and ends the process with the error's ``exit_code``.
"""

from __future__ import annotations


class FashionrecError(Exception):
    """The base of all errors.

    ``str(error)`` is one line; ``error.hint`` is one line or empty; ``shown`` is context, of any
    number of lines, to print between them.
    """

    exit_code = 1
    shown = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(" ".join(str(message).split()))
        self.hint = " ".join(hint.split())


class UsageError(FashionrecError):
    """Wrong options or input, found before work began."""

    exit_code = 2


class ConfigError(UsageError):
    """An unknown or invalid setting."""


class DataError(UsageError):
    """An unusable dataset, table or photo folder."""


class ImageError(DataError):
    """An unreadable image file. ``reason`` is a short stable word for reports."""

    def __init__(self, message: str, *, reason: str = "unreadable", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ModelError(UsageError):
    """A checkpoint, bundle or model id that cannot be loaded or does not fit."""


class CatalogueError(UsageError):
    """A catalogue that is missing, damaged, incompatible, or made with other models."""


class MissingExtra(UsageError):
    """A missing package of an optional extra; the hint is the ``pip install`` command for it."""


class CaptionError(FashionrecError):
    """A failed caption.

    ``state`` is the recorded outcome, ``retryable`` whether a retry can help.
    """

    def __init__(self, message: str, *, state: str = "failed", retryable: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.state = state
        self.retryable = retryable


class WriteError(FashionrecError):
    """The disk could not take what had to be written. Existing data is intact."""


class Refused(FashionrecError):
    """A failed limit or check.

    Before the work nothing was changed; after it the results are kept. The message says which.
    """

    exit_code = 3


class Busy(FashionrecError):
    """Another process holds the lock."""

    exit_code = 75
