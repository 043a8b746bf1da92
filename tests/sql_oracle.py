"""Filters, counts of values and texts of a drawn catalogue against SQL over the rows of its items.

python -m tests.sql_oracle CATALOGUE [--questions 500] [--seed 1]

The catalogue is one of `benchmarks/query_catalogue.py`, changed or not. SQLite's own JSON
functions, comparisons and full-text search answer the same questions; each that is answered
otherwise is printed. Exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.config import load_config
from fashionrec.search.filters.columns import Columns
from fashionrec.store.words import match_expression, query_phrases

COLOURS = ("red", "navy", "white", "black", "beige", "khaki", "Red", "mauve")
KINDS = ("dress", "pants", "skirt", "top")
#: A sample of each column's values to ask for, by its name without digits.
VALUES = {
    "price": lambda rng: rng.randrange(5, 310) * 1000,
    "draw": lambda rng: round(rng.random(), 3),
    "number": lambda rng: rng.randrange(-3, 1005),
    "brand": lambda rng: f"'{rng.choice('ABCDEFGHIa')}'",
    "color": lambda rng: f"'{rng.choice(COLOURS)}'",
    "text": lambda rng: f"'{rng.choice(COLOURS)} {rng.randrange(12)}'",
    "title": lambda rng: f"'{rng.choice(COLOURS)} {rng.choice(KINDS)} {rng.randrange(2000)}'",
    "product_id": lambda rng: f"'p{rng.randrange(2000)}'",
    "currency": lambda rng: f"'{rng.choice(['KRW', 'krw', 'USD'])}'",
    "sale": lambda rng: rng.randrange(3),
}
NUMERIC = ("price", "draw", "number", "sale")


def comparison(rng: random.Random, columns: list[str]) -> tuple[str, str]:
    """A random comparison as `--where` has it, and as SQL."""
    column = rng.choice(columns)
    value = VALUES[column.rstrip("0123456789")]
    kinds = ["=", "!=", "<", "<=", ">", ">=", "in", "not in", "between", "is null", "is not null", "like"]
    kind = rng.choice(kinds[: -1 if column.startswith(NUMERIC) else None])
    if kind.endswith("null"):
        return (f"{column} {kind}",) * 2
    if kind == "like":
        word = rng.choice((*COLOURS, *KINDS, "p1", "9"))
        pattern = rng.choice((f"%{word}%", f"{word}%", f"%{word}", f"%{word[:2]}_%", f"{word} %1%"))
        return (f"{column} like '{pattern}'",) * 2
    if kind.endswith("in"):
        right = f"({', '.join(str(value(rng)) for _ in range(rng.choice([1, 2, 5, 40])))})"
    elif kind == "between":
        low, high = sorted((value(rng), value(rng)))
        right = f"{low} and {high}"
    else:
        right = str(value(rng))
    plain = column if column.startswith(NUMERIC) else f"lower({column})"
    return f"{column} {kind} {right}", f"{plain} {kind} {right.lower()}"


def question(rng: random.Random, columns: list[str], depth: int = 2) -> tuple[str, str]:
    """A random filter as `--where` has it, and as SQL."""
    if depth == 0 or rng.random() < 0.35:
        return comparison(rng, columns)
    if rng.random() < 0.2:
        where, sql = question(rng, columns, depth - 1)
        return f"not ({where})", f"not ({sql})"
    parts = [question(rng, columns, depth - 1) for _ in range(rng.choice([2, 3]))]
    word = f" {rng.choice(['and', 'or'])} "
    return word.join(f"({where})" for where, _ in parts), word.join(f"({sql})" for _, sql in parts)


def words(rng: random.Random) -> str:
    """A random text to search by."""
    one = (*COLOURS, *KINDS, "17", "1999", "nothing", "dress 5", "red dress", "navy-top")
    return " ".join(rng.sample(one, rng.choice([1, 1, 2, 3])))


class Oracle:
    """All items of a generation in one table of SQLite, a column each, and their words in FTS5."""

    def __init__(self, base: Path, changes: Path | None, columns: list[str]) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.execute("ATTACH ? AS base", (str(base),))
        live = ""
        if changes:
            self.db.execute("ATTACH ? AS changes", (str(changes),))
            live = " WHERE i.item_no NOT IN (SELECT key FROM changes.gone_items)"
        data = [name for name in columns if name != "product_id"]
        fields = ", ".join(f"json_extract(e.metadata, '$.{name}') AS {name}" for name in data)
        rows = "SELECT i.item_no, i.words, i.product_id, {0} FROM {1}.items i JOIN {1}.entries e USING (entry_no)"
        self.db.execute(f"CREATE TABLE item AS {rows.format(fields, 'base')}{live}")
        if changes:
            self.db.execute(f"INSERT INTO item {rows.format(fields, 'changes')}")
        self.db.execute("CREATE VIRTUAL TABLE text USING fts5 (words, tokenize='unicode61')")
        self.db.execute("INSERT INTO text (rowid, words) SELECT item_no, words FROM item")

    def kept(self, sql: str) -> np.ndarray:
        rows = self.db.execute(f"SELECT item_no FROM item WHERE {sql} ORDER BY item_no")
        return np.fromiter((n for (n,) in rows), np.int64)

    def counts(self, column: str) -> Counter[object]:
        rows = self.db.execute(f"SELECT {column}, count(*) FROM item WHERE {column} IS NOT NULL GROUP BY {column}")
        return Counter({str(value).lower(): count for value, count in rows})

    def found(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        match = match_expression(query_phrases(query))
        rows = self.db.execute("SELECT rowid, -rank FROM text WHERE text MATCH ? ORDER BY rowid", (match,)).fetchall()
        return np.array([n for n, _ in rows], np.int64), np.array([score for _, score in rows], float)


def differences(root: Path, questions: int, seed: int) -> Iterator[str]:
    """Return what a catalogue answers otherwise than SQL does, of some random questions: a line
    each.
    """
    rng = random.Random(seed)
    with Catalogue.open(root, load_config(env={}).config) as catalogue:
        known = set(catalogue.items.column_names())
        columns = [*sorted(name for name in known if name.rstrip("0123456789") in VALUES), "product_id"]
        served = catalogue.generation
        oracle, arrays = Oracle(served.items_path, served.changes_path, columns), Columns.of(catalogue)
        with closing(oracle.db):
            for column in columns:
                if counts(catalogue, column) != oracle.counts(column):
                    yield f"values of {column}"
            for n in range(questions):
                if n % 5 == 4:
                    query = words(rng)
                    found = catalogue.items.matches(query)
                    numbers, scores = oracle.found(query)
                    if not np.array_equal(found.numbers, numbers) or not np.allclose(found.scores, scores, rtol=1e-6):
                        yield f"text {query!r}: {len(found.numbers)}, not {len(numbers)}"
                    continue
                where, sql = question(rng, columns)
                kept = np.sort(arrays.numbers[arrays.allowed(where)[0]])
                expected = oracle.kept(sql)
                if not np.array_equal(kept, expected):
                    yield f"{where}: {len(kept)}, not {len(expected)}"


def counts(catalogue: Catalogue, column: str) -> Counter[object]:
    """Return how many items have each value of a column, texts in lower case."""
    total: Counter[object] = Counter()
    for _, part in catalogue.items.column(column):
        values: list[object] = [text.decode() for text in part.texts[1:-1].split(b"\xff")] if len(part.numbers) else []
        values += [*part.whole.tolist(), *part.floats.tolist(), *part.bools.tolist()]
        times = np.bincount(part.codes, minlength=len(values) + 1)[1:].tolist()
        for value, count in zip(values, times, strict=True):
            total[str(value).lower()] += count
    return +total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = list(differences(given.catalogue, given.questions, given.seed))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{given.questions} questions of seed {given.seed}: {len(wrong)} answered otherwise")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
