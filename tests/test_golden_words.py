"""Test what commands say, word by word: results, messages, progress at its end, and the command
that comes next.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result
from golden import Golden
from golden_world import DETECTOR, LENIENT, MODELS, THEIRS, OpenAIServer, make_dataset, photo
from test_golden_captions import TRUTH
from test_golden_catalogue import changed
from test_golden_dataset import CALLED
from test_golden_evaluate import LOOKS, QUERIES, TEXTS
from test_runs import finished

Cli = Callable[..., Result]

#: Times, rates, sizes of compressed files and dates, which no two runs share.
OF_THE_MACHINE = {
    r"(?m)^(\w+) (\d+)/(?!\2\b)(\d+)[ ,].*\n": "",  # progress before its end, where that takes more than five seconds
    r"\b[\d.]+(?= \w+/s\b)": "<rate>",
    r"\b\d+ ms \([a-z\d, ]*\)": "<milliseconds>",
    r"\b[\d.]+ ms a query(?: \(95 %: [\d.]+\))?": "<milliseconds> a query",
    r"\b[\d.]+ s: ": "<seconds>: ",
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b": "<date>",
    r"\b\d+\.\d(?= MB|  tiny-)": "<megabytes>",
    r"(?m)^((?:flat|hnsw|ivf)\S*) +[\d.]+ +([\d.]+) .*  (\S.*)$": r"\1 \2 \3",
    str(TINY): "<tiny>",
    str(DETECTOR): "<detector>",
}


class Transcript:
    """Runs commands and writes down all that they say."""

    def __init__(self, cli: Cli) -> None:
        self.cli, self.text = cli, ""

    def __call__(self, *words: object, code: int = 0) -> None:
        done = self.cli(*words)
        assert done.code == code, done.err
        self.text += f"$ fashionrec {' '.join(map(str, words))}\n{done.out}--- stderr, exit {code}\n{done.err}\n"


@pytest.fixture
def say(cli: Cli) -> Transcript:
    return Transcript(cli)


def test_a_catalogue(say: Transcript, own_world: Path, golden: Golden) -> None:
    pytest.importorskip("pyarrow")
    where = ("--index", "catalogue")
    say("build-index", "products.csv", *where, *LENIENT)
    changed(own_world)
    say("build-index", "products.csv", *where, *LENIENT, "--max-delete", 0.5)
    say("build-index", "products.csv", *where, "--max-delete", 0.5, "--rehash", code=3)
    say("build-index", "more", "--index", "new", *MODELS, code=2)
    for name in ("belt", "scarf"):
        photo(own_world / "more" / f"{name}.bmp", {"a": "mustard", "c": "sky"} if name == "belt" else {})
    say("build-index", "more", "--index", "new", *MODELS)
    say("catalogue", "list", ".")
    say("catalogue", "list", "asked")
    say("catalogue", "show", "catalogue")
    say("catalogue", "show", "catalogue", "--product", "T1")
    (own_world / "prices.csv").write_text("product_id,price\nT1,29900\nNONE,5\n", encoding="utf-8")
    say("catalogue", "update", "prices.csv", *where, *LENIENT)
    say("catalogue", "add", "more", *where)
    (own_world / "torn.csv").write_text("image,product_id\nphotos/torn.bmp,T5\n", encoding="utf-8")
    say("catalogue", "add", "torn.csv", *where, code=3)
    say("catalogue", "remove", "D2", "P2", *where)
    say("catalogue", "reindex", "catalogue", "--index-type", "hnsw", "--set", "index.exact_below=0")
    say("catalogue", "reindex", "catalogue", "--set", "index.vectors=float16")
    say("catalogue", "rollback", "catalogue")
    say("catalogue", "compact", "catalogue")
    say("catalogue", "verify", "catalogue")
    say("catalogue", "export", "exported", *where)
    say("catalogue", "import", "exported", "--index", "again")
    golden.text("words-catalogue", say.text, OF_THE_MACHINE)


def test_queries(say: Transcript, own_world: Path, golden: Golden) -> None:
    where = ("--index", "catalogue")
    files = ("--csv", "a.csv", "--xlsx", "a.xlsx", "--html", "a.html", "--save-crops", "crops")
    say("query", "asked/look.bmp", *where, "-k", 1, *files)
    say("query", "asked/sky.bmp", *where, "-k", 1, "--xlsx", "b.xlsx", "--garment", "pants")
    say("query", "--text", "빨간 셔츠", "--text", "blue:0.5", *where, "-k", 1)
    say("query", "--like", "T1", "--unlike", "T2", *where, "-k", 1, "--explain")
    say("query", "asked/sky.bmp", "--text", "red", *where, "-k", 1, "--html", "b.html")
    say("query", "asked/sky.bmp", "asked/none.bmp", *where, *where, "-k", 2, "--html", "c.html")
    say("query", "--text", "red", *where, *where, "-k", 2)
    say("query", "--text", "red", *where, "--open", code=2)
    say("config", "show", "crop")
    golden.text("words-query", say.text, OF_THE_MACHINE)


def test_captions_and_evaluations(say: Transcript, own_world: Path, golden: Golden) -> None:
    for name, text in (("truth", TRUTH), ("queries", QUERIES), ("texts", TEXTS), ("looks", LOOKS)):
        (own_world / f"{name}.csv").write_text(text, encoding="utf-8")
    photo(own_world / "looks" / "a.bmp", {"a": "red/rose", "d": "navy/blue"})
    photo(own_world / "looks" / "b.bmp", {"b": "rose", "d": "blue/sky"}, (120, 160))
    photo(own_world / "looks" / "c.bmp", {"a": "brick", "c": "yellow"})
    photo(own_world / "looks" / "d.bmp", {"b": "rose/brick"})
    where = ("--index", "catalogue")
    local = (*where, "--captioner", "local")
    ways = ("evaluate", "--ways", "--queries", "queries.csv", *where)
    say(*ways)
    say(*ways, "--apply", code=2)
    say("caption", *local, "--dry-run")
    say("caption", *local, "--limit", 3)
    say("caption", *local)
    say("caption", *local, "--recaption", "T1")
    say("caption", *where, "--status")
    say("caption", "asked/look.bmp", "asked/plain.bmp", "asked/none.bmp", *local, code=1)
    say("caption", "asked/plain.bmp", "asked/look.bmp", *local, "--limit", 1)
    say("caption", "--import-captions", "catalogue")
    say(*ways)
    say(*ways, "--apply")
    say("evaluate", "--captions", "--truth", "truth.csv", *where)
    say("evaluate", "--captions", "--truth", "truth.csv", "--queries", "queries.csv", *where)
    say("evaluate", "--queries", "queries.csv", *where)
    say("evaluate", "--texts", "texts.csv", *where)
    say("evaluate", "--outfits", "looks.csv", *where)
    golden.text("words-captions", say.text, OF_THE_MACHINE)


def test_captions_by_a_server(say: Transcript, own_world: Path, captioning: OpenAIServer, golden: Golden) -> None:
    where = ("--index", "catalogue", "--captioner", "openai")
    say("caption", *where, "--dry-run")
    say("caption", *where, "--limit", 4)
    say("caption", *where, code=1)
    say("caption", *where, "--retry", "refused", code=1)
    say("caption", *where, "--recaption", "all", "--max-cost", 0.001, "--set", "captioner.concurrency=1", code=3)
    say("caption", "asked/look.bmp", *where, "--set", "captioner.model=other-model")
    say("caption", "asked/plain.bmp", *where, code=1)
    say("caption", *where, "--recaption", "T1", "--set", "captioner.model=other-model")
    say("caption", "--index", "catalogue", "--status")
    say("query", "asked/sky.bmp", *where, "-k", 1)
    golden.text("words-server", say.text, OF_THE_MACHINE | {r"127\.0\.0\.1:\d+": "<local server>"})


def test_datasets(say: Transcript, tmp_path: Path, golden: Golden) -> None:
    make_dataset(tmp_path / "ours")
    make_dataset(tmp_path / "theirs", THEIRS, CALLED)
    with (tmp_path / "theirs" / "train" / "labels" / "one.txt").open("a", encoding="utf-8") as file:
        file.write("3 0.95 0.5 0.2 0.3\n0 nonsense\n")
    shutil.copytree(DETECTOR, tmp_path / "W")
    say("fetch-dataset", "yolo:theirs", "--map", "tee=top", "--map", "jeans=pants", "--map", "shoe=null")
    say("fetch-dataset", "folder:ours/train/images", "--out", "plain")
    say("fetch-dataset", "synthetic", "--images", 4, "--products", 2, "--set", "synthetic.size=96", "--out", "drawn")
    say("dataset", "audit", "ours", "--set", "audit.min_images=0")
    say("dataset", "audit", "theirs", "--set", "audit.min_images=3")
    say("dataset", "audit", "theirs", "--html", "pages/audits/audit.html")
    say("dataset", "audit", "theirs", "--strict", code=3)
    say("dataset", "export", "ours", "--to", "coco", "--out", "coco")
    say("dataset", "export", "ours", "--to", "voc", "--out", "voc")
    target = ("--to", "roboflow", "--target", "shop/garments", "--weights", "W", "--strategy", "uncertain")
    say("dataset", "export", "ours", *target, "--dry-run", "--set", "roboflow.batch=doubtful")
    say("evaluate", "--weights", "W", "--data", "ours", "--html", "pages/evaluations/evaluation.html")
    say("evaluate", "--weights", "W", "--data", "ours", "--split", "train")
    masks = OF_THE_MACHINE | {r"(?<=photos \()[\d.]+(?= MB)": "<megabytes>"}
    golden.text("words-datasets", say.text, masks)


def test_folders_of_others(say: Transcript, own_world: Path, golden: Golden) -> None:
    make_dataset(own_world / "ours")
    say("doctor", "ours")
    for n in range(6):
        (own_world / "ours" / "train" / f"note{n}.sh").write_text("echo\n", encoding="utf-8")
    say("doctor", "ours")
    for n in range(5):
        (own_world / "ours" / "train" / "labels" / f"link{n}.txt").symlink_to("/etc/hostname")
    say("doctor", "ours")
    (own_world / "ours" / "valid" / "images" / "model.pt").write_bytes(b"\x80\x02cos\nsystem\n.")
    (own_world / "ours" / "data.yaml").rename(own_world / "data.yaml")
    (own_world / "ours" / "data.yaml").symlink_to("../data.yaml")
    say("doctor", "ours", code=2)
    say("doctor", "photos")
    (own_world / "nothing").mkdir()
    say("doctor", "nothing")
    say("doctor", "catalogue")
    report = own_world / "catalogue" / "segments" / "000001-image" / "thumbnails.bin"
    report.write_bytes(report.read_bytes()[:-1])
    say("doctor", "catalogue", code=2)
    (own_world / "catalogue" / "segments" / "link").symlink_to("/etc/hostname")
    say("doctor", "catalogue", code=2)
    say("doctor", "missing", code=2)
    masks = {r"(?<=catalogue, 20 files, )[\d.]+": "<megabytes>", r"\d+ bytes, not \d+": "<count> bytes, not <count>"}
    golden.text("words-folders", say.text, masks)


def test_runs(say: Transcript, tmp_path: Path, golden: Golden) -> None:
    say("runs", "list")
    train = tmp_path / "runs" / "train"
    finished(train, "first", 0.4, created="2026-01-02T03:04:05+00:00", versions={})
    say("runs", "list")
    other = finished(
        train,
        "second",
        created="2026-01-03T03:04:05+00:00",
        status="failed",
        promoted=False,
        epochs=1,
        versions={"torch": "2.11.0"},
    )
    say("runs", "list")
    other.metrics = {**other.metrics, "split": "test"}
    other.save()
    (train / "broken").mkdir()
    (train / "broken" / "run.json").write_text("{", encoding="utf-8")
    say("runs", "list")
    say("runs", "show", "second")
    say("runs", "compare", "first", "second")
    say("runs", "promote", "first", "--why", "again")
    say("runs", "demote", "first")
    golden.text("words-runs", say.text, {r"\b\d{4}-\d\d-\d\dT[\d:.+]+": "<date>"})
