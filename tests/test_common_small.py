"""The small parts that everything stands on: waits, Korean, pages, extras, files, and what the
system says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from systems import posix_only

from fashionrec.common import system
from fashionrec.common.backoff import backoff
from fashionrec.common.extras import EXTRA_OF, load, need
from fashionrec.common.files import canonical_json, dump_json, fingerprint, locked, provisional_folder, temporary_beside
from fashionrec.common.folder import Folder, is_name
from fashionrec.common.korean import ENDINGS, PARTICLES, without_ending
from fashionrec.common.pages import COLOURS, OTHER_COLOUR, draw_label, environment, jpeg_uri
from fashionrec.common.text import TableWriter, encodable, markdown_cell, plain_name, shell_word, table_cell, visible
from fashionrec.errors import Busy, DataError, MissingExtra, UsageError
from fashionrec.store.words import match_expression, query_phrases, searchable, single_syllables


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 2), (1, 4), (2, 8), (3, 10), (9, 10)])
def test_waits_double_up_to_the_longest(attempt: int, seconds: float) -> None:
    asked: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.75

    assert backoff(attempt, 2, 10, jitter) == 0.75 * seconds
    assert asked == [(0.5, 1.0)]
    assert seconds / 2 <= backoff(attempt, 2, 10) <= seconds


def test_what_stands_behind_korean_words() -> None:
    assert [without_ending(word, PARTICLES) for word in ("셔츠는", "바지으로", "옷은", "치마", "셔츠에서")] == [
        *("셔츠", "바지", "옷은", "치마", "셔츠"),
    ]
    lengths = [len(ending) for ending in ENDINGS]
    assert lengths == sorted(lengths, reverse=True)
    assert {"하고", "같은", "들", *PARTICLES} <= {*ENDINGS}
    assert without_ending("셔츠처럼", ENDINGS) == "셔츠"


@pytest.mark.parametrize(
    ("text", "stored", "asked", "single"),
    [
        ("Navy 셔츠와", "navy 셔츠 츠와", '"navy" OR "셔츠 츠와" OR "셔츠"', []),
        ("옷", "옷", '"옷"', ["옷"]),
        ("옷은", "옷은", '"옷은"', ["옷"]),
        ("a-b a", "a b a", '"a" OR "b"', []),
        ("A라인", "a라 라인", '"a라 라인"', []),
        ("", "", "", []),
        ("옷 옷을 탑", "옷 옷을 탑", '"옷" OR "옷을" OR "탑"', ["옷", "탑"]),
    ],
)
def test_words_for_full_text_search(text: str, stored: str, asked: str, single: list[str]) -> None:
    assert searchable(text) == stored
    assert match_expression(query_phrases(text)) == asked
    assert single_syllables(text) == single


def test_what_pages_are_made_with() -> None:
    assert jpeg_uri(b"\xff\xd8\xff") == "data:image/jpeg;base64,/9j/"
    assert environment().from_string("{% if x %}\n  {{ x }}\n{% endif %}\n").render(x="<b>") == "  &lt;b&gt;\n"
    assert environment().from_string("a\n    {% if x %}b{% endif %}").render(x=1) == "a\nb"
    assert set(COLOURS) == {"dress", "pants", "skirt&pants", "skirt", "top"}
    for colour in (*COLOURS.values(), OTHER_COLOUR):  # white on it is read: 4.5 to 1 (WCAG 2.2)
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        light = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (light + 0.05) >= 4.5


@pytest.mark.parametrize("line", [2, 3])
def test_a_label_is_as_large_as_its_text(line: int) -> None:
    picture = Image.new("RGB", (200, 80), "red")
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((0, 0), "top", font_size=6 * line)
    draw_label(draw, 10, 20, "top", "#0000ff", line)
    expected = Image.new("RGB", (200, 80), "red")
    other = ImageDraw.Draw(expected)
    other.rectangle((10, 20, 10 + right - left + 4 * line, 20 + bottom - top + 4 * line), fill="#0000ff")
    assert picture.tobytes() != expected.tobytes()  # the text
    other.text((10 + 2 * line - left, 20 + 2 * line - top), "top", fill="white", font_size=6 * line)
    assert picture.tobytes() == expected.tobytes()


def test_what_an_extra_brings() -> None:
    need("json", "os", what="this")
    assert load("json", what="this", packages=("os",)) is json
    for package in ("none_such", "none_other"):
        with pytest.raises(MissingExtra) as caught:
            need("json", package, "none_more", what="this")
        assert str(caught.value) == f"this needs {package}, none_more"
        assert caught.value.hint == "pip install '.[train]' in a checkout of fashionrec"
    with pytest.raises(MissingExtra, match="that needs none_such"):
        load("json", what="that", packages=("none_such",))
    assert set(EXTRA_OF.values()) == {"train"}


def test_documents_of_ours() -> None:
    assert dump_json({"b": [1, "셔츠"], "a": None}) == '{\n  "b": [\n    1,\n    "셔츠"\n  ],\n  "a": null\n}\n'
    assert canonical_json({"b": [1, "셔츠"], "a": {"d": 1, "c": 2}}) == '{"a":{"c":2,"d":1},"b":[1,"셔츠"]}'.encode()
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(float("inf"))
    assert canonical_json("\ud800") == b'"\xed\xa0\x80"'
    first, second = (temporary_beside(Path("a/b.txt")) for _ in range(2))
    assert first != second
    assert first.parent == Path("a")
    assert first.name.startswith(".b.txt.")
    assert first.name.endswith(".tmp")
    assert len(first.name) == len(".b.txt.") + 16 + len(".tmp")


def test_one_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "a" / ".lock"
    with locked(path, "is at it"), pytest.raises(Busy) as caught, locked(path, "is at it"):
        pass
    assert str(caught.value) == "another process is at it"
    assert caught.value.hint == "wait for it to end, then try again"
    assert path.is_file()
    with pytest.raises(KeyError), locked(path, ""):
        raise KeyError
    with locked(path, ""):
        pass
    with pytest.raises(UsageError), locked(path, ""):
        raise UsageError("")
    assert path.is_file()  # it was there before


@posix_only("removal of open files")
def test_wrong_use_leaves_no_new_lock_and_no_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / ".lock"
    with pytest.raises(UsageError), locked(path, ""):
        raise UsageError("")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(UsageError), provisional_folder(path.parent):
        raise UsageError("")
    assert list((tmp_path / "a").iterdir()) == []
    path.parent.mkdir()
    (path.parent / "work").touch()
    with pytest.raises(UsageError), locked(path, ""):
        raise UsageError("")
    assert [entry.name for entry in path.parent.iterdir()] == ["work"]
    with pytest.raises(KeyError), locked(path, ""):
        raise KeyError
    assert path.is_file()


@posix_only("removal of open files")
def test_a_lock_file_that_its_holder_removes_is_not_held_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may open the file just before it is removed, and lock it just after."""
    path, opened = tmp_path / ".lock", os.open
    holder = locked(path, "")

    def open_late(name: Any, *arguments: Any, **options: Any) -> int:
        handle = opened(name, *arguments, **options)
        if str(name) == str(path) and path.exists() and not released:
            released.append(True)
            holder.__exit__(UsageError, UsageError(""), None)
        return handle

    released: list[bool] = []
    holder.__enter__()
    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(Busy), locked(path, ""):  # at once: the other one tries again later
        pass
    monkeypatch.undo()
    with locked(path, ""), pytest.raises(Busy), locked(path, ""):
        pass


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        *(
            (name, True)
            for name in ("a", "a/b", "a b", "...", "a" * 255, "가" * 85, "a\\b", "/".join(["a" * 204] * 10)[:2048])
        ),
        *((name, False) for name in ("", "/a", "a/", "a//b", ".", "a/..", "a\0", "a" * 256, "가" * 86, None, b"a")),
        ("a/" * 1024 + "a", False),
    ],
)
def test_names_inside_a_folder(name: Any, inside: bool) -> None:
    assert is_name(name) is inside


