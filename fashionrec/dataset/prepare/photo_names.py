"""File names for photos of products, distinct on every file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_MAX_BYTES = 120  # a file name may have 255; a number, a suffix and the split's additions follow
_RESERVED = re.compile(r"(?:con|prn|aux|nul|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = frozenset('<>:"/\\|?*')


def photo_names(ids: Iterable[str]) -> dict[str, str]:
    """Return a file name, without suffix, for each id.

    Letters of every script are kept; forbidden ones become ``-``.

    A changed id, or one that differs from another only in case or accent encoding, gets six
    characters of its hash appended, so that no two ids share a name.
    """
    ids = list(dict.fromkeys(ids))
    names = {name: _safe(name) for name in ids}
    uses = Counter(_folded(safe) for safe in names.values())
    return {
        name: safe if safe == name and uses[_folded(safe)] == 1 else _with_hash(name, safe)
        for name, safe in names.items()
    }


def _safe(name: str) -> str:
    safe = "".join("-" if _is_forbidden(char) else char for char in unicodedata.normalize("NFC", name))
    safe = safe.strip(" .")
    while len(safe.encode()) > _MAX_BYTES:
        safe = safe[:-1]
    safe = safe.rstrip(" .") or "-"
    return f"-{safe}" if _RESERVED.fullmatch(safe) else safe


def _is_forbidden(char: str) -> bool:
    return char in _FORBIDDEN or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _with_hash(name: str, safe: str) -> str:
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
