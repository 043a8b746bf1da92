"""`evaluate --captions`: what captions tell against what is known, by hand and from the command
line.
"""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result

from fashionrec.evaluation.captions import Pair, score

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


def test_scores_by_hand() -> None:
    pairs = [
        Pair("top", "red", "red"),
        Pair("top", "red", "blue"),
        Pair("top", "blue", "blue"),
        Pair("pants", "blue", "unknown"),
        Pair("pants", "blue", "blue"),
    ]
    found = score(pairs)
    assert found["garments"] == 5
    assert found["told"] == 0.8
    assert found["right_of_told"] == 0.75
    assert found["right"] == 0.6
    assert found["majority"] == 0.8  # red of two tops in three, blue of both pants
    # told: truth red 2, blue 2; said red 1, blue 3: by chance (2*1 + 2*3) / 16
    assert found["kappa"] == pytest.approx((0.75 - 0.5) / 0.5)
    assert found["mistakes"] == [["red", "blue", 1]]


def test_a_captioner_that_tells_nothing_or_always_the_same_gains_nothing() -> None:
    mute = score([Pair("top", "red", "unknown")] * 4)
    assert (mute["told"], mute["right_of_told"], mute["right"], mute["kappa"]) == (0.0, None, 0.0, None)
    same = score([Pair("top", value, "red") for value in ("red", "red", "blue", "green")])
    assert (same["right"], same["majority"], same["kappa"]) == (0.5, 0.5, 0.0)


@pytest.fixture
def index(cli: Cli, tmp_path: Path) -> Path:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    rows = ["image,product_id,color,price"]
    rows += [
        f"photos/{n}.jpg,{n},{c},100" for n, c in [("red-white", "red"), ("white-blue", "파랑"), ("green", "green")]
    ]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    assert cli("build-index", "p.csv", "--index", "c", *MODELS, "--quiet").code == 0
    return tmp_path / "c"


def test_the_local_captioner_is_measured_where_nothing_was_captioned(cli: Cli, index: Path) -> None:
    done = cli("evaluate", "--captions", "--index", "c", "--json")
    assert done.code == 0, done.err
    assert set(done.document["captioners"]) == {"local"}
    color = done.document["captioners"]["local"]["color"]
    assert color["garments"] == 3  # one of them in Korean
    assert color["right_of_told"] == 1.0
    assert cli("evaluate", "--captions", "--index", "c").out.count("color") == 1


def test_another_captioner_is_measured_beside_it_and_a_wrong_word_shows(cli: Cli, index: Path) -> None:
    assert cli("caption", "--index", "c", "--captioner", "local", "--quiet").code == 0
    (items,) = index.glob("generations/*2/changes.sqlite")
    with sqlite3.connect(items) as db:  # as an API's would be, one of them wrong
        db.execute("UPDATE captions SET captioner = 'openai'")
        db.execute("""UPDATE captions SET attributes = json_set(attributes, '$.color', 'pink')
            WHERE garment_no = (SELECT min(garment_no) FROM captions)""")
    db.close()
    done = cli("evaluate", "--captions", "--index", "c", "--json")
    assert done.code == 0, done.err
    told = done.document["captioners"]["openai"]["color"]
    assert told["told"] == 1.0
    assert told["right"] == pytest.approx(2 / 3, abs=1e-3)
    assert [wrong for _, wrong, _ in told["mistakes"]] == ["pink"]
    assert done.document["agreement"]["openai"]["color"]["garments"] == 3


def test_truths_may_come_from_a_table(cli: Cli, index: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("image,product_id,color\nphotos/green.jpg,green,pink\n")
    done = cli("evaluate", "--captions", "--index", "c", "--truth", "truth.csv", "--json")
    color = done.document["captioners"]["local"]["color"]
    assert color["right"] < 1.0


def test_nothing_to_measure_with_is_said(cli: Cli, index: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text(table.read_text().replace("color", "shade"))
    assert cli("build-index", "p.csv", "--index", "c", "--quiet").code == 0
    done = cli("evaluate", "--captions", "--index", "c")
    assert done.code == 2
    assert "no true attributes are known" in done.err
    assert "--truth" in done.err


def test_what_captions_add_to_search_is_in_the_same_document(cli: Cli, index: Path, tmp_path: Path) -> None:
    assert cli("caption", "--index", "c", "--captioner", "local", "--quiet").code == 0
    (tmp_path / "q.csv").write_text("image,product_id\nphotos/green.jpg,green\nphotos/red-white.jpg,red-white\n")
    done = cli("evaluate", "--captions", "--index", "c", "--queries", "q.csv", "--json")
    assert done.code == 0, done.err
    ways = done.document["search"]["ways"]
    assert ways["crop, picture"]["recall_at_1"] == 1.0
    assert "crop, caption" in ways