@posix_only("links", "named pipes")
def test_the_line_about_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("y" * 210)
    os.mkfifo(tmp_path / "pipe")
    folder = Folder(tmp_path, "bundle")
    hint = "links and special files are never followed here: remove it, or get a copy without it"
    for name, found in (
        ("file", "is a file, not a folder"),
        ("folder", "is a folder, not a file"),
        ("link", f"is a link (to {'y' * 200})"),
        ("pipe", "is neither a file nor a folder"),
        ("gone", "is unusable"),
    ):
        error = folder.refusal(name)
        assert (str(error), error.hint, type(error)) == (f"bundle {tmp_path}: {name} {found}", hint, DataError)
    assert [folder.kind(name) for name in ("file", "folder", "link", "pipe", "gone", "gone/x")] == [
        *("file", "folder", "link", "special", None, None),
    ]
    assert [(one.name, one.kind, one.size) for one in folder.entries()] == [
        *(("file", "file", 1), ("folder", "folder", 0), ("link", "link", 0), ("pipe", "special", 0)),
    ]
    assert folder.entries("gone") == []
    with pytest.raises(DataError) as caught:
        folder.path("../" + "x" * 300)
    assert str(caught.value) == f"bundle {tmp_path}: {('../' + 'x' * 300)[:200]!r} is not a name inside it"
    for kind, name in (("file", "folder"), ("folder", "file")):
        with pytest.raises(DataError, match="is a"):
            folder.path(name, kind)  # type: ignore[arg-type]
        assert folder.path(name) == folder.path(name, name) == tmp_path / name  # type: ignore[arg-type]
        assert folder.path("gone", kind) == tmp_path / "gone"  # type: ignore[arg-type]


