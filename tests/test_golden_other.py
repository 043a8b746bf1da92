"""Test what the rest says, value by value: settings, runs, folders looked into, bundles, and how
commands fail.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Result
from golden import Golden
from golden_world import DETECTOR, MODELS, make_dataset
from test_runs import finished

Cli = Callable[..., Result]


def test_settings_and_where_they_come_from(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, golden: Golden
) -> None:
    (tmp_path / "shop.yaml").write_text("query:\n  k: 7\n  fusion: rrf\ncrop:\n  margin: 0.1\n", encoding="utf-8")
    for name in [name for name in os.environ if name.startswith("FASHIONREC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASHIONREC_QUERY__MIN_SCORE", "0.25")
    monkeypatch.setenv("FASHIONREC_INDEX", "some/catalogue")
    layers = ("--config", "shop.yaml", "--set", "query.k=3", "--set", "crop.pad=0")
    for section in ("query", "crop"):
        golden.document(f"config-{section}", cli("config", "show", section, *layers, "--json").document)
        golden.text(f"config-{section}", cli("config", "show", section, *layers, "--quiet").out)
    golden.document(
        "config-defaults",
        {key: one["value"] for key, one in cli("config", "show", "--json").document.items() if "models" not in key},
    )


@pytest.fixture
def trained(cli: Cli, tmp_path: Path) -> Path:
    """Runs as they lie on the disk: one promoted, one better but made with other settings, one
    refused finetune.
    """
    train, finetune = tmp_path / "runs" / "train", tmp_path / "runs" / "finetune"
    finished(train, "first", 0.4, created="2026-01-02T03:04:05+00:00", device="cpu", versions={"torch": "2.10.0"})
    per_class = {"dress": {"map50": 0.81, "map50_95": 0.55}, "top": {"map50": 0.72, "map50_95": 0.61}}
    finished(
        train,
        "second",
        created="2026-01-03T03:04:05+00:00",
        device="cuda:0",
        versions={"torch": "2.11.0"},
        config={"train": {"epochs": 5, "lr0": 0.02, "name": "second", "nested": {"a": 2}}},
        epochs=4,
        seconds=30.26,
        metrics={"map50": 0.765, "map50_95": 0.58, "split": "valid", "per_class": per_class},
        promoted=False,
        notes={"stopped": "early"},
    )
    finished(
        finetune, "third", 0.3, created="2026-01-04T03:04:05+00:00", promoted=False, seed=7, device="cpu", versions={}
    )
    return tmp_path


def test_runs(cli: Cli, trained: Path, golden: Golden) -> None:
    asked: dict[str, tuple[str, ...]] = {
        "list": ("list",),
        "show": ("show", "second"),
        "compare": ("compare", "first", "second"),
        "promote": ("promote", "finetune/third", "--force", "--why", "the other data"),
        "demote": ("demote", "finetune/third", "--why", "a mistake"),
    }
    fixed: dict[str, str] = {}  # dates and times too: they are those of `trained`
    for name, words in asked.items():
        done = cli("runs", *words, "--json", "--quiet")
        assert done.code == 0, done.err
        golden.document(f"runs-{name}", done.document, usual=fixed)
        if name not in ("promote", "demote"):
            golden.text(f"runs-{name}", cli("runs", *words, "--quiet").out)
    record = json.loads((trained / "runs" / "finetune" / "third" / "run.json").read_text(encoding="utf-8"))
    golden.document("runs-record", record, {"$.promotions.[].at": "<date>"}, usual=fixed)


def test_folders_looked_into(cli: Cli, own_world: Path, golden: Golden) -> None:
    make_dataset(own_world / "labelled")
    shutil.copytree(TINY / "embedder", own_world / "bundle")
    (own_world / "labelled" / "train" / "notes.sh").write_text("echo\n", encoding="utf-8")
    (own_world / "labelled" / "train" / "link.bmp").symlink_to("/etc/hostname")
    found: dict[str, Any] = {}
    for folder in ("catalogue", "bundle", "labelled", "photos"):
        done = cli("doctor", folder, "--json", "--quiet")
        found[folder] = {"code": done.code, "stderr": done.err.splitlines(), "document": done.document}
    golden.document("doctor-folders", found, {"$.catalogue.document.bytes": "<count>"})
    looked = cli("doctor", "--index", "catalogue", "--json", "--quiet").document
    known = {"catalogue": {"path": "catalogue", "status": "healthy", "counts": looked["catalogue"]["counts"]}}
    golden.document("doctor", {"keys": list(looked), "catalogue": looked["catalogue"]})
    assert looked["catalogue"] == known["catalogue"]


def test_an_exported_catalogue_names_its_bundles(world: Path, golden: Golden) -> None:
    for kind, source in (("detector", DETECTOR), ("embedder", TINY / "embedder")):
        (copy,) = (world / "catalogue" / "bundles").glob(f"{kind}-*")
        made = json.loads((copy / "bundle.json").read_text(encoding="utf-8"))
        golden.document(f"bundle-{kind}", made)
        assert made == json.loads((source / "bundle.json").read_text(encoding="utf-8"))


#: Commands that fail, and in which world: options that cannot be, things that are not there,
#: limits, a writer at work.
FAILURES: list[tuple[object, ...]] = [
    # 2: refused before any work
    ("query",),
    ("query", "asked/missing.bmp", "--index", "catalogue"),
    ("query", "photos/torn.bmp", "--index", "catalogue", "--json"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--garment", "dress"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--where", "prize < 3"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--where", "price <"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--box", "1,2,3"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--set", "query.kk=3"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--set", "query.k=none"),
    ("query", "asked/look.bmp", "--index", "catalogue", "--like", "T1"),
    ("query", "--like", "NONE", "--index", "catalogue"),
    ("query", "--text", "red:-1", "--index", "catalogue"),
    ("query", "asked/look.bmp", "--index", "photos"),
    ("query", "asked/look.bmp"),
    ("build-index", "asked", "--index", "photos", *MODELS),
    ("build-index", "none.csv", "--index", "new", *MODELS),
    ("build-index", "products.csv", "--index", "new", "--detector", "photos", "--embedder", TINY / "embedder"),
    ("catalogue", "remove", "--index", "catalogue"),
    ("catalogue", "rollback", "catalogue"),
    ("catalogue", "rollback", "catalogue", "--to", "000009"),
    ("catalogue", "show", "catalogue", "--product", "NONE"),
    ("catalogue", "export", "photos", "--index", "catalogue"),
    ("evaluate", "--index", "catalogue"),
    ("evaluate", "--weights", "photos", "--data", "none.yaml"),
    ("fetch-dataset", "yolo:photos", "--out", "ours"),
    ("fetch-dataset", "unknown:photos", "--out", "ours"),
    ("dataset", "export", "photos", "--to", "csv"),
    ("dataset", "audit", "photos"),
    ("runs", "show", "none"),
    ("caption", "--index", "catalogue", "--retry", "asleep"),
    # 3: a limit
    ("build-index", "products.csv", "--index", "catalogue"),
    ("build-index", "few.csv", "--index", "catalogue", "--json"),
]


def test_how_commands_fail(cli: Cli, own_world: Path, golden: Golden) -> None:
    (own_world / "few.csv").write_text("image,product_id\nphotos/rose.bmp,T3\n", encoding="utf-8")
    told = []
    places = {str(Path(__file__).parent.parent): "<repository>", str(own_world): "<here>"}
    for words in FAILURES:
        done = cli(*words, "--quiet")
        lines = [*done.out.splitlines(), *done.err.splitlines()] if done.code != 3 else done.err.splitlines()
        shown = " ".join(map(str, words))
        for place, name in places.items():
            shown, lines = shown.replace(place, name), [line.replace(place, name) for line in lines]
        told.append({"command": shown, "code": done.code, "says": lines})
    golden.document("errors", told)


def test_how_commands_fail_on_damage_and_while_another_writes(cli: Cli, own_world: Path, golden: Golden) -> None:
    from fashionrec.store.generations import writer_lock

    told = []

    def tell(*words: object) -> None:
        done = cli(*words, "--quiet", "--json")
        told.append(
            {"command": " ".join(map(str, words)), "code": done.code, "out": done.out, "says": done.err.splitlines()}
        )

    with writer_lock(own_world / "catalogue"):
        tell("catalogue", "remove", "T1", "--index", "catalogue")
        tell("build-index", "products.csv", "--index", "catalogue")
    vectors = own_world / "catalogue" / "segments" / "000001-image" / "thumbnails.bin"
    data = bytearray(vectors.read_bytes())
    data[-3] ^= 1
    vectors.write_bytes(data)
    tell("catalogue", "verify", "catalogue")
    (own_world / "catalogue" / "generations" / "000001" / "manifest.json").write_text("{", encoding="utf-8")
    tell("query", "asked/look.bmp", "--index", "catalogue")
    (own_world / "catalogue" / "catalogue.json").unlink()
    tell("catalogue", "show", "catalogue")
    golden.document("errors-damage", told)
