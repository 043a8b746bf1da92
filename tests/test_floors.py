"""Lower bounds: each dependency has one, and what is locked and what `make test-floors` pins agree with it."""

import re

import floors
import pytest

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
