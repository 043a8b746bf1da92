"""Names of files for photos of products: told apart on every file system, and the same whatever came before."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_LONGEST = 120  # bytes; a file name may have 255, and a number, a suffix and what a split adds come behind
_RESERVED = re.compile(r"(?:con|prn|aux|nul|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = frozenset('<>:"/\\|?*')


def photo_names(ids: Iterable[str]) -> dict[str, str]:
    """A file name, without suffix, for each id. Letters of every script stay; what no file system takes becomes ``-``.

    An id that had to be changed, or that differs from another only in case or in how its accents are stored, gets six
    letters of its hash behind it, so that no two ids share a name.
    """
    ids = list(dict.fromkeys(ids))
    names = {name: _safe(name) for name in ids}
    times = Counter(_folded(safe) for safe in names.values())
    return {
        name: safe if safe == name and times[_folded(safe)] == 1 else _marked(name, safe)
        for name, safe in names.items()
    }


def _safe(name: str) -> str:
    kept = "".join("-" if _bad(char) else char for char in unicodedata.normalize("NFC", name))
    kept = kept.strip(" .")
    while len(kept.encode()) > _LONGEST:
        kept = kept[:-1]
    kept = kept.rstrip(" .") or "-"
    return f"-{kept}" if _RESERVED.fullmatch(kept) else kept


def _bad(char: str) -> bool:
    return char in _FORBIDDEN or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _marked(name: str, safe: str) -> str:
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