def test_databases_are_files_and_expected_kinds_are_kept(tmp_path: Path) -> None:
    for name in ("a.sqlite", "b.sqlite-wal", "b.sqlite-shm", "b.sqlite-journal"):
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match="is a folder, not a file"):
            Folder(tmp_path).check()
        (tmp_path / name).rmdir()
    (tmp_path / "a.sqlite-x").mkdir()
    (tmp_path / "b").write_text("")
    Folder(tmp_path).check()
    Folder(tmp_path).check({"b": "file", "c": "folder"})
    with pytest.raises(DataError, match="b is a file, not a folder"):
        Folder(tmp_path).check({"b": "folder"})


def test_text_is_written_as_utf8_or_its_escapes(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("a", "셔츠\udce9", sync=False)
    assert (tmp_path / "a").read_bytes() == "셔츠\\udce9".encode()
    folder.make_folder("b/c")
    folder.make_folder("b/c", exist_ok=True)
    folder.make_folder("b/d")  # those above it may be there
    (tmp_path / "f").write_text("")
    with pytest.raises(DataError, match="f is a file, not a folder"):
        folder.make_folder("f/x")
    with pytest.raises(DataError, match="f is a file, not a folder"):
        folder.make_folder("f", exist_ok=True)


@posix_only("links", "modes of files")
def test_a_private_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert system.private_folder(path) == path
    assert path.stat().st_mode & 0o777 == 0o700
    for mode, mine in ((0o755, True), (0o770, False), (0o720, False), (0o702, False)):
        path.chmod(mode)
        assert system.private_folder(path) == (path if mine else None)
    (tmp_path / "link").symlink_to(path)
    path.chmod(0o700)
    assert system.private_folder(tmp_path / "link") is None
    (tmp_path / "file").write_text("")
    assert system.private_folder(tmp_path / "file") is None
    assert system.private_folder(tmp_path / "file" / "x") is None


@posix_only("locks of open files")
def test_many_read_and_one_writes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with (tmp_path / "a").open("rb") as one, (tmp_path / "a").open("rb") as two:
        assert system.lock(one, shared=True)
        assert system.lock(two, shared=True)
        assert not system.lock(two, shared=False)
    with (tmp_path / "a").open("rb") as one, (tmp_path / "a").open("rb") as two:
        assert system.lock(one, shared=False)
        assert not system.lock(two, shared=True)
        assert not system.lock(two, shared=False)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/fashionrec"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/fashionrec"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/fashionrec"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/fashionrec"),
        ("win32", {}, "/home/me/AppData/Local/fashionrec"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")
def test_where_a_users_cache_lies(
    platform: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert str(system.user_cache()) == folder


def test_what_the_system_says() -> None:
    assert 1 <= system.available_cores() <= (os.cpu_count() or 1)
    system.trim_memory()
    if Path("/proc/self/status").is_file():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert abs(system.peak_memory() - int(line.split()[1]) * 1024) < 64 << 20


def test_tables_escape_what_acts() -> None:
    class Sink:
        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str, /) -> None:
            self.text += text

    for end in ("\n", "\r\n"):
        sink = Sink()
        table = TableWriter(sink, lineterminator=end)
        table.writerows([["a,b", 1, None, 'x"y'], ["=1", "\x1b\udce9", "c\rd", "-5"]])
        assert sink.text == f'"a,b",1,,"x""y"{end}\'=1,\\x1b\\xe9,"c\rd",-5{end}'.replace("\\xe9", "\\udce9")
    assert encodable("셔츠 é", "ascii") == "\\uc154\\uce20 \\xe9"
    assert encodable("셔츠") == "셔츠"
    assert (table_cell(-5), table_cell("-5"), table_cell("-5a")) == (-5, "-5", "'-5a")


def test_names_and_words_of_others() -> None:
    assert plain_name("a\x1bb\u202e셔츠") == "a-b-셔츠"
    assert plain_name("a b") == "a b"
    assert visible("a" + "\u0301" * 9) == "a" + "\u0301" * 8 + "\\u0301"
    assert visible("a" + "\u0301" * 8) == "a" + "\u0301" * 8
    assert [shell_word(word) for word in ("a", "a b", "=a", "a'b", "a\x1b", "a  b", "")] == [
        *("a", "'a b'", "'=a'", "'a'\"'\"'b'", "$'a\\x1b'", "$'a\\x20\\x20b'", "''"),
    ]
    assert [shell_word(word, windows=True) for word in ("a", "a b", "a\x1b", 'a"b', "a$b", "a  b")] == [
        *("a", '"a b"', '"…"', '"…"', '"…"', '"…"'),
    ]
    assert markdown_cell("a|b [c] `d` <e> &amp; \\") == "a\\|b \\[c\\] \\`d\\` &lt;e> &amp;amp; \\\\"
