"""A catalogue that somebody handed over with links or special files in it is refused by name, and
nothing outside is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result
from systems import posix_only

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.store import generations

#: Commands that write to a catalogue, and some that read it.
WRITERS = {
    "build-index": ("build-index", "{photos}", "--index", "{root}"),
    "add": ("catalogue", "add", "{photos}", "--index", "{root}"),
    "update": ("catalogue", "update", "{table}", "--index", "{root}"),
    "remove": ("catalogue", "remove", "green.jpg", "--index", "{root}"),
    "reindex": ("catalogue", "reindex", "{root}"),
    "compact": ("catalogue", "compact", "{root}"),
    "rollback": ("catalogue", "rollback", "{root}"),
    "caption": ("caption", "--index", "{root}"),
}
READERS = {
    "query": ("query", "{photos}/red-blue.jpg", "--index", "{root}"),
    "show": ("catalogue", "show", "{root}"),
    "verify": ("catalogue", "verify", "{root}"),
    "export": ("catalogue", "export", "{out}", "--index", "{root}"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with things that nobody may touch; the catalogue lies in it."""
    home = tmp_path / "home"
    for folder in ("documents", "pictures"):
        (home / folder).mkdir(parents=True)
        (home / folder / "own.txt").write_text(f"canary {folder}")
    (home / ".bashrc").write_text("# canary\n")
    return home


@pytest.fixture
def root(catalogue: Path, home: Path) -> Path:
    return Path(shutil.copytree(catalogue, home / "catalogue"))


def state(folder: Path) -> dict[str, str]:
    """Everything in a folder, links as links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


def run(cli: Callable[..., Result], words: tuple[str, ...], root: Path, photos: Path, tmp_path: Path) -> Result:
    table = tmp_path / "stock.csv"
    table.write_text("product_id,price\nred-blue.jpg,5\n")
    places = {"root": root, "photos": photos, "table": table, "out": tmp_path / "out"}
    return cli(*(word.format(**places) for word in words))


def refuses(result: Result, entry: str) -> None:
    assert result.code == 2, result.out + result.err
    assert f": {entry} is a link" in result.err
    assert result.err.count("error:") == 1
    assert "this should not happen" not in result.err


@pytest.mark.parametrize("entry", ["indexes", "segments", "bundles", "generations/000000"])
def test_a_linked_folder_is_refused_and_its_target_stays(
    entry: str, root: Path, home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    if (root / entry).exists():
        shutil.move(root / entry, tmp_path / "moved")
        shutil.copytree(tmp_path / "moved", home / "moved")
        (root / entry).symlink_to("../moved")
    else:
        (root / entry).symlink_to("../" * (entry.count("/") + 1))
    before = state(home)
    for words in (WRITERS | READERS).values():
        refuses(run(cli, words, root, photos, tmp_path), entry)
        assert state(home) == before


@pytest.mark.parametrize(
    "entry",
    [
        *("catalogue.json", "builds.jsonl", "report.json", "report.html", "measured.json", ".lock"),
        *("generations/000001/manifest.json", "generations/000001/items.sqlite", ".measured.json.77.tmp"),
        *("segments/000001-image/thumbnails.bin", "segments/000001-image/vectors.faiss", "work/seen.sqlite"),
    ],
)
def test_a_linked_file_is_refused_and_its_target_stays(
    entry: str, root: Path, home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    (root / entry).parent.mkdir(exist_ok=True)
    if (root / entry).exists():  # the same content, elsewhere: only the link is wrong
        shutil.copyfile(root / entry, home / "documents" / "content")
        (root / entry).unlink()
        (root / entry).symlink_to(home / "documents" / "content")
    else:
        (root / entry).symlink_to(home / ".bashrc")
    before = state(home)
    for words in (WRITERS | READERS).values():
        refuses(run(cli, words, root, photos, tmp_path), entry)
        assert state(home) == before


@pytest.mark.parametrize(
    "kind", [pytest.param("pipe", marks=posix_only("named pipes")), "folder", "file", "answers", "batches", "journal"]
)
def test_what_is_of_another_kind_is_refused(
    kind: str, root: Path, home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    entry = {
        "pipe": "extra",
        "folder": "builds.jsonl",
        "file": "indexes",
        "answers": ".captions.arrived",
        "batches": "caption-batches/state.sqlite",
        "journal": "work/seen.sqlite-journal",
    }[kind]
    shutil.rmtree(root / entry) if (root / entry).is_dir() else (root / entry).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(root / entry)
    else:
        (root / entry).write_text("") if kind == "file" else (root / entry).mkdir(parents=True)
    before = state(home)
    for command in ("build-index", "update", "query", "verify"):
        result = run(cli, (WRITERS | READERS)[command], root, photos, tmp_path)
        assert result.code == 2
        assert f": {entry} is " in result.err
        assert state(home) == before


def test_a_catalogue_reached_through_a_link_is_used(
    root: Path, home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    (home / "link").symlink_to(root)
    for command, words in (WRITERS | READERS).items():
        result = run(cli, words, home / "link", photos, tmp_path)
        assert result.code == 0 or (command == "rollback" and "link" not in result.err), f"{command}: {result.err}"
    assert (home / "link").is_symlink()


def test_a_link_to_nothing_is_no_place_for_a_catalogue(
    home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    (home / "link").symlink_to("gone")
    before = state(home)
    bundles = ("--detector", str(TINY / "detector"), "--embedder", str(TINY / "embedder"))
    result = run(cli, (*WRITERS["build-index"], *bundles), home / "link", photos, tmp_path)
    assert result.code == 2
    assert "is a broken link" in result.err
    assert state(home) == before


def test_only_folders_of_ours_are_tidied_up(
    root: Path, photos: Path, build: Callable[..., BuildReport], tmp_path: Path
) -> None:
    """Whatever else lies beside them is somebody's, even in a catalogue."""
    for folder in ("indexes/notes", "segments/mine", "bundles/backup", "generations/old"):
        (root / folder).mkdir(parents=True)
        (root / folder / "own.txt").write_text("canary")
    stale = root / "segments" / "000099-image"
    stale.mkdir()
    for path in sorted(photos.iterdir())[:2]:
        path.unlink()
        build(photos, root, max_delete=1.0)
    generations.collect_garbage(root)
    assert not stale.exists()
    for folder in ("indexes/notes", "segments/mine", "bundles/backup", "generations/old"):
        assert (root / folder / "own.txt").read_text() == "canary"


