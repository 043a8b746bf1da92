"""Test what of a data set's folder may be read, case by case, with links followed and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from systems import posix_only

from fashionrec.common.reach import HINT, Reach, Refusal, follow_links, following_links, refusals_error
from fashionrec.errors import DataError

pytestmark = posix_only("links", "named pipes")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with photos, hidden files, a pipe, and links to a file and a folder elsewhere, to
    its own, and to nothing.
    """
    root = tmp_path / "data"
    for name in ("a/b.JPG", "a/c.txt", "a/sub/d.png", "a/.hidden.png", ".git/e.png", "z.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (tmp_path / "out" / "below").mkdir(parents=True)
    (tmp_path / "out" / "photo.png").write_text("mine")
    os.mkfifo(root / "a" / "pipe.png")
    for name, target in (
        ("a/to-file.png", "../../out/photo.png"),
        ("to-folder", "../out"),
        ("a/back", ".."),
        ("a/nowhere.png", "gone"),
    ):
        (root / name).symlink_to(target)
    return root


def test_names_and_what_leads_out(root: Path, tmp_path: Path) -> None:
    reach = Reach(root)
    assert reach.name(root) == ""
    assert reach.name(root / "a" / ".." / "z.png") == "z.png"
    assert reach.name(tmp_path / "out") == str(tmp_path / "out")
    assert reach.name(tmp_path / "data2") == str(tmp_path / "data2")  # no part of it
    assert reach.inside(root / "a" / "x") == root / "a" / "x"
    assert reach.inside(root / ".." / "out") is None
    assert reach.inside(root / "a\0") is None
    (tmp_path / "link").symlink_to(root)
    through = Reach(tmp_path / "link")
    assert (through.name(tmp_path / "link" / "a"), through.name(root / "a")) == ("a", "a")
    assert through.check(tmp_path / "link") is through.check(tmp_path / "link" / "z.png") is None
    out, gone = tmp_path / "out", tmp_path / "gone"
    assert [reach.leads_out(path) for path in (out, gone, root / "a")] == [True, True, False]
    assert [reach.is_outside(path) for path in (out, gone, root / "a")] == [True, False, False]
    assert reach.is_outside(Path("//server/share"))
    assert reach.is_outside(Path("\\\\server\\share"))
    following = Reach(root, True)
    assert not following.leads_out(out)
    assert not following.is_outside(out)


@pytest.mark.parametrize(
    ("name", "strict", "following"),
    [
        ("z.png", None, None),
        ("a", None, None),
        ("a/gone", None, None),
        ("a/gone/x", None, None),
        ("a/pipe.png", ("a/pipe.png", "special"), ("a/pipe.png", "special")),
        ("a/to-file.png", ("a/to-file.png", "link"), None),
        ("to-folder", ("to-folder", "link"), None),
        ("to-folder/below/x", ("to-folder", "link"), None),
        ("a/nowhere.png", ("a/nowhere.png", "link"), None),
        ("a/pipe.png/x", ("a/pipe.png", "special"), None),
        ("", None, None),
        ("../out", ("../out", "outside"), None),
    ],
)
def test_why_a_path_is_not_read(
    root: Path, name: str, strict: tuple[str, str] | None, following: tuple[str, str] | None
) -> None:
    for follow, expected in ((False, strict), (True, following)):
        reach = Reach(root, follow)
        for _ in range(2):  # what was found of folders is remembered
            found = reach.check(root / name)
            if expected is None:
                assert found is None
            else:
                assert isinstance(found, Refusal)
                place = str(root / name) if expected[1] == "outside" else expected[0]
                assert tuple(found) == (place, expected[1])
    assert Reach(root).is_file(root / "z.png")
    assert not Reach(root).is_file(root / "a")
    assert not Reach(root).is_file(root / "a" / "to-file.png")
    assert Reach(root, True).is_file(root / "a" / "to-file.png")
    assert not Reach(root).is_file(root / "a\0")
    assert not Reach(root, True).is_file(root / "a\0")


def test_the_files_of_a_folder(root: Path) -> None:
    refused: list[Refusal] = []
    found = [path.relative_to(root).as_posix() for path in Reach(root).files(root, refused)]
    assert found == ["z.png", "a/b.JPG", "a/c.txt", "a/sub/d.png"]
    links = [("to-folder", "link"), ("a/back", "link"), ("a/nowhere.png", "link"), ("a/pipe.png", "special")]
    assert [tuple(one) for one in refused] == [*links, ("a/to-file.png", "link")]
    refused.clear()
    found = [path.relative_to(root).as_posix() for path in Reach(root).files(root, refused, {".png", ".jpg"})]
    assert found == ["z.png", "a/b.JPG", "a/sub/d.png"]
    refused.clear()
    found = [path.relative_to(root).as_posix() for path in Reach(root, True).files(root, refused, (".png",))]
    assert found == ["z.png", "a/to-file.png", "a/sub/d.png", "to-folder/photo.png"]
    assert [tuple(one) for one in refused] == [("a/nowhere.png", "link"), ("a/pipe.png", "special")]
    assert Reach(root).names(root / "a") == (
        ["b.JPG", "c.txt"],
        [
            Refusal(f"a/{name}", "special" if name == "pipe.png" else "link")
            for name in ("back", "nowhere.png", "pipe.png", "to-file.png")
        ],
    )
    assert Reach(root).names(root / "gone") == ([], [])
    assert list(Reach(root, True).files(root / "gone", refused)) == []
    (root / "a" / "sub" / "to-pipe.png").symlink_to("../pipe.png")
    assert Reach(root, True).names(root / "a" / "sub") == (["d.png"], [Refusal("a/sub/to-pipe.png", "special")])


def test_the_first_reading_that_is_there(root: Path, tmp_path: Path) -> None:
    reach, out = Reach(root), tmp_path / "out" / "photo.png"
    assert reach.find(root / "gone", root / "z.png", root / "a") == root / "z.png"
    assert reach.find(root / "gone") is reach.find() is None
    assert reach.find(out, root / "a" / ".." / "z.png") == root / "z.png"
    assert reach.find(out) is None
    assert Reach(root, True).find(out, root / "z.png") == out
    assert reach.find(root / "a" / "nowhere.png", root / "z.png") == Refusal("a/nowhere.png", "link")
    assert reach.described(root / "z.png") == root / "z.png"
    with pytest.raises(DataError) as caught:
        reach.described(root / "a" / "to-file.png")
    assert str(caught.value) == f"{root}: a/to-file.png is a link, which is not followed"
    assert caught.value.hint == HINT == "if you trust its target: --set dataset.follow_links=true"


def test_the_line_about_what_is_not_read() -> None:
    link, outside, special = Refusal("x" * 300, "link"), Refusal("../y", "outside"), Refusal("z", "special")
    assert [str(one) for one in (link, outside, special)] == [
        f"{'x' * 200} is a link, which is not followed",
        "../y leads out of the dataset's folder",
        "z is neither a file nor a folder",
    ]
    for refused, message, hint in (
        ([outside], f"data: {outside}", HINT),
        ([special], f"data: {special}", ""),
        (
            [special, link, Refusal("w", "special"), special],
            f"data: 3 names cannot be read (1 link, 2 special), such as {special}",
            HINT,
        ),
        ([link, outside], f"data: 2 names cannot be read (1 link, 1 outside), such as {link}", HINT),
    ):
        error = refusals_error("data", iter(refused))
        assert (str(error), error.hint) == (message, hint)


def test_whether_links_are_followed_is_the_commands(root: Path) -> None:
    assert not Reach(root).follow_links
    with following_links():
        assert not Reach(root).follow_links
        follow_links(True)
        assert Reach(root).follow_links
        assert not Reach(root, False).follow_links
    assert not Reach(root).follow_links
    with following_links(True):
        assert Reach(root).follow_links
    with pytest.raises(KeyError), following_links(True):
        raise KeyError
    assert not Reach(root).follow_links
