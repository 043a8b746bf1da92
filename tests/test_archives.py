"""Archives: what is unpacked where, and a planted archive for everything that one may not do."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.config import Config, DatasetConfig
from fashionrec.dataset.archives import open_archive, safe_parts
from fashionrec.errors import DataError

TREE = {"ds/images/a.jpg": b"photo", "ds/labels/a.txt": b"0 .5 .5 1 1\n", "ds/data.yaml": b"names: [top]\n"}


@pytest.fixture
def settings(config: Config) -> DatasetConfig:
    return config.dataset


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """Return where the archive lies, with room around it that must stay as it is."""
    (tmp_path / "outer" / "yard").mkdir(parents=True)
    (tmp_path / "outer" / "kept.txt").write_text("kept")
    return tmp_path / "outer" / "yard"


def tar_member(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def make_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def zip_info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden or not; the content of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(path: Path, settings: DatasetConfig) -> str:
    """The one line that an archive is refused with; nothing may be left, inside the workspace or
    out of it.
    """
    around = path.parent.parent.parent
    (path.parent / "work").mkdir(exist_ok=True)
    before = tree(around)
    with pytest.raises(DataError) as caught, open_archive(path, path.parent / "work", settings):
        pytest.fail("it was opened")
    assert tree(around) == before
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz", "d.tar.bz2", "d.tar.xz", "zip-named.tar", "no-suffix"])
def test_an_archive_is_a_folder_for_a_while(name: str, yard: Path, settings: DatasetConfig) -> None:
    path = yard / name
    if name in ("d.zip", "zip-named.tar"):
        make_zip(path, *TREE.items())
    else:
        kind = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(name.rpartition(".")[2], "w")
        make_tar(path, *(tar_member(*item) for item in TREE.items()), mode=kind)
    with open_archive(path, yard / "work", settings) as folder:
        assert {f"ds/{key}": data for key, data in tree(folder).items() if data is not None} == TREE
        assert (yard / "work") in folder.parents
    assert list((yard / "work").iterdir()) == []


def test_it_is_gone_after_an_error_too(yard: Path, settings: DatasetConfig) -> None:
    path = make_zip(yard / "d.zip", *TREE.items())
    with pytest.raises(KeyError), open_archive(path, yard / "work", settings):
        raise KeyError
    assert list((yard / "work").iterdir()) == []


def test_a_folder_or_a_file_that_is_no_archive_is_itself(yard: Path, settings: DatasetConfig) -> None:
    (yard / "data.yaml").write_text("names: [top]")
    for path in (yard, yard / "data.yaml"):
        with open_archive(path, yard / "work", settings) as folder:
            assert folder == path
    assert not (yard / "work").exists()


@pytest.mark.parametrize(
    ("names", "inner"),
    [
        (["one/two/a.jpg", "__MACOSX/one/two/._a.jpg", ".DS_Store"], "a.jpg"),
        (["train/images/a.jpg"], "train/images/a.jpg"),  # the name says which split it is
        (["ds/a.jpg", "README.txt"], "ds/a.jpg"),
    ],
)
def test_a_single_top_folder_is_entered(names: list[str], inner: str, yard: Path, settings: DatasetConfig) -> None:
    path = make_zip(yard / "d.zip", *((name, b"x") for name in names))
    with open_archive(path, yard / "work", settings) as folder:
        assert (folder / inner).is_file()
        assert not any("__MACOSX" in key for key in tree(folder))


def test_windows_separators_are_folders(yard: Path, settings: DatasetConfig) -> None:
    path = make_zip(yard / "d.zip", ("images\\", b""), ("images\\a.jpg", b"x"), ("labels\\a.txt", b"y"))
    with open_archive(path, yard / "work", settings) as folder:
        assert (folder / "images" / "a.jpg").read_bytes() == b"x"


def test_modes_and_owners_are_not_taken_over(yard: Path, settings: DatasetConfig) -> None:
    members = [
        tar_member("a.jpg", mode=0o6777, uid=0),
        tar_member("b.jpg", mode=0),
        tar_member("c", b"", type=tarfile.DIRTYPE, mode=0),
    ]
    path = make_tar(yard / "d.tar", *members)
    (yard / "plain").touch()
    with open_archive(path, yard / "work", settings) as folder:
        for name in ("a.jpg", "b.jpg"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == stat.S_IMODE((yard / "plain").stat().st_mode)
        assert list((folder / "c").iterdir()) == []


HOSTILE_NAMES = {
    "../evil.txt": "leads out",
    "a/../../evil.txt": "leads out",
    "..\\..\\evil.txt": "leads out",
    "/tmp/fashionrec-evil.txt": "absolute",
    "\\\\server\\share\\evil.txt": "absolute",
    "C:\\evil.txt": "absolute",
    "c:evil.txt": "absolute",
    "a\nb.jpg": "control characters",
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_leads_elsewhere(name: str, kind: str, yard: Path, settings: DatasetConfig) -> None:
    if kind == "zip":
        path = make_zip(yard / "d.zip", ("fine.jpg", b"x"), (name, b"x"))
    else:
        path = make_tar(yard / "d.tar", tar_member("fine.jpg"), tar_member(name))
    assert HOSTILE_NAMES[name] in refused(path, settings)


@pytest.mark.parametrize("name", ["ab:c.jpg", "x/C:y.jpg", "nul.txt", "folder./x.jpg", "LPT1"])
def test_names_that_mean_something_else_to_windows(name: str) -> None:
    assert safe_parts(name, windows=False)
    with pytest.raises(ValueError, match="Windows"):
        safe_parts(name, windows=True)


@given(st.text(alphabet="./\\abC:~é\0 ", max_size=20))
def test_no_name_leads_out(name: str) -> None:
    try:
        parts = safe_parts(name)
    except ValueError:
        return
    target = Path("/base/folder")
    assert target.joinpath(*parts).parts[:3] == target.parts
    assert ".." not in parts
    assert not any("/" in part for part in parts)


SPECIAL: dict[str, tuple[dict[str, Any], str]] = {
    "symlink-out": ({"type": tarfile.SYMTYPE, "linkname": "../../kept.txt"}, "a link"),
    "symlink-absolute": ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
    "symlink-inside": ({"type": tarfile.SYMTYPE, "linkname": "fine.jpg"}, "a link"),
    "hard-link": ({"type": tarfile.LNKTYPE, "linkname": "fine.jpg"}, "a link"),
    "hard-link-out": ({"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "a link"),
    "char-device": ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, "a device"),
    "block-device": ({"type": tarfile.BLKTYPE, "devmajor": 8}, "a device"),
    "fifo": ({"type": tarfile.FIFOTYPE}, "a device or a pipe"),
}


@pytest.mark.parametrize("what", SPECIAL)
def test_links_devices_and_pipes_in_a_tar(what: str, yard: Path, settings: DatasetConfig) -> None:
    fields, words = SPECIAL[what]
    path = make_tar(yard / "d.tar", tar_member("fine.jpg"), tar_member("bad", b"", **fields))
    assert words in refused(path, settings)


@pytest.mark.parametrize(
    ("kind", "words"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "a pipe"), (stat.S_IFCHR, "a device")]
)
def test_links_devices_and_pipes_in_a_zip(kind: int, words: str, yard: Path, settings: DatasetConfig) -> None:
    path = make_zip(yard / "d.zip", ("fine.jpg", b"x"), (zip_info("bad", kind | 0o777), b"/etc/passwd"))
    assert words in refused(path, settings)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["A.jpg", "a.jpg"], "equal on some machines"),
        (["Images/a.jpg", "images/b.jpg"], "equal on some machines"),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], "equal on some machines"),
        (["a.jpg", "a.jpg"], "a duplicate name"),
        (["a", "a/b.jpg"], "equal on some machines"),
        (["a/b.jpg", "a"], "equal on some machines"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide(names: list[str], words: str, kind: str, yard: Path, settings: DatasetConfig) -> None:
    if kind == "zip":
        path = make_zip(yard / "d.zip", *((name, b"x") for name in names))
    else:
        path = make_tar(yard / "d.tar", *(tar_member(name) for name in names))
    assert words in refused(path, settings)


def bomb_zip(yard: Path) -> Path:
    return make_zip(yard / "d.zip", ("zeros.jpg", bytes(20_000_000)))


def bomb_lying_zip(yard: Path) -> Path:
    """Both headers say that the bomb is ten bytes long."""
    path = bomb_zip(yard)
    said, true = (10).to_bytes(4, "little"), (20_000_000).to_bytes(4, "little")
    assert path.read_bytes().count(true) == 2
    path.write_bytes(path.read_bytes().replace(true, said))
    return path


def bomb_tar(yard: Path) -> Path:
    return make_tar(yard / "d.tar.gz", tar_member("zeros.jpg", bytes(20_000_000)), mode="w:gz")


def bomb_padding(yard: Path) -> Path:
    """Nothing is written to the disk: one folder, again and again."""
    header = tar_member("a", b"", type=tarfile.DIRTYPE)[0].tobuf()
    (yard / "d.tgz").write_bytes(gzip.compress(header * 6_000))
    return yard / "d.tgz"


def bomb_header(yard: Path) -> Path:
    """A name of 5 MB, which tarfile would read into memory."""
    long = tar_member("././@LongLink", b"n" * 5_000_000, type=tarfile.GNUTYPE_LONGNAME)
    return make_tar(yard / "d.tar.gz", long, tar_member("a.jpg"), mode="w:gz")


def bomb_sparse(yard: Path) -> Path:
    """A file of holes: 512 bytes in the archive, a terabyte on the disk."""
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 40),
    }
    info.size = 1
    with tarfile.open(yard / "d.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"x"))
    return yard / "d.tar"


@pytest.mark.parametrize("bomb", [bomb_zip, bomb_tar, bomb_sparse])
def test_what_unpacks_to_too_much_is_stopped_while_it_does(
    bomb: Callable[[Path], Path], yard: Path, settings: DatasetConfig
) -> None:
    assert "unpacks to more than" in refused(bomb(yard), settings)


def test_a_size_in_a_header_is_not_believed(yard: Path, settings: DatasetConfig) -> None:
    refused(bomb_lying_zip(yard), settings)


def test_headers_are_counted_too(yard: Path, settings: DatasetConfig) -> None:
    assert "unpacks to more than" in refused(bomb_padding(yard), settings)
    assert "header is too long" in refused(bomb_header(yard), settings)


def test_the_limits_are_settings(yard: Path, settings: DatasetConfig) -> None:
    path = make_zip(yard / "d.zip", ("zeros.jpg", bytes(20_000_000)), ("a.jpg", b"x"))
    assert "max_unpacked" not in str(refused(path, settings))
    generous = settings.model_copy(update={"max_ratio": 10_000})
    with open_archive(path, yard / "work", generous) as folder:
        assert (folder / "zeros.jpg").stat().st_size == 20_000_000
    assert "more than 19,999,999 bytes" in refused(path, generous.model_copy(update={"max_unpacked": 19_999_999}))
    assert "too many members" in refused(path, generous.model_copy(update={"max_members": 1}))


def encrypted(yard: Path) -> Path:
    path = make_zip(yard / "d.zip", ("a.jpg", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    path.write_bytes(data)
    return path


def test_an_encrypted_archive(yard: Path, settings: DatasetConfig) -> None:
    assert "is encrypted" in refused(encrypted(yard), settings)


NOISE = bytes(range(251)) * 400


def damaged_zip(yard: Path) -> Path:
    with zipfile.ZipFile(yard / "d.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.jpg", NOISE)
    data = bytearray((yard / "d.zip").read_bytes())
    data[5000] ^= 1
    (yard / "d.zip").write_bytes(data)
    return yard / "d.zip"


def cut(make: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def damage(yard: Path) -> Path:
        path = make(yard)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return damage


def whole_tar(suffix: str, mode: str) -> Callable[[Path], Path]:
    return lambda yard: make_tar(yard / f"d{suffix}", *(tar_member(f"{n}.jpg", NOISE) for n in range(5)), mode=mode)


def broken_header(yard: Path) -> Path:
    """tarfile takes the third header, whose checksum is wrong, for the end."""
    path = whole_tar(".tar", "w")(yard)
    data = bytearray(path.read_bytes())
    at = data.index(b"2.jpg")
    data[at] ^= 1
    path.write_bytes(data)
    return path


def between_members(yard: Path) -> Path:
    """Cut exactly where the third member would begin."""
    path = whole_tar(".tar", "w")(yard)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"2.jpg")])
    return path


def no_archive(yard: Path) -> Path:
    (yard / "d.zip").write_bytes(b"<html>please log in</html>")
    return yard / "d.zip"


def packed_text(yard: Path) -> Path:
    (yard / "d.tar.gz").write_bytes(gzip.compress(b"no tar at all" * 100))
    return yard / "d.tar.gz"


@pytest.mark.parametrize(
    "damage",
    [
        damaged_zip,
        cut(lambda yard: make_zip(yard / "d.zip", ("a.jpg", NOISE)), 0.6),
        cut(whole_tar(".tar", "w"), 0.5),
        cut(whole_tar(".tar.gz", "w:gz"), 0.6),
        cut(whole_tar(".tar.bz2", "w:bz2"), 0.6),
        cut(whole_tar(".tar.xz", "w:xz"), 0.6),
        broken_header,
        between_members,
        no_archive,
        packed_text,
    ],
)
def test_a_damaged_archive_is_never_half_used(
    damage: Callable[[Path], Path], yard: Path, settings: DatasetConfig
) -> None:
    assert "damaged" in refused(damage(yard), settings)


def test_tarfile_alone_would_use_half_of_a_damaged_archive(yard: Path) -> None:
    """Check why headers are checked here: this is what the check above catches."""
    with tarfile.open(broken_header(yard)) as archive:
        assert len(archive.getnames()) == 2


def test_the_check_sees_what_escapes(yard: Path, settings: DatasetConfig) -> None:
    """A planted naive unpacking is caught by the comparison that every hostile archive above goes
    through.
    """
    path = make_tar(yard / "d.tar", tar_member("../evil.txt"))
    before = tree(yard.parent)
    with tarfile.open(path) as archive:
        for member in archive:
            (yard / member.name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
    assert tree(yard.parent) != before


def test_nothing_there(yard: Path, settings: DatasetConfig) -> None:
    with (
        pytest.raises(DataError, match="no such file or folder"),
        open_archive(yard / "none.zip", yard / "work", settings),
    ):
        pass
