"""One column of a part of the items as arrays: its distinct values, and a code per item."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fashionrec.common.values import as_number, folded
from fashionrec.store.packed import narrow
from fashionrec.store.rows import DamagedRow

#: Delimits every text: a byte that never occurs in UTF-8.
EDGE = b"\xff"
#: Arrays of a column. ``shape`` has the number of texts, integers, floats, bools, lists and codes,
#: and of items with a value; ``at`` lists those items if they are few.
KINDS = ("shape", "texts", "numbers", "whole", "floats", "bools", "starts", "members", "codes", "at")
SHAPE = ("texts", "whole", "floats", "bools", "lists", "codes", "held")
_SPARSE = 4
_WHOLE = 1 << 63


@dataclass(frozen=True)
class ColumnPart:
    """The values of a column in one part.

    They are numbered from 1: texts, integers, floats, bools, then lists of these.

    Attributes:
        texts: Distinct texts after :func:`folded`, each between two :data:`EDGE`.
        numbers: float64, per text the number that it parses as, else NaN.
        whole: int64. floats: float64. bools: bool.
        starts: Start of each list's members, and the end of the last one's.
        members: Numbers of values, from 0.
        codes: The number of each item's value, 0 if it has none.
    """

    texts: bytes
    numbers: np.ndarray
    whole: np.ndarray
    floats: np.ndarray
    bools: np.ndarray
    starts: np.ndarray
    members: np.ndarray
    codes: np.ndarray

    @property
    def nbytes(self) -> int:
        arrays = (self.numbers, self.whole, self.floats, self.bools, self.starts, self.members, self.codes)
        return len(self.texts) + sum(array.nbytes for array in arrays)

    @property
    def scalars(self) -> int:
        """Number of values that are not lists."""
        return len(self.numbers) + len(self.whole) + len(self.floats) + len(self.bools)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], items: int) -> ColumnPart:
        """Parse the arrays of :meth:`ColumnBuilder.arrays` for a part of ``items``.

        Raises:
            DamagedRow: The arrays do not match each other or the items.
        """
        shape = arrays["shape"].tolist()
        if len(shape) != len(SHAPE) or arrays["shape"].dtype.kind == "f":
            raise DamagedRow("a column has no shape")
        texts, whole, floats, bools, lists, coded, _ = shape
        raw = arrays["texts"].tobytes()
        numbers = arrays["numbers"] if len(arrays["numbers"]) else np.full(texts if texts <= len(raw) else 0, np.nan)
        starts = arrays["starts"] if lists else np.zeros(1, np.uint8)
        scalars = texts + whole + floats + bools
        for found, count, kinds in (
            *((numbers, texts, "f"), (arrays["whole"], whole, "i"), (arrays["floats"], floats, "f")),
            *((arrays["bools"], bools, "u"), (starts, lists + 1, "ui"), (arrays["codes"], coded, "ui")),
        ):
            if len(found) != count or (count and found.dtype.kind not in kinds):
                raise DamagedRow("an array of a column has the wrong length")
        if (raw.count(EDGE) != texts + 1 or raw[:1] + raw[-1:] != EDGE * 2) if texts else raw:
            raise DamagedRow("the number of texts in a column is wrong")
        members, steps = arrays["members"], np.diff(starts.astype(np.int64))
        if starts[0] or (steps < 1).any() or starts[-1] != len(members):
            raise DamagedRow("the lists of a column are not contiguous")
        check_below(members, scalars)
        check_below(arrays["codes"], scalars + lists + 1)
        codes = arrays["codes"]
        if coded != items or len(arrays["at"]):
            check_below(arrays["at"], items)
            if len(arrays["at"]) != coded:
                raise DamagedRow("an array of a column has the wrong length")
            codes = np.zeros(items, codes.dtype)
            codes[arrays["at"]] = arrays["codes"]
        return cls(
            raw or EDGE, numbers, arrays["whole"], arrays["floats"], arrays["bools"] != 0, starts, members, codes
        )


def check_below(array: np.ndarray, limit: int) -> None:
    """Raise :class:`DamagedRow` unless an array has only integers from 0 to below ``limit``."""
    if len(array) and (array.dtype.kind not in "ui" or not 0 <= int(array.min()) <= int(array.max()) < limit):
        raise DamagedRow("an array has indexes out of range")


def plain(value: Any) -> Any:
    """Return a JSON value as a column stores it; None if nothing is left.

    A list becomes a tuple of its texts, numbers and bools.
    """
    if isinstance(value, list):
        return tuple(one for member in value if (one := _scalar(member)) is not None) or None
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -_WHOLE <= value < _WHOLE else float(value)
    return value if isinstance(value, float) and value == value else None


class ColumnBuilder:
    """Collects the values of one column, item by item."""

    def __init__(self) -> None:
        self._at, self._given = array("I"), array("I")
        self._values: dict[Any, int] = {}

    def add(self, item: int, value: Any) -> None:
        """Add the value of an item, as returned by :func:`plain`. Items come in order."""
        key = value if isinstance(value, str) else _key(value)
        self._at.append(item)
        self._given.append(self._values.setdefault(key, len(self._values)))

    def __len__(self) -> int:
        return len(self._at)

    def part(self, items: int) -> ColumnPart:
        """Return the column of a part of ``items``."""
        empty = np.zeros(0, np.uint8)
        return ColumnPart.of({**dict.fromkeys(KINDS, empty), **self.arrays(items)}, items)

    def arrays(self, items: int) -> dict[str, np.ndarray]:
        """Return the column of a part of ``items`` as arrays to write."""
        texts: dict[tuple[str, float | None], int] = {}
        groups: tuple[dict[Any, int], ...] = ({}, {}, {})  # integers, floats, bools

        def place(value: Any) -> tuple[int, int]:
            if isinstance(value, str):
                number = as_number(value)
                return 0, texts.setdefault((folded(value), number), len(texts))
            group = 2 if isinstance(value, bool) else 0 if isinstance(value, int) else 1
            return group + 1, groups[group].setdefault(value, len(groups[group]))

        lists = [key for key in self._values if isinstance(key, tuple) and key[0] is tuple]
        members = [[place(_value(member)) for member in key[1]] for key in lists]
        places = {key: place(_value(key)) for key in self._values if not (isinstance(key, tuple) and key[0] is tuple)}
        first = np.cumsum([0, len(texts), *map(len, groups)]).tolist()
        numbered = {key: first[group] + n + 1 for key, (group, n) in places.items()}
        numbered |= {key: first[-1] + n + 1 for n, key in enumerate(lists)}
        codes = np.array([numbered[key] for key in self._values], np.int64)[np.asarray(self._given)]
        known = [number for _, number in texts]
        made = {
            "shape": narrow([len(texts), *map(len, groups), len(lists), len(codes), len(codes)]),
            "codes": narrow(codes),
            "whole": np.array(list(groups[0]), np.int64),
            "floats": np.array(list(groups[1]), np.float64),
            "bools": np.array(list(groups[2]), np.uint8),
        }
        if texts:
            joined = EDGE + EDGE.join(text.encode(errors="surrogatepass") for text, _ in texts) + EDGE
            made["texts"] = np.frombuffer(joined, np.uint8)
        if any(number is not None for number in known):
            made["numbers"] = np.array([np.nan if number is None else number for number in known], np.float64)
        if lists:
            made["starts"] = narrow(np.cumsum([0, *map(len, members)]))
            made["members"] = narrow([first[group] + n for row in members for group, n in row])
        if len(codes) * _SPARSE < items:
            made["at"] = narrow(np.asarray(self._at))
        elif len(codes) < items:
            dense = np.zeros(items, made["codes"].dtype)
            dense[np.asarray(self._at)] = made["codes"]
            made["codes"], made["shape"] = dense, narrow([*made["shape"].tolist()[:-2], items, len(codes)])
        return made


def _key(value: Any) -> Any:
    """Return a key that tells apart ``1``, ``1.0`` and ``True``, which are equal in Python."""
    return (tuple, tuple(map(_key, value))) if isinstance(value, tuple) else (type(value), value)


def _value(key: Any) -> Any:
    return key[1] if isinstance(key, tuple) else key
