"""`python -m tests.mutate` on a package of one module, with tests that miss some of its faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutate import DECLARED
from tests.mutate_candidates import batch, is_near
from tests.mutate_map import Test as MappedTest
from tests.mutate_map import line_numbers
from tests.mutate_places import Mutant, Places

REPOSITORY = Path(__file__).parents[1]
MODULE = '''\
"""Prices."""

LIMIT = 10


def total(prices, discount=0):
    """Add up."""
    found = 0
    for price in prices:
        if price < 0:
            continue
        found += price
    return found - discount


def label(price):
    return "dear" if price > LIMIT else "cheap"


def unused(price):
    return price * 2


def spin(price):
    while price > 0:
        price -= 1
    return price
'''
TESTS = """\
import subprocess, sys, shop.prices as prices
from pathlib import Path


def test_total():
    assert prices.total([1, -5, 2]) == 3


def test_label():
    assert prices.label(10) == "cheap"


def test_spin():
    code = "import shop.prices as prices, sys; sys.exit(prices.spin(3))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fails_once():
    runs = Path("runs.txt")
    runs.write_text((runs.read_text() if runs.exists() else "") + "x")
    assert prices.label(1) and runs.read_text() != "xx"


def test_fails_anyway():
    assert prices.total([]) == 1
"""


def mutants(text: str) -> list[Mutant]:
    found = Places("shop/a.py", text)
    return [mutant for place in range(len(found)) for mutant in found.alternatives(place)]


def diffs(text: str) -> set[str]:
    return {mutant.diff for mutant in mutants(text)}


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("x = a < b", ["x = a <= b", "x = a >= b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = (a) is not (b)", ["x = (a) is (b)"]),
        ("x = a and b and c", ["x = a or b and c", "x = a and b or c"]),
        ("x = not a", ["x = a"]),
        ("x = a + b * c", ["x = a - b * c", "x = a + b / c"]),
        ("x -= y", ["x += y"]),
        ("x = 'key'", ["x = 'keyXX'"]),
        ("x = 'a text for people'", []),
        ("x = f'{a + b}'", []),
        ("x = a[1:b]", ["x = a[2:b]", "x = a[:b]", "x = a[1:]"]),
        ("x = f(a, k=b)", ["x = f(a)"]),
        ("x = f(k=a, j=b)", ["x = f(j=b)", "x = f(k=a)"]),
        ("x = f(a, b)", ["x = f(b, a)"]),
        ("x = Thread(target=a, name='n')", ["x = Thread(name='n')"]),
        ("x = max(a, b)", ["x = min(a, b)"]),
        ("x = sorted(a, reverse=True)", ["x = list(a, reverse=True)", "x = sorted(a)", "x = sorted(a, reverse=False)"]),
        ("f(a)", ["pass"]),
        ("logger.info(a + b)", []),
        ("x: int = a", []),
        ("x: Literal['a'] = True", ["x: Literal['a'] = False"]),
        ("assert a < b", []),
        ("raise ValueError(a + b)", []),
        ("__all__ = ['a']", []),
        ("VERSION = 1", []),
        ("x = Union[int, 'A']", []),
        ("x = [y for y in a if y]", ["x = [y for y in a if True]"]),
        ("x = a if b else c", ["x = a if True else c", "x = a if False else c"]),
        ("x = 'ä' + a; y = b < c", ["x = 'ä' + a; y = b <= c", "x = 'ä' + a; y = b >= c", "x = 'äXX' + a; y = b < c"]),
        ("x = y if(a)and b else z", ["x = y if True else z", "x = y if False else z", "x = y if(a)or b else z"]),
    ],
)
def test_the_mutants_of_a_line(line: str, after: list[str]) -> None:
    assert {mutant.after for mutant in mutants(line)} == set(after)


def test_a_statement_of_several_lines_is_one_line_in_the_diff() -> None:
    text = (
        "def f(a, limit=LIMIT):\n    '''A text.'''\n    call(\n        a,\n        k=1,  # why\n    )\n    return a\n"
    )
    assert {mutant.diff.partition(" -> ")[2] for mutant in mutants(text)} == {
        "def f(a, limit=None):",
        "pass",
        "k=2, # why",
        "# why",
        "return None",
    }


def test_what_python_skips_is_left_alone() -> None:
    assert not mutants("if TYPE_CHECKING:\n    x = 1\nif __name__ == 'a':\n    x = 1\n")
    assert diffs("while True:\n    break\n") == {"break -> continue"}


def test_the_lines_of_an_edited_source_are_found_again() -> None:
    assert line_numbers("a\nb\nc\nd\n", "a\nnew\nb\nC\nd\n") == {1: 1, 2: 3, 3: 4, 4: 5}


def test_tests_of_the_module_s_name_come_first() -> None:
    assert is_near("p/captioner/batch.py", "tests/test_captioner_batch.py")
    assert is_near("p/detector/families/__init__.py", "tests/test_families.py")
    assert not is_near("p/batch_state.py", "tests/test_batch.py")


def test_a_batch_keeps_a_file_together() -> None:
    tests = [MappedTest(name, 1.0, 10.0, True) for name in ("a::1", "b::1", "a::2", "c::1", "a::3")]
    assert [test.name for test in batch(tests, 4.0, 2)] == ["a::1", "a::2", "a::3", "b::1"]
    assert len(batch(tests, 0.1, 2)) == 1


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project") / "repo"
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "__init__.py").write_text("")
    (root / "shop" / "prices.py").write_text(MODULE)
    (root / "tests").mkdir()
    (root / "tests" / "test_prices.py").write_text(TESTS)
    (root / "tests" / DECLARED).write_text(
        "# one\nshop/prices.py: return found - discount -> return found + discount | nobody gives one\n"
    )
    assert run(root, "--map-only").returncode == 0
    return root


def run(root: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.mutate", "--root", root, "--package", "shop", *words]
    env = {key: value for key, value in os.environ.items() if not key.startswith("FASHIONREC")}
    return subprocess.run(
        [str(word) for word in command], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )


def test_a_sample_is_drawn_again_by_its_seed(shop: Path) -> None:
    first, again, other = (run(shop, "--list", "--sample", 8, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert len(first.splitlines()) == 8


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what is in a project beside the map."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".mutate" not in path.parts)
    return {path: path.read_bytes() for path in files}


@pytest.mark.release(60)
def test_what_is_noticed_and_what_is_not(shop: Path) -> None:
    lint = '[tool.mypy]\nfiles = ["shop"]\n[tool.ruff.lint]\nselect = ["ARG"]\n'
    (shop / "pyproject.toml").write_text(lint)
    before = contents(shop)
    done = run(shop, "--sample", 200, "--minutes", 4)
    assert before == contents(shop)
    assert done.returncode == 1, done.stderr

    survivors, _, unreached = done.stdout.partition("not reached:")
    dear = 'return "dear" if price > LIMIT else "cheap"'  # no test of that
    assert f"shop/prices.py:17: [constant] {dear} -> {dear.replace('dear', 'dearXX')}" in survivors
    assert "shop/prices.py:3: [constant] LIMIT = 10 -> LIMIT = 11" in survivors
    assert "def total(prices, discount=0): -> def total(prices, discount=1):" not in survivors
    assert "return price * 2 -> return price / 2" in unreached.partition("left out")[0]
    for test in ("test_fails_anyway", "test_fails_once"):
        assert f"left out, fails without a mutant or by chance: tests/test_prices.py::{test}" in done.stdout

    assert "found += price -> found -= price  (noticed by tests/test_prices.py::test_total)" in done.stderr
    assert "[loop] continue -> break  (noticed by" in done.stderr
    assert "return price -> return None" not in done.stderr.partition("noticed")[0]
    assert "(tests/test_prices.py::test_spin ran out of time)" in done.stderr  # in a child process, for ever
    assert re.search(r"return price \* 2 -> return None  \(noticed by lint: .*ARG001", done.stderr)
    total = done.stdout.splitlines()[-3].split()
    assert total[0] == "all"
    assert int(total[3]) >= 1  # the argument that nothing reads
    assert total[7] == "1"  # declared to change nothing


def test_the_bound_decides(shop: Path) -> None:
    assert run(shop, "--sample", 1, "--seed", 3, "--least", 0).returncode == 0


def test_only_edited_tests_are_mapped_again(shop: Path) -> None:
    (shop / "tests" / "test_other.py").write_text("import shop.prices\n\ndef test_it():\n    shop.prices.unused(1)\n")
    (shop / "tests" / "test_broken.py").write_text("import os\n\nos._exit(3)\n")  # does not stop the others
    done = run(shop, "--map-only")
    assert re.search(r"^mapped ./2 tests/test_other.py \(1 tests", done.stderr, re.M)
    assert re.search(r"^not mapped ./2 tests/test_broken.py", done.stderr, re.M)
    assert "test_prices" not in done.stderr


def test_a_declaration_needs_a_reason(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "prices.py").write_text(MODULE)
    (tmp_path / "tests" / DECLARED).write_text("shop/prices.py: a -> b\n")
    done = run(tmp_path, "--as-is", "--sample", 1)
    assert done.returncode == 1
    assert "no reason" in done.stderr
