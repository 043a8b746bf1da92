"""Generations by hand: what is served, kept, rolled back to and tidied up, and the one line about
what cannot be.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from systems import posix_only

from fashionrec.common.documents import DocumentError
from fashionrec.common.files import sha256_file
from fashionrec.common.system import lock
from fashionrec.errors import Busy, CatalogueError, FashionrecError, WriteError
from fashionrec.store import generations
from fashionrec.store.generations import Generation
from fashionrec.store.manifest import BundleEntry, FileEntry, Manifest, SegmentEntry
from fashionrec.store.rows import DamagedRow

AGAIN = "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"
MAKE = "create one with `fashionrec build-index PHOTOS --index DIR`"
MEND = "the served version is unchanged; free space or repair the disk, then run this again to resume"


def commit(root: Path, text: str = "text", manifest: Manifest = Manifest()) -> Generation:
    name, folder = generations.begin(root)
    (folder / "items.sqlite").write_text(text)
    (folder / "report.json").write_text("{}")
    return generations.commit(root, name, manifest)


def segment(root: Path, name: str, text: str = "vectors") -> dict[str, SegmentEntry]:
    (root / "segments" / name).mkdir(parents=True, exist_ok=True)
    (root / "segments" / name / "vectors.faiss").write_text(text)
    return {name: SegmentEntry("image", 1, 2, "e")}


def refused(error: pytest.ExceptionInfo[FashionrecError], message: str, hint: str = AGAIN) -> None:
    assert str(error.value) == message
    assert error.value.hint == hint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "c").mkdir()
    return tmp_path / "c"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_commit_writes(root: Path) -> None:
    first = commit(root, "one", Manifest(made_by="test", segments=segment(root, "000001-image")))
    assert (first.root, first.name, first.folder) == (root, "000001", root / "generations" / "000001")
    assert first.items_path == first.folder / "items.sqlite"
    assert (first.manifest.generation, first.manifest.parent, first.manifest.made_by) == ("000001", None, "test")
    files = [
        "segments/000001-image/vectors.faiss",
        *(f"generations/000001/{n}" for n in ("items.sqlite", "report.json")),
    ]
    assert first.manifest.files == {n: FileEntry((root / n).stat().st_size, sha256_file(root / n)) for n in files}
    pointer = json.loads((root / "catalogue.json").read_text())
    assert list(pointer.items()) == [
        ("format", "fashionrec-catalogue"),
        ("format_version", 3),
        ("generation", "000001"),
        ("manifest_sha256", sha256_file(first.folder / "manifest.json")),
    ]
    assert names(root) == ["catalogue.json", "generations", "segments"]
    assert names(first.folder) == ["items.sqlite", "manifest.json", "report.json"]
    first.check_pointer()
    assert first.bundle_path("embedder") is None
    # what an earlier manifest lists is not hashed again
    (root / "segments" / "000001-image" / "vectors.faiss").write_text("VECTORS")
    second = commit(root, "two", first.manifest)
    assert second.manifest.parent == "000001"
    assert second.manifest.files[files[0]] == first.manifest.files[files[0]]
    (root / "segments" / "000001-image" / "vectors.faiss").write_text("longer vectors")
    with pytest.raises(CatalogueError) as caught:
        commit(root, "three", second.manifest)
    refused(caught, f"catalogue {root} is damaged: {files[0]} has 14 bytes, not 7")
    assert generations.read_current(root).name == "000002"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what is open")
@posix_only("folders that can be synced")
def test_everything_is_on_the_disk_before_the_pointer_is_switched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(number: int) -> None:
        name = os.path.relpath(Path(f"/proc/self/fd/{number}").readlink(), root)
        synced.append(re.sub(r"\.[0-9a-f]{16}\.tmp", ".tmp", name))

    monkeypatch.setattr(os, "fsync", fsync)
    manifest = Manifest(segments=segment(root, "000001-image"))
    commit(root, manifest=manifest)
    generation = "generations/000001"
    first = [
        *("segments/000001-image/vectors.faiss", f"{generation}/items.sqlite", f"{generation}/report.json"),
        *(".", "generations", generation, "segments", "segments/000001-image"),
        *(f"{generation}/.manifest.json.tmp", generation, ".catalogue.json.tmp", "."),
    ]
    assert synced == first
    synced.clear()
    commit(root, manifest=manifest)  # the segment is on the disk since the first
    shared = ("segments", "segments/000001-image", "segments/000001-image/vectors.faiss")
    assert synced == [name.replace("000001", "000002") for name in first if name not in shared]


def test_what_a_generation_needs_must_be_there(root: Path) -> None:
    manifest = Manifest(segments={"000001-image": SegmentEntry("image", 1, 2, "e")})
    with pytest.raises(CatalogueError) as caught:
        commit(root, manifest=manifest)
    refused(caught, f"catalogue {root} is incomplete: segments/000001-image is missing")
    segment(root, "000001-image")
    (root / "segments" / "000001-image" / "below").mkdir()
    assert generations.shared_files(root, manifest) == [root / "segments" / "000001-image" / "vectors.faiss"]
    embedder = {"embedder": BundleEntry("bundles/embedder-0", "n", "f")}
    assert Generation(root, "000001", Manifest(bundles=embedder)).bundle_path("embedder") == root / "bundles/embedder-0"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "catalogue {root} is incomplete: generations/000001/items.sqlite is missing"),
        ("size", "catalogue {root} is damaged: generations/000001/items.sqlite has 3 bytes, not 4"),
        ("content", "catalogue {root} is damaged: the content of generations/000001/items.sqlite has changed"),
    ],
)
def test_every_file_is_checked(root: Path, fault: str, message: str) -> None:
    served = commit(root)
    if fault == "missing":
        served.items_path.unlink()
    else:
        served.items_path.write_text("TEXT" if fault == "content" else "TEX")
    if fault == "content":
        served.check()
    with pytest.raises(CatalogueError) as caught:
        served.check(contents=fault == "content")
    refused(caught, message.format(root=root))


def test_what_is_no_catalogue(root: Path) -> None:
    root.rmdir()
    with pytest.raises(CatalogueError) as caught:
        generations.read_current(root)
    refused(caught, f"no catalogue at {root}", MAKE)
    root.mkdir()
    assert not generations.is_catalogue(root)
    with pytest.raises(CatalogueError) as caught:
        generations.read_current(root)
    refused(caught, f"{root} is not a catalogue: catalogue.json is missing", MAKE)
    pointer = root / "catalogue.json"
    for text, message, hint in (
        ("[]", f"catalogue is damaged: {pointer} is not a JSON object", AGAIN),
        ('{"format": "other"}', f"{pointer} is not the pointer of a catalogue", AGAIN),
        (
            '{"format": "fashionrec-catalogue", "format_version": 4}',
            f"{root} is a catalogue of format 4; this fashionrec reads 3",
            "rebuild it with this version, or query it with the one that made it",
        ),
        (
            '{"format": "fashionrec-catalogue", "format_version": 2, "generation": "1"}',
            f"{pointer} is damaged: invalid generation '1'",
            AGAIN,
        ),
        (
            '{"format": "fashionrec-catalogue", "format_version": 2, "generation": "000009"}',
            f"catalogue is incomplete: {root}/generations/000009/manifest.json is missing",
            AGAIN,
        ),
    ):
        pointer.write_text(text)
        assert generations.is_catalogue(root)
        with pytest.raises(CatalogueError) as caught:
            generations.read_current(root)
        refused(caught, message, hint)


def test_a_pointer_and_manifests_that_changed(root: Path) -> None:
    served = commit(root)
    pointer, manifest = root / "catalogue.json", served.folder / "manifest.json"
    text = manifest.read_text()
    pointer.write_text(pointer.read_text() + " ")
    with pytest.raises(CatalogueError) as caught:
        served.check_pointer()
    refused(caught, f"catalogue {root} is damaged: catalogue.json has changed")
    manifest.write_text(text + " ")
    with pytest.raises(CatalogueError) as caught:
        generations.read_current(root)
    refused(caught, f"catalogue {root} is damaged: generations/000001/manifest.json has changed")
    assert generations.read_generation(root, "000001") == served  # no hash, no question
    manifest.write_text(text.replace('"counts"', '"kounts"'))
    with pytest.raises(CatalogueError) as caught:
        generations.read_generation(root, "000001")
    refused(caught, f"catalogue {root} is damaged: generations/000001/manifest.json has no counts")
    assert generations.list_generations(root) == []


def test_a_rollback_goes_to_what_the_served_one_was_made_from(root: Path) -> None:
    commit(root, "one")
    with pytest.raises(CatalogueError) as caught:
        generations.roll_back(root)
    refused(caught, f"{root}: generation 000001 has no predecessor", "it is the only one")
    commit(root, "two")
    back = generations.roll_back(root)
    assert (back.name, generations.read_current(root).name) == ("000001", "000001")
    assert [one.name for one in generations.list_generations(root)] == ["000001", "000002"]
    with pytest.raises(CatalogueError) as caught:
        generations.roll_back(root)
    refused(caught, f"{root}: generation 000001 has no predecessor", "there are 000002")
    with pytest.raises(CatalogueError) as caught:
        generations.roll_back(root, "000001")
    refused(caught, f"{root}: generation 000001 is already served", "there are 000002")
    assert generations.roll_back(root, "000002").name == "000002"
    (root / "generations" / "000001" / "items.sqlite").unlink()
    with pytest.raises(CatalogueError) as caught:
        generations.roll_back(root)
    refused(caught, f"catalogue {root} is incomplete: generations/000001/items.sqlite is missing")
    assert generations.read_current(root).name == "000002"
    # one that was rolled back from is no parent
    (root / "generations" / "000001" / "items.sqlite").write_text("one")
    generations.roll_back(root)
    assert commit(root, "three").manifest.parent == "000001"
    assert names(root / "generations") == ["000001", "000003"]


def test_only_what_nobody_needs_or_reads_goes(root: Path) -> None:
    kept = Manifest(segments=segment(root, "000001-image"))
    first = commit(root, "one", kept)
    held = generations.hold(first)
    for n in (2, 3):
        commit(root, str(n), kept)
    for name in ("000002-image", "000002-007-captions", "mine", "000002-image-copy", "00002-image"):
        segment(root, name)
    (root / "segments" / "000009-image").write_text("a file")
    for name in ("indexes/000002", "indexes/notes", "bundles/embedder-0123456789abcdef", "bundles/.bundle-abcdefgh"):
        (root / name).mkdir(parents=True)
    for name in ("000007", "seven", "0000008"):
        (root / "generations" / name).mkdir()
    assert generations.collect_garbage(root) == ["000007"]
    assert names(root / "generations") == ["0000008", "000001", "000002", "000003", "seven"]
    assert names(root / "segments") == ["000001-image", "000002-image-copy", "000009-image", "00002-image", "mine"]
    assert names(root / "indexes") == ["notes"]
    assert names(root / "bundles") == []
    held.close()
    assert generations.collect_garbage(root) == ["000001"]
    assert generations.collect_garbage(root) == []
    assert [one.name for one in generations.list_generations(root)] == ["000002", "000003"]
    with pytest.raises(CatalogueError) as caught:
        generations.hold(first)
    refused(caught, f"catalogue is incomplete: {root}/generations/000001/manifest.json is missing")


@posix_only("locks of open files")
def test_a_generation_that_is_being_removed_cannot_be_held(root: Path) -> None:
    served = commit(root)
    with (served.folder / "manifest.json").open("rb") as file:
        assert lock(file, shared=False)
        with pytest.raises(CatalogueError) as caught:
            generations.hold(served)
        refused(caught, f"catalogue {root}: generation 000001 has been removed")
    generations.hold(served).close()


def test_what_is_listed_is_whole(root: Path) -> None:
    commit(root, "one")
    commit(root, "two")
    for name in ("000000", "0000001"):
        (root / "generations" / name).mkdir()
    (root / "generations" / "000003").write_text("a file")
    (root / "work").write_text("a file")
    assert [one.name for one in generations.list_generations(root)] == ["000001", "000002"]
    with pytest.raises(CatalogueError, match="work is a file, not a folder"):
        generations.read_current(root)


def test_a_parent_that_has_gone_or_is_damaged_ends_what_is_kept(root: Path) -> None:
    commit(root, "one")
    commit(root, "two")
    (root / "generations" / "000001" / "manifest.json").write_text("[]")
    assert generations.collect_garbage(root) == ["000001"]
    assert generations.read_current(root).name == "000002"


def test_the_next_name_is_one_past_every_folder(root: Path) -> None:
    assert generations.next_name(root) == "000001"
    for name, after in (("000009", "000010"), ("000003", "000010"), ("0000077", "000010"), ("notes", "000010")):
        (root / "generations" / name).mkdir(parents=True)
        assert generations.next_name(root) == after
    assert generations.begin(root) == ("000010", root / "generations" / "000010")
    assert (root / "generations" / "000010").is_dir()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(28, "No space left on device"), WriteError, "cannot write to {root}: No space left on device"),
        (OSError("odd"), WriteError, "cannot write to {root}: odd"),
        *(
            (sqlite3.OperationalError(text), WriteError, f"cannot write to {{root}}: {text}")
            for text in (
                "database or disk is full",
                "disk I/O error",
                "unable to open database file",
                "attempt to write a readonly database",
                "database is locked",
            )
        ),
        (sqlite3.DatabaseError("malformed"), CatalogueError, "catalogue {root} is damaged: malformed"),
        (DamagedRow("a row"), CatalogueError, "catalogue {root} is damaged: a row"),
        (DocumentError("a text"), CatalogueError, "catalogue {root} is damaged: a text"),
    ],
)
def test_what_goes_wrong_while_writing(root: Path, error: Exception, kind: type[FashionrecError], message: str) -> None:
    for holding in (generations.map_disk_errors, generations.writer_lock):
        with pytest.raises(FashionrecError) as caught, holding(root):
            raise error
        assert type(caught.value) is kind
        refused(caught, message.format(root=root), MEND if kind is WriteError else AGAIN)


def test_a_writer_removes_what_a_killed_one_left_half_written(root: Path) -> None:
    served = commit(root)
    left = [".catalogue.json.0123abcd.tmp", "generations/000001/.manifest.json.0f.tmp", ".x.7.tmp"]
    mine = [".catalogue.json.tmp", "a.0f.tmp", "generations/000001/notes.txt", ".x.0f.tmp.txt"]
    for name in (*left, *mine):
        (root / name).write_text("x")
    (root / ".y.0f.tmp").mkdir()
    with generations.writer_lock(root):
        assert [name for name in (*left, *mine) if (root / name).exists()] == mine
        assert (root / ".y.0f.tmp").is_dir()
        assert (root / ".lock").is_file()
        with pytest.raises(Busy) as caught, generations.writer_lock(root):
            pass
        refused(caught, f"another process is writing {root}", "wait for it to end, then try again")
    served.check(contents=True)


@posix_only("links")
def test_nothing_is_written_through_a_link(root: Path, tmp_path: Path) -> None:
    root.rmdir()
    root.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CatalogueError) as caught, generations.writer_lock(root):
        pass
    refused(caught, f"{root} is a broken link", "delete it, or choose another folder")
    (tmp_path / "nowhere").mkdir()
    with generations.writer_lock(root):
        pass
    (tmp_path / "nowhere" / ".lock").unlink()
    (root / "report.json").mkdir()
    with pytest.raises(CatalogueError) as caught, generations.writer_lock(root):
        pass
    hint = "links and special files are never followed here: remove it, or get a copy without it"
    refused(caught, f"catalogue {root}: report.json is a folder, not a file", hint)
    assert names(root) == ["report.json"]


@pytest.mark.parametrize(
    "name",
    [
        *("catalogue.json", "report.json", "report.html", "builds.jsonl", "measured.json"),
        *(".lock", ".captions.lock", ".captions.arrived"),
    ],
)
def test_files_of_ours_are_no_folders(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    with pytest.raises(CatalogueError, match="is a folder, not a file"):
        generations.check_entries(root)


@pytest.mark.parametrize("name", ["generations", "segments", "indexes", "bundles", "work", "caption-batches"])
def test_folders_of_ours_are_no_files(root: Path, name: str) -> None:
    (root / name).write_text("")
    with pytest.raises(CatalogueError, match="is a file, not a folder"):
        generations.check_entries(root)


def test_what_a_killed_removal_left_goes_and_what_could_be_served_stays(root: Path) -> None:
    """After a rollback the later generation is nobody's parent, and yet the one to go
    forward to.
    """
    commit(root, "one")
    commit(root, "two", Manifest(segments=segment(root, "000002-image")))
    generations.roll_back(root)
    left = root / "generations" / "000009"
    left.mkdir()
    (left / "items.sqlite").write_text("no manifest: it cannot be served")
    segment(root, "000009-image")
    generations.tidy(root, whole=False)
    assert names(root / "generations") == ["000001", "000002"]
    assert names(root / "segments") == ["000002-image"]
    generations.tidy(root)
    assert names(root / "generations") == ["000001"]
