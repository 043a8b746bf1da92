"""Every error that fashionrec raises on purpose.

::

    FashionrecError                exit 1   something failed during work
    ├── UsageError                 exit 2   wrong use or input; nothing was started
    │   ├── ConfigError                     a YAML file, a setting or a key=value
    │   ├── DataError                       a dataset, table or folder of photos
    │   │   └── ImageError                  one image file that cannot be read
    │   ├── ModelError                      a checkpoint, bundle or model id
    │   ├── CatalogueError                  a catalogue that is damaged, foreign or of another version
    │   └── MissingExtra                    a package of an optional extra is not installed
    ├── CaptionError               exit 1   a caption could not be had
    ├── WriteError                 exit 1   the disk refused: no room, a fault
    ├── Refused                    exit 3   a gate or guard says no
    └── Busy                       exit 75  another writer holds the lock

An error is one line; its ``hint`` says what to do about it. :mod:`fashionrec.cli.session` prints
both (a traceback only with ``--debug``), and ends the process with the error's ``exit_code``.
"""

from __future__ import annotations


class FashionrecError(Exception):
    """Base of the tree. ``str(error)`` is one line; ``error.hint`` is one line or empty; ``shown`` are lines to show between."""

    exit_code = 1
    shown = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(" ".join(str(message).split()))
        self.hint = " ".join(hint.split())


class UsageError(FashionrecError):
    """Wrong use or input: found before work began."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting that is unknown, of the wrong type, or out of range."""


class DataError(UsageError):
    """A dataset, table or photo folder that cannot be used as it is."""


class ImageError(DataError):
    """One image file that cannot be read. ``reason`` is a short stable word for reports."""

    def __init__(self, message: str, *, reason: str = "unreadable", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ModelError(UsageError):
    """A checkpoint, bundle or model id that cannot be loaded or does not fit."""


class CatalogueError(UsageError):
    """A catalogue that is missing, damaged, foreign, or made with other models."""


class MissingExtra(UsageError):
    """A package of an optional extra is missing; the hint is the ``pip install`` that brings it."""


class CaptionError(FashionrecError):
    """A caption could not be had. ``state`` is the recorded outcome, ``retryable`` whether asking again can help."""

    def __init__(self, message: str, *, state: str = "failed", retryable: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.state = state
        self.retryable = retryable


class WriteError(FashionrecError):
    """The disk refused to take what had to be written. What was there before is whole."""


class Refused(FashionrecError):
    """A gate or guard says no: before the work (nothing was changed) or after it (what was made is kept).

    The message says which.
    """

    exit_code = 3


class Busy(FashionrecError):
    """Another process holds the lock."""

    exit_code = 75
