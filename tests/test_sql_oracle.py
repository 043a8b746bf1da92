"""Filters, values and texts as SQL over the rows has them: of a drawn catalogue, changed several
times.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.query_catalogue import draw
from fashionrec.catalogue.edit import remove_products, update_products
from fashionrec.config import load_config
from fashionrec.store import generations
from tests import sql_oracle

TINY = Path(__file__).parent / "data" / "tiny"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand items, of which 60 have changed and 20 have gone since."""
    root = tmp_path_factory.mktemp("oracle") / "c"
    draw(root, TINY / "detector", TINY / "embedder", (), 2000, columns=6)
    config = load_config(env={}).config
    changed = [
        {"product_id": f"p{n * 7}", "price": 5000, "color": None if n % 3 else "Mauve", "sale": n % 2}
        for n in range(60)
    ]
    update_products(root, changed, config)
    remove_products(root, [f"p{n * 7 + 400}" for n in range(20)], config)
    assert generations.read_current(root).changes_path is not None
    return root


@pytest.mark.parametrize("seed", range(3))
def test_a_catalogue_answers_as_sql_does(drawn: Path, seed: int) -> None:
    assert list(sql_oracle.differences(drawn, 100, seed)) == []


def test_what_is_answered_otherwise_is_told(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The arrays of a column no longer say what the rows say."""
    root = tmp_path / "c"
    shutil.copytree(drawn, root)
    with closing(sqlite3.connect(generations.read_current(root).items_path)) as db, db:
        db.execute("UPDATE entries SET metadata = json_set(metadata, '$.brand', 'Q') WHERE entry_no % 9 = 0")
        db.execute("UPDATE items SET words = replace(words, 'red ', 'dre ') WHERE item_no % 9 = 1")
    monkeypatch.setattr(sys, "argv", ["sql_oracle", str(root), "--questions", "60"])
    assert sql_oracle.main() == 1
    told = capsys.readouterr().out
    assert "values of brand" in told
    assert "text 'red" in told
    assert "brand =" in told or "brand in" in told
