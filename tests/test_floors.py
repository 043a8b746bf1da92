"""Lower bounds: each dependency has one, and what is locked and what `make test-floors` pins agree
with it.
"""

import os
import re
from pathlib import Path

import floors
import pytest
from systems import posix_only

LOCKED = re.compile(r"^([a-z0-9-]+)==([0-9][^ ;\\]*)", re.MULTILINE)


def number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:4])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def locked() -> dict[str, list[tuple[int, ...]]]:
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, release in LOCKED.findall((floors.REPOSITORY / "requirements-all.lock").read_text(encoding="utf-8")):
        found.setdefault(name, []).append(number(release))
    return found


def test_every_dependency_has_a_lower_bound_that_the_lock_keeps(locked: dict[str, list[tuple[int, ...]]]) -> None:
    bounds = floors.all_floors()
    assert {"onnxruntime", "torch", "pytest"} <= set(bounds)
    for name, floor in bounds.items():
        assert all(release >= number(floor) for release in locked[canonical(name)]), f"{name}>={floor} is not locked so"


@pytest.mark.parametrize("requirement", ["numpy", "numpy==1.0", "numpy<3", "numpy>=1.0 ; python_version < '4'"])
def test_a_requirement_without_a_plain_lower_bound_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="no lower bound"):
        floors.read_floors([requirement])


def test_an_upper_bound_beside_the_lower_one_is_fine() -> None:
    assert floors.read_floors(["typer>=0.15,<0.26", "Pillow >= 12.3"]) == {"typer": "0.15", "Pillow": "12.3"}


def test_linters_are_held_to_the_locked_versions(locked: dict[str, list[tuple[int, ...]]]) -> None:
    bounds = floors.all_floors()
    for name in floors.LINTERS:
        assert [number(bounds[name])] == locked[canonical(name)], f"{name}: `make lint` runs the locked version only"


@posix_only("links")
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_lock_empties_no_file_that_it_is_another_name_of(link: object, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "theirs").write_text("precious")
    link(tmp_path / ".lock", tmp_path / "theirs")  # type: ignore[operator]
    try:
        with FileLock(tmp_path / ".lock", timeout=0):
            assert link is not Path.symlink_to, "the lock follows a link"
    except OSError:
        assert link is Path.symlink_to
    assert (tmp_path / "theirs").read_text() == "precious"


def test_faiss_limits_what_an_index_file_allocates() -> None:
    import faiss

    assert callable(faiss.set_deserialization_vector_byte_limit)
    assert callable(faiss.set_deserialization_loop_limit)


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message that is shorter than 128 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    raw = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(raw)]) + raw


def graph_of(location: str) -> bytes:
    """An ONNX model that returns sixteen bytes of a file."""
    places = (("location", location), ("offset", "0"), ("length", "16"))
    outside = b"".join(field(13, field(1, key) + field(2, value)) for key, value in places)
    weights = field(1, 16) + field(2, 2) + field(8, "w") + outside + field(14, 1)
    shape = field(1, field(1, 2) + field(2, field(1, field(1, 16))))
    node = field(1, "w") + field(2, "y") + field(4, "Identity")
    graph = field(1, node) + field(2, "g") + field(5, weights) + field(12, field(1, "y") + field(2, shape))
    size = len(graph)
    return field(1, 8) + bytes([7 << 3 | 2, size & 127 | 128, size >> 7]) + graph + field(8, field(2, 17))


@pytest.mark.parametrize(("location", "read"), [("beside", True), ("../outside", False), ("link", False)])
def test_onnxruntime_reads_no_file_outside(location: str, read: bool, tmp_path: Path) -> None:
    import onnxruntime

    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "outside").write_text("a private key...")
    (folder / "beside").write_text("just some weight")
    if os.name != "nt":
        (folder / "link").symlink_to("../outside")
    (folder / "model.onnx").write_bytes(graph_of(location))
    open_session = lambda: onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])  # noqa: E731
    if read:
        assert bytes(open_session().run(None, {})[0]) == b"just some weight"
    else:
        with pytest.raises(Exception, match=r"[Ee]xternal data"):  # classes of its own, one per status
            open_session()
