"""Counts over all items of a catalogue, stored in the file; a change costs in proportion to itself.

The file also records how many items each of the base's parts has room for.

A photo with all that belongs to it (garments, entries, items, captions) is in one file, so each
count is the base's, minus that of the removed rows, plus that of the delta. Only a product may be
in both.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from fashionrec.store.rows import DamagedRow, typed
from fashionrec.store.schema import LAYERED

#: Prefixes of the names of segments and of captioners.
SEGMENT, CAPTIONER = "segment:", "captioner:"
_GONE, _PART_ITEMS = "gone:", "part_items"
_FIRST_PART_ITEMS = 1 << 16  # before it was recorded
# ``total``, since ``count`` may run outside SQLite's virtual machine, where no limit of steps
# applies
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
#: For each product that the delta touches: whether it is in the base, and whether it still is.
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
    """Count the rows of a base that were removed with some photos.

    ``keys`` is the prefix of the tables with their keys.
    """
    tables = {table: f"{keys}{table} CROSS JOIN {base}.{table} ON {key} = key" for table, key in LAYERED.items()}
    tables["captions"] = f"{keys}garments CROSS JOIN {base}.captions ON garment_no = key"
    return _sums(db, base, tables)


def count_changed(
    db: sqlite3.Connection, base: str, changes: str, gone: Mapping[str, int] | None = None
) -> Counter[str]:
    """Count base and delta together.

    It uses the base's own counts, those of rows ``gone`` from it (computed if not given), and the
    rows of the delta.
    """
    found = read_totals(db, base) or count_rows(db, base)
    found.subtract(count_gone(db, base, f"{changes}.gone_") if gone is None else gone)
    found.update(_sums(db, changes, {table: f"{changes}.{table}" for table in (*LAYERED, "captions")}))
    for before, after in db.execute(_TOUCHED.format(base=base, changes=changes)):
        found["products"] += after - before
    return _checked(found)


def read_totals(db: sqlite3.Connection, file: str) -> Counter[str]:
    """Return the counts stored in a file; in a delta, those over base and delta.

    Empty if there are none.

    Raises:
        DamagedRow: A count is invalid.
    """
    return _checked(
        Counter({name: n for name, n in _kept(db, file).items() if not name.startswith((_PART_ITEMS, _GONE))})
    )


def read_gone(db: sqlite3.Connection, file: str) -> Counter[str] | None:
    """Return the counts over rows removed from the base, as stored in a delta; None without."""
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
    """Store counts in a file; in a delta, also those of rows ``gone`` from the base."""
    db.execute("DELETE FROM main.totals")
    kept = {**totals, _PART_ITEMS: part_items, **{_GONE + name: count for name, count in (gone or {}).items()}}
    db.executemany("INSERT INTO main.totals VALUES (?, ?)", kept.items())


def _checked(totals: Counter[str]) -> Counter[str]:
    if min(totals.values(), default=0) < 0:
        raise DamagedRow("counts over the items are negative")
    return totals


def read_part_items(db: sqlite3.Connection) -> int:
    """Return how many items each part of a file has room for.

    Raises:
        DamagedRow: The number is invalid.
    """
    rows = typed(db.execute("SELECT count FROM main.totals WHERE name = ?", (_PART_ITEMS,)), (int,))
    size = next(rows, (_FIRST_PART_ITEMS,))[0]
    if size < 1:
        raise DamagedRow("parts without room for items")
    return int(size)


def of_kind(totals: Mapping[str, int], kind: str) -> dict[str, int]:
    """Return the counts of all segments, or captioners, in the order of their names."""
    return {name.removeprefix(kind): count for name, count in sorted(totals.items()) if count and name.startswith(kind)}


def _sums(db: sqlite3.Connection, file: str, tables: Mapping[str, str]) -> Counter[str]:
    """Count over ``tables`` of one file."""
    found: Counter[str] = Counter()
    for name, count in typed(db.execute(_SUMS.format(file=file, **tables)), (str, int | float)):
        found[name] += int(count)
    return found
