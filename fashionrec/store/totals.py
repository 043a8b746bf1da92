"""Sums over all items of a catalogue, kept in the file of its base: after a change they cost in proportion to the change.

Beside them stands how many items each of the base's parts has room for.

A photo with all that belongs to it (garments, entries, items, captions) is in one file, so each sum is the base's, less that of
what has gone from it, and that of the changes. A product alone may be in both.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from fashionrec.store.rows import DamagedRow, typed
from fashionrec.store.schema import LAYERED

#: What the names of segments and of captioners begin with.
SEGMENT, CAPTIONER = "segment:", "captioner:"
_GONE, _PART_ITEMS = "gone:", "part_items"
_FIRST_PART_ITEMS = 1 << 16  # before it was noted
# ``total``, since ``count`` may run outside SQLite's virtual machine, where no limit of steps holds
_SUMS = f"""
SELECT 'photos', total(1) FROM {{photos}}
UNION ALL SELECT 'undetected', total(1) FROM {{photos}}
  WHERE NOT EXISTS (SELECT 1 FROM {{file}}.garments o WHERE o.photo = sha256 AND NOT o.whole_photo)
UNION ALL SELECT 'entries', total(1) FROM {{entries}}
UNION ALL SELECT 'garments', total(1) FROM {{garments}}
UNION ALL SELECT 'shown', count(DISTINCT garment_no) FROM {{items}}
UNION ALL SELECT 'items', total(NOT worn_with) FROM {{items}}
UNION ALL SELECT 'worn_with', total(worn_with) FROM {{items}}
UNION ALL SELECT 'captions', total(1) FROM {{captions}}
UNION ALL SELECT '{SEGMENT}' || segment, total(1) FROM {{garments}} GROUP BY segment
UNION ALL SELECT '{SEGMENT}' || segment, total(1) FROM {{captions}} WHERE segment IS NOT NULL GROUP BY segment
UNION ALL SELECT '{CAPTIONER}' || captioner, total(1) FROM {{captions}}
  WHERE EXISTS (SELECT 1 FROM {{file}}.items o WHERE o.garment_no = captions.garment_no) GROUP BY captioner
"""
_PRODUCTS = "SELECT count(DISTINCT product_id) FROM {file}.items WHERE NOT worn_with"
#: Of each product that changes touch, whether it is one in the base, and whether it still is.
_TOUCHED = """
SELECT EXISTS (SELECT 1 FROM {base}.items o WHERE o.product_id = p.product_id AND NOT worn_with),
  EXISTS (SELECT 1 FROM {changes}.items o WHERE o.product_id = p.product_id AND NOT worn_with)
  OR EXISTS (SELECT 1 FROM {base}.items o WHERE o.product_id = p.product_id AND NOT worn_with
    AND item_no NOT IN (SELECT key FROM {changes}.gone_items))
FROM (SELECT product_id FROM {changes}.gone_items CROSS JOIN {base}.items ON item_no = key
  UNION SELECT product_id FROM {changes}.items) p
"""


def count_rows(db: sqlite3.Connection, file: str) -> Counter[str]:
    """Count all rows of a file."""
    tables = {table: f"{file}.{table}" for table in (*LAYERED, "captions")}
    found = _sums(db, file, tables)
    found["products"] = int(db.execute(_PRODUCTS.format(file=file)).fetchone()[0])
    return found


def count_gone(db: sqlite3.Connection, base: str, keys: str) -> Counter[str]:
    """Count the rows of a base whose keys are in the tables ``keys`` and the name of each: what went with some photos."""
    tables = {table: f"{keys}{table} CROSS JOIN {base}.{table} ON {key} = key" for table, key in LAYERED.items()}
    tables["captions"] = f"{keys}garments CROSS JOIN {base}.captions ON garment_no = key"
    return _sums(db, base, tables)


def count_changed(
    db: sqlite3.Connection, base: str, changes: str, gone: Mapping[str, int] | None = None
) -> Counter[str]:
    """Count what a base and changes have together: from the base's own sums, those of what has ``gone`` from it (counted where
    they are not given), and the rows of the changes."""
    found = read_totals(db, base) or count_rows(db, base)
    found.subtract(count_gone(db, base, f"{changes}.gone_") if gone is None else gone)
    found.update(_sums(db, changes, {table: f"{changes}.{table}" for table in (*LAYERED, "captions")}))
    for before, after in db.execute(_TOUCHED.format(base=base, changes=changes)):
        found["products"] += after - before
    return _checked(found)


def read_totals(db: sqlite3.Connection, file: str) -> Counter[str]:
    """The sums that a file keeps: of changes those over base and changes. Empty where it keeps none.

    Raises :class:`DamagedRow`.
    """
    return _checked(
        Counter({name: n for name, n in _kept(db, file).items() if not name.startswith((_PART_ITEMS, _GONE))})
    )


def read_gone(db: sqlite3.Connection, file: str) -> Counter[str] | None:
    """The sums over what has gone from the base, as a file of changes keeps them; None where it keeps none."""
    kept = _kept(db, file)
    return _checked(Counter(of_kind(kept, _GONE))) if kept else None


def _kept(db: sqlite3.Connection, file: str) -> dict[str, int]:
    known = f"SELECT 1 FROM {file}.sqlite_master WHERE type = 'table' AND name = 'totals'"
    if not db.execute(known).fetchone():
        return {}
    return dict(typed(db.execute(f"SELECT name, count FROM {file}.totals"), (str, int)))


def write_totals(
    db: sqlite3.Connection, totals: Mapping[str, int], part_items: int, gone: Mapping[str, int] | None = None
) -> None:
    """Keep sums in a file; in one of changes, also those of what has ``gone`` from the base."""
    db.execute("DELETE FROM main.totals")
    kept = {**totals, _PART_ITEMS: part_items, **{_GONE + name: count for name, count in (gone or {}).items()}}
    db.executemany("INSERT INTO main.totals VALUES (?, ?)", kept.items())


def _checked(totals: Counter[str]) -> Counter[str]:
    if min(totals.values(), default=0) < 0:
        raise DamagedRow("the sums over the items are less than nothing")
    return totals


def read_part_items(db: sqlite3.Connection) -> int:
    """How many items each part of a file that has parts has room for. Raises :class:`DamagedRow`."""
    rows = typed(db.execute("SELECT count FROM main.totals WHERE name = ?", (_PART_ITEMS,)), (int,))
    size = next(rows, (_FIRST_PART_ITEMS,))[0]
    if size < 1:
        raise DamagedRow("parts that have room for nothing")
    return int(size)


def of_kind(totals: Mapping[str, int], kind: str) -> dict[str, int]:
    """The sums of all segments, or captioners, in the order of their names."""
    return {name.removeprefix(kind): count for name, count in sorted(totals.items()) if count and name.startswith(kind)}


def _sums(db: sqlite3.Connection, file: str, tables: Mapping[str, str]) -> Counter[str]:
    """The sums over ``tables``, which are of one file."""
    found: Counter[str] = Counter()
    for name, count in typed(db.execute(_SUMS.format(file=file, **tables)), (str, int | float)):
        found[name] += int(count)
    return found
