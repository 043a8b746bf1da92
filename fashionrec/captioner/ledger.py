"""The plans and signatures of this user, in a private folder that no untrusted folder can reach.

A catalogue is copied with its pending batches and with the answers that a killed run left. Neither
may cost money or count as this user's own merely because it is there: a part is sent only if its
plan is recorded here, and an answer is used only if it is signed with the key stored here.

::

    <cache of the user>/captions/
      key                     signs answers
      TOKEN.part.json         a planned part of a batch, see :class:`PlannedPart`
      HASH.planned.json       the requests planned for the folder whose path has that hash
      HASH.written            sha256 of the file whose path has that hash, as a run left it
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fashionrec.common.files import dump_json, sha256_file
from fashionrec.common.folder import Folder
from fashionrec.common.system import private_folder, user_cache
from fashionrec.errors import WriteError

TOKEN = re.compile(r"[0-9a-f]{32}")
_HINT = "planned and paid captions are recorded there: set project.cache to a private folder"
_KEY, _HEX = re.compile(rb"[0-9a-f]{64}"), re.compile("[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class PlannedPart:
    """The part of a batch as it was planned.

    ``sha256`` and ``bytes`` describe its file of requests, ``requests`` is their number, ``folder``
    the folder of the batch, ``server`` the base URL. ``sent``: it was, or may have been, submitted.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    token: str
    sha256: str
    bytes: int
    requests: int
    model: str
    server: str
    folder: str
    file_id: str | None = None
    sent: bool = False


class Ledger:
    """The records of one user, by default in the system's cache folder.

    Raises :class:`WriteError` if the folder cannot be written.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.folder = (cache or user_cache()) / "captions"
        self._files = Folder(self.folder, "the records of captions", WriteError)

    def record(self, part: PlannedPart) -> None:
        """Record a part, or its new state."""
        self._write(f"{part.token}.part.json", dump_json(asdict(part)))

    def update(self, token: str, **values: str | bool) -> None:
        """Change some fields of a recorded part."""
        if (part := self.find(token)) is not None:
            self.record(replace(part, **values))  # type: ignore[arg-type]

    def find(self, token: str) -> PlannedPart | None:
        """Return the record of a part; None if there is none."""
        if not TOKEN.fullmatch(token) or not self._is_private():
            return None
        try:
            part = _PART.validate_json(self._files.read(f"{token}.part.json"))
        except (OSError, WriteError, ValidationError):
            return None
        return part if part.token == token else None

    def forget(self, token: str) -> None:
        """Remove the record of a finished part."""
        if TOKEN.fullmatch(token):
            self._remove(f"{token}.part.json")

    def planned(self, folder: Path) -> set[str]:
        """Return the names of the requests planned for a folder that have no outcome yet."""
        if not self._is_private():
            return set()
        try:
            return set(_NAMES.validate_json(self._files.read(_record_name(folder, "planned.json"))))
        except (OSError, WriteError, ValidationError):
            return set()

    def plan(self, folder: Path, names: Iterable[str]) -> None:
        """Record which requests are planned for a folder, replacing the previous record."""
        if planned := sorted(names):
            self._write(_record_name(folder, "planned.json"), dump_json(planned))
        else:
            self._remove(_record_name(folder, "planned.json"))

    def wrote(self, path: Path) -> None:
        """Record the hash of a file that a run of this user has written."""
        self._write(_record_name(path, "written"), sha256_file(path))

    def has_written(self, path: Path) -> bool:
        """Return whether a file is unchanged since a run of this user wrote it."""
        if not self._is_private():
            return False
        try:
            return self._files.read(_record_name(path, "written")).decode() == sha256_file(path)
        except (OSError, WriteError, ValueError):
            return False

    def can_sign(self) -> bool:
        """Return whether there is a key, or one can be created."""
        try:
            self._key()
        except WriteError:
            return False
        return True

    def signature(self, data: bytes) -> str:
        """Return the signature of ``data``, which needs this user's key."""
        return hmac.new(self._key(), data, hashlib.sha256).hexdigest()

    def is_own(self, data: bytes, signature: object) -> bool:
        """Return whether ``data`` was signed by a run of this user."""
        if not (isinstance(signature, str) and _HEX.fullmatch(signature)):
            return False
        return hmac.compare_digest(self.signature(data), signature)

    def _is_private(self) -> bool:
        return self.folder.exists() and private_folder(self.folder) is not None

    def _key(self) -> bytes:
        if not hasattr(self, "_secret"):
            self._make_folder()
            self._secret = self._read_key() or self._make_key()
        return self._secret

    def _read_key(self) -> bytes | None:
        for _ in range(20):  # another process may be writing it
            try:
                key = self._files.read("key")
            except OSError:
                return None
            if _KEY.fullmatch(key):
                return key
            time.sleep(0.05)
        self._remove("key")
        return None

    def _make_key(self) -> bytes:
        key = secrets.token_hex(32).encode()
        try:
            with self._files.open("key", "xb") as file:
                if hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), 0o600)
                file.write(key)
            return key
        except FileExistsError:
            return self._read_key() or self._make_key()
        except OSError as error:
            raise self._write_error(error) from None

    def _write(self, name: str, text: str) -> None:
        self._make_folder()
        try:
            self._files.write(name, text)
        except OSError as error:
            raise self._write_error(error) from None

    def _remove(self, name: str) -> None:
        self._files.remove(name, ignore_errors=True)

    def _make_folder(self) -> None:
        if private_folder(self.folder) is None:
            raise WriteError(
                f"{self.folder} cannot be used: you must own it, and nobody else may have write access", hint=_HINT
            )

    def _write_error(self, error: OSError) -> WriteError:
        return WriteError(f"{self.folder} cannot be written: {error.strerror}", hint=_HINT)


_PART = TypeAdapter(PlannedPart)
_NAMES = TypeAdapter(list[str])


def _record_name(path: Path, suffix: str) -> str:
    return f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.{suffix}"
