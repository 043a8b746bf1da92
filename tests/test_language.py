"""The language of the code, as far as a machine can check it: see tests/language.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import ROOT, check

#: Names that are fields of published documents or of synthetic data, and texts whose number is
#: never one.
ALLOWED = {
    ("fashionrec/dataset/synthetic/scene.py", "name"),
    ("fashionrec/dataset/synthetic/world.py", "name"),
    ("fashionrec/search/result.py", "name"),
    ("fashionrec/detector/training/ultra.py", "plural"),
    ("fashionrec/embedder/training/checkpoint.py", "plural"),
    ("fashionrec/store/approximate.py", "plural"),
    ("fashionrec/store/segments.py", "plural"),
    ("fashionrec/products/parquet.py", "plural"),
}


def test_the_package_is_written_in_plain_technical_english() -> None:
    findings = [finding for path in sorted((ROOT / "fashionrec").rglob("*.py")) for finding in check(path)]
    assert [
        str(finding) for finding in findings if (finding.path.relative_to(ROOT).as_posix(), finding.rule) not in ALLOWED
    ] == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_so_are_tests_and_benchmarks(folder: str) -> None:
    findings = [finding for path in sorted((ROOT / folder).rglob("*.py")) for finding in check(path, names=False)]
    assert [str(finding) for finding in findings] == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ('"""Of what there is."""\n', "docstring-start"),
        ('def f():\n    """Whether it is so."""\n', "docstring-start"),
        ("# " + "long " * 25 + "\n", "long-prose"),
        ('"""A module.\n\n' + "long " * 25 + '\n"""\n', "long-prose"),
        ("def told_of_the_disk():\n    pass\n", "name"),
        ("class Seen:\n    pass\n", "name"),
        ("text = f'{count} rows failed'\n", "plural"),
        ("text = f'{count} broken photos'\n", "plural"),
    ],
)
def test_each_planted_fault_is_found(source: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(source, encoding="utf-8")
    assert [finding.rule for finding in check(path)] == [rule]


def test_good_language_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "good.py"
    path.write_text(
        '"""Read items."""\n\n\ndef read(count):\n    """Return whether it works."""\n'
        '    return f"{MAX} rows", plural(count, "row")\n',
        encoding="utf-8",
    )
    assert list(check(path)) == []