@pytest.mark.parametrize("segment", ["../../documents", "000001-image/../../../documents", "..", "/tmp", ""])
def test_an_item_cannot_name_a_file_outside(
    segment: str, root: Path, home: Path, tmp_path: Path, photos: Path, cli: Callable[..., Result]
) -> None:
    """The thumbnail of an item is read from a segment of the catalogue, whatever its row says."""
    import sqlite3

    (home / "documents" / "thumbnails.bin").write_bytes(b"\xff\xd8canary" * 100)
    items = root / "generations" / "000001" / "items.sqlite"
    with sqlite3.connect(items) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("UPDATE garments SET segment = ?, thumb_offset = 0, thumb_size = 600", (segment,))
    db.close()
    seal(root)
    for words in (("--html", tmp_path / "page.html"), ("--save-crops", tmp_path / "crops")):
        result = cli("query", photos / "red-blue.jpg", "--index", root, *words)
        assert result.code in (0, 2), result.err
        assert "should not happen" not in result.err
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents]
    assert not any(b"canary" in data for data in written)


def seal(root: Path) -> None:
    """Give a changed catalogue the right sizes, hashes and pointer again, as a forger would."""
    folder = root / "generations" / "000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (root / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pointer = json.loads((root / "catalogue.json").read_text())
    pointer["manifest_sha256"] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (root / "catalogue.json").write_text(json.dumps(pointer))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["bundles"]["embedder"].update(path="../outside"), "has the embedder at the invalid path"),
        (lambda m: m["bundles"]["embedder"].update(path="/etc"), "has the embedder at the invalid path"),
        (lambda m: m["bundles"]["embedder"].update(path=7), "does not give the path of the embedder"),
        (lambda m: m["segments"].update({"../x": next(iter(m["segments"].values()))}), "segment '../x'"),
        (lambda m: next(iter(m["segments"].values())).update(count=-1), "with count -1 "),
        (lambda m: next(iter(m["segments"].values())).update(dim=1 << 40), "and dim 1099511627776"),
        (lambda m: next(iter(m["segments"].values())).update(count=True), "with count True "),
        (lambda m: m["index"].update(path="../../x"), "has the index at the invalid path"),
        (lambda m: m["files"].update({"../../.bashrc": {"size": 1, "sha256": "0" * 64}}), "entry of the file"),
        (lambda m: m["files"].pop("segments/000001-image/vectors.faiss"), "does not list"),
        (lambda m: m.update(parent="../.."), "has the invalid parent"),
        (lambda m: m["counts"].update(items="many"), "has invalid counts"),
    ],
)
def test_a_manifest_names_nothing_outside(
    change: Callable[[dict], object], told: str, root: Path, photos: Path, cli: Callable[..., Result]
) -> None:
    folder = root / "generations" / "000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pointer = json.loads((root / "catalogue.json").read_text())
    pointer["manifest_sha256"] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (root / "catalogue.json").write_text(json.dumps(pointer))
    for words in (("query", photos / "red-blue.jpg", "--index", root), ("catalogue", "verify", root)):
        result = cli(*words)
        assert result.code == 2
        assert told in result.err


def test_a_link_in_a_folder_of_photos_is_a_failed_row(
    home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    """A stranger's folder of photos must not bring a private one into a catalogue that is handed
    on.
    """
    (photos / "holiday.jpg").symlink_to(shutil.copyfile(photos / "green.jpg", home / "private.jpg"))
    words = ("build-index", photos, "--detector", TINY / "detector", "--embedder", TINY / "embedder", "--json")
    result = cli(*words, "--index", tmp_path / "new")
    assert [one["reason"] for one in result.document["failures"]] == ["link"]
    assert result.document["products"] == 6
    followed = cli(*words, "--index", tmp_path / "other", "--set", "dataset.follow_links=true")
    assert (followed.document["failures"], followed.document["products"]) == ([], 7)


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_nothing_is_built_on_a_catalogue_that_is_not_whole(
    fault: str, root: Path, home: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    """Copied again, it is as it was."""
    vectors = root / "segments" / "000001-image" / "vectors.faiss"
    if fault == "missing":
        shutil.rmtree(root / "segments")
    else:
        vectors.write_bytes(vectors.read_bytes()[:-100])
    before = state(home)
    for command in ("update", "add", "reindex", "compact", "caption", "query", "verify"):
        result = run(cli, (WRITERS | READERS)[command], root, photos, tmp_path)
        assert result.code == 2, command
        assert "segments/000001-image" in result.err
        changed = {name for name, what in state(home).items() if before.get(name) != what}
        assert all("/work" in name or name.endswith((".lock", "captions.sqlite")) for name in changed), (
            command,
            changed,
        )
    assert (root / "catalogue.json").read_text().count("000001") == 1
