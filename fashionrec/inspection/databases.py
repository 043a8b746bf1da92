"""Check SQLite files for code that would run in other programs' statements."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from fashionrec.common.folder import Folder
from fashionrec.common.sqlite import MAX_VALUE, open_foreign
from fashionrec.inspection.report import Report
from fashionrec.store.schema import READABLE

_STEPS = 10_000_000


def check_database(
    folder: Folder, name: str, report: Report, *, steps: int = _STEPS, max_value: int = MAX_VALUE
) -> None:
    """Report views, triggers, virtual tables and journals. The file is opened as immutable.

    Reading its schema may take ``steps`` of SQLite's virtual machine; texts may have ``max_value``
    bytes.
    """
    for suffix in ("-journal", "-wal"):
        if folder.kind(name + suffix) is not None:
            report.add(name + suffix, "journal", "changes that SQLite would apply on opening the database")
    path = folder.path(name).absolute()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            db.set_progress_handler(lambda: True, steps)
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_value)
            for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
                db.execute(f"PRAGMA {pragma}")
            rows = db.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(10_000)
    except sqlite3.Error as error:
        report.add(name, "database", f"not readable by SQLite: {error}", "", refused=_served(report))
        return
    if name.endswith(("items.sqlite", "changes.sqlite")) and _served(report):
        try:
            open_foreign(path, READABLE, mode="immutable").close()
        except sqlite3.Error as error:
            report.add(name, "database", str(error), refused=True)
            return
    for kind, title, sql in rows:
        text = " ".join(str(sql).replace("(", " (").split())
        foreign_table = text.upper().startswith("CREATE VIRTUAL TABLE") and " USING fts5 " not in text
        if kind in ("view", "trigger") or foreign_table:
            what = "virtual table" if foreign_table else kind
            report.add(name, "database", f"it has a {what} {str(title)[:60]!r}", refused=_served(report))


def _served(report: Report) -> bool:
    return report.kind == "catalogue"
