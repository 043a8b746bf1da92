"""Archives at the edge of each limit, and every word that one is refused or entered by."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from systems import posix_only

from fashionrec.config import Config, DatasetConfig
from fashionrec.dataset.archives import PARTS, open_archive, safe_parts
from fashionrec.errors import DataError

HINT = "use another archive, or an unpacked folder"


@pytest.fixture
def settings(config: Config) -> DatasetConfig:
    return config.dataset


def pack(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data, how)
    return path


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(path: Path, settings: DatasetConfig) -> tuple[str, str]:
    work = path.parent / "work"
    with pytest.raises(DataError) as caught, open_archive(path, work, settings):
        pytest.fail("it was opened")
    assert not work.exists() or not any(work.iterdir())
    return str(caught.value), caught.value.hint


def held(path: Path, settings: DatasetConfig) -> list[str]:
    with open_archive(path, path.parent / "work", settings) as folder:
        return sorted(found.relative_to(folder).as_posix() for found in folder.rglob("*") if found.is_file())


def test_bytes_that_may_come_out(tmp_path: Path, settings: DatasetConfig) -> None:
    free = 1 << 20
    low = settings.model_copy(update={"max_ratio": 0.5})
    fits = pack(tmp_path / "a.zip", ("x", os.urandom(free // 2)), ("y", os.urandom(free // 2)))
    assert fits.stat().st_size > free  # half of it is less than what may always come out
    assert held(fits, low) == ["x", "y"]
    path = pack(tmp_path / "b.zip", ("x", bytes(free)), ("y", b"1"))
    told = f"{path} unpacks to more than 1,048,576 bytes; nothing was imported"
    assert refused(path, low) == (told, "it may be an archive bomb; if you trust it, raise dataset.max_ratio")
    size = path.stat().st_size
    by_ratio = (free + 1) / size
    assert held(path, settings.model_copy(update={"max_ratio": by_ratio + 1e-6})) == ["x", "y"]
    assert refused(path, settings.model_copy(update={"max_ratio": by_ratio - 1 / size}))[0] == told
    assert held(path, settings.model_copy(update={"max_ratio": 1e6, "max_unpacked": free + 1})) == ["x", "y"]
    told, hint = refused(path, settings.model_copy(update={"max_ratio": 1e6, "max_unpacked": free}))
    assert (told, hint) == (
        f"{path} unpacks to more than 1,048,576 bytes; nothing was imported",
        "it may be an archive bomb; if you trust it, raise dataset.max_unpacked",
    )


def test_members_that_there_may_be(tmp_path: Path, settings: DatasetConfig) -> None:
    for path in (
        pack(tmp_path / "a.zip", ("x", b"1"), ("d/y", b"2")),
        tar(tmp_path / "b.tar", ("x", b"1"), ("d/y", b"2")),
    ):
        assert held(path, settings.model_copy(update={"max_members": 2})) == ["d/y", "x"]
        told = (f"{path} has too many members", "raise dataset.max_members")
        assert refused(path, settings.model_copy(update={"max_members": 1})) == told


@pytest.mark.parametrize(
    "suffix", [".zip", ".tar", ".TGZ", ".gz", ".txz", ".xz", ".tbz", ".tbz2", ".bz2", ".7z", ".rar", ".zst"]
)
def test_a_name_that_promises_an_archive(suffix: str, tmp_path: Path, settings: DatasetConfig) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no archive")
    told = f"{path} is damaged or not a supported archive"
    assert refused(path, settings) == (told, "use .zip, .tar, .tar.gz, .tar.xz or .tar.bz2")


@pytest.mark.parametrize("name", sorted(PARTS | {"Train", "other"}))
def test_a_folder_whose_name_is_part_of_a_format_is_not_entered(
    name: str, tmp_path: Path, settings: DatasetConfig
) -> None:
    path = pack(tmp_path / "a.zip", (f"top/{name}/x.jpg", b"1"), (".hidden", b""), ("__MACOSX/x", b""))
    with open_archive(path, tmp_path / "work", settings) as folder:
        assert folder.name == ("other" if name == "other" else "top")
    words = "train training val valid validation test images labels annotations jpegimages imagesets"
    assert set(words.split()) == PARTS


@pytest.mark.parametrize(
    ("name", "mode", "flags", "why"),
    [
        ("l", stat.S_IFLNK, 0, "a link: 'l'"), ("p", stat.S_IFIFO, 0, "a device or a pipe: 'p'"), ("s",
        stat.S_IFSOCK, 0, "a device or a pipe: 's'"),
        ("../x", 0, 0, "a path that leads out of the folder: '../x'"), ("/x", 0, 0, "an absolute path: '/x'"),
        ("n" * 120 + "\n", 0, 0, f"a name with control characters: '{'n' * 100}'"),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal(
    name: str, mode: int, flags: int, why: str, tmp_path: Path, settings: DatasetConfig
) -> None:
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o644) << 16
    info.create_system = 3
    path = pack(tmp_path / "a.zip", (info, b"x"))
    assert refused(path, settings) == (f"{path} contains {why}; nothing was imported", HINT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one_on_some_machines(tmp_path: Path, settings: DatasetConfig) -> None:
    for first, second, why in (
        ("A", "a", "two names that are equal on some machines ('A'): 'a'"),
        ("a/x", "a", "two names that are equal on some machines ('a'): 'a'"),
        ("a", "a/x", "two names that are equal on some machines ('a'): 'a'"),
    ):
        path = pack(tmp_path / "a.zip", (first, b""), (second, b""))
        assert refused(path, settings) == (f"{path} contains {why}; nothing was imported", HINT)
    path = tar(tmp_path / "a.tar", ("a", b""), ("a", b""))
    assert refused(path, settings) == (f"{path} contains a duplicate name: 'a'; nothing was imported", HINT)
    folders = pack(tmp_path / "b.zip", ("a/", b""), ("a/", b""), ("a/x", b""), ("./a/y", b""), ("z", b""))
    assert held(folders, settings) == ["a/x", "a/y", "z"]


@posix_only("named pipes")
def test_a_pipe_is_no_archive(tmp_path: Path, settings: DatasetConfig) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe", settings)[0] == f"{tmp_path / 'pipe'} is neither a folder nor a file"


def test_what_is_neither_a_folder_nor_an_archive(tmp_path: Path, settings: DatasetConfig) -> None:
    assert refused(tmp_path / "none", settings) == (f"no such file or folder: {tmp_path / 'none'}", "check the path")
    empty = pack(tmp_path / "empty.zip")
    assert held(empty, settings) == []
    behind = tmp_path / "program"
    behind.write_bytes(b"#!/bin/sh\n" + pack(tmp_path / "a.zip", ("x", b"1")).read_bytes())
    assert held(behind, settings) == ["x"]  # a zip behind the program that unpacks it
    cut = tmp_path / "cut.zip"
    cut.write_bytes((tmp_path / "a.zip").read_bytes()[:-10])
    told, hint = refused(cut, settings)
    assert (told.startswith(f"{cut} is damaged: "), hint) == (True, "download it again")
    encrypted = bytearray((tmp_path / "a.zip").read_bytes())
    for flag in (1, 0x40):
        encrypted[encrypted.index(b"PK\x01\x02") + 8] = flag
        cut.write_bytes(encrypted)
        assert refused(cut, settings) == (f"{cut} is encrypted", "unpack it yourself and use the folder")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/./b//c", ("a", "b", "c")), ("a\\b/", ("a", "b")), ("./", ()), ("", ()), ("con", "Windows"), ("CON.x",
        "Windows"), ("a/com1.txt", "Windows"),
        ("lpt9", "Windows"), ("prn", "Windows"), ("aux", "Windows"), ("a.", "Windows"), ("a ", "Windows"), ("x:y", "absolute"),
        ("xx:y", "Windows"), ("comx", ("comx",)), ("console", ("console",)), ("a\x1fb", "control"), ("a b", ("a b",)),
    ],
)  # fmt: skip
def test_parts_of_names(name: str, parts: Any) -> None:
    if isinstance(parts, tuple):
        assert safe_parts(name, windows=True) == safe_parts(name, windows=False) == parts
        return
    with pytest.raises(ValueError, match=parts):
        safe_parts(name, windows=True)
    if parts == "Windows":
        assert safe_parts(name, windows=False) == tuple(name.split("/"))


def test_how_long_the_name_of_a_member_of_a_tar_may_be(tmp_path: Path, settings: DatasetConfig) -> None:
    name = f"{'d' * 100}/{'f' * 150}"
    assert held(tar(tmp_path / "a.tar", (f"top/{name}", b"1"), ("top/x", b"2")), settings) == sorted([name, "x"])
    for size, too_long in ((1 << 20, False), ((1 << 20) + 1, True)):
        path = tmp_path / "b.tar"
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("././@LongLink")
            info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
            archive.addfile(info, io.BytesIO(b"n" * size))
            archive.addfile(tarfile.TarInfo("a.jpg"))
        generous = settings.model_copy(update={"max_ratio": 1e6})
        assert ("a header is too long" in refused(path, generous)[0]) is too_long
