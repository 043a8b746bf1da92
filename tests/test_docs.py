"""README and docs: every block runs, every link leads somewhere, and the library snippet has its
types.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from fashionrec.config import load_config
from tests.api_reference import PAGE, page
from tests.docs_blocks import REASONS, ROOT, Block, blocks, copy_repository, documents, run_all

DOCUMENTS = documents()
BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
PAPERS = [
    *DOCUMENTS,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "docs/README.md")),
]


def test_every_document_is_in_the_table_of_contents() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= {path.name for path in DOCUMENTS}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.reason], ids=str)
def test_a_block_is_skipped_for_a_reason(block: Block) -> None:
    assert block.reason.startswith(REASONS), block.reason


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def commands() -> list[tuple[str, list[str]]]:
    """Every ``fashionrec`` line of a shell block, with its words."""
    found = []
    for block in BLOCKS:
        if block.language == "bash":
            for line in block.code.replace("\\\n", " ").splitlines():
                match = re.search(r"(?:^|&& )(fashionrec .*)", line)
                if match:
                    code = re.split(r" \|\| | && | > |\s#", match[1])[0]
                    found.append((f"{block}", shlex.split(code)[1:]))
    return found


@pytest.mark.parametrize(("where", "words"), commands())
def test_commands_and_options_exist(where: str, words: list[str], cli: Callable[..., Result]) -> None:
    done = cli(*words, "--help")
    assert done.code == 0, f"{where}: {done.err}"
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert option in done.out, f"{where}: no option {option}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_settings_in_documents_are_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(block.code, encoding="utf-8")
    load_config([path], env={})


@pytest.mark.slow
def test_the_library_snippet_has_types(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.language == "python" and block.path.name == "README.md"]
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        block.code + "\nreveal_type(catalogue)\nreveal_type(answer)\nreveal_type(result.garment.class_name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", snippet],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for name in ("facade.Catalogue", "answer.Answer", "str | None"):
        assert f'{name}"' in done.stdout, done.stdout


def test_a_failing_block_is_found(tmp_path: Path) -> None:
    document = tmp_path / "planted.md"
    document.write_text(
        "```bash\ntrue\n```\n\n```bash\nfalse | cat\n```\n\n<!-- test: skip (needs a key) -->\n```bash\nfalse\n```\n\n"
        "1. item\n   ```python\n   raise SystemExit(4)\n   ```\n",
        encoding="utf-8",
    )
    assert [failure.split("\n")[0] for failure in run_all([document], tmp_path, skip_demo=False)] == [
        "planted.md:5: exit code 1",
        "planted.md:15: exit code 4",
    ]


@pytest.mark.train
@pytest.mark.release(seconds=1500)
@pytest.mark.timeout(3600)
def test_all_blocks_run_in_order_in_a_fresh_copy_after_the_demo(tmp_path: Path) -> None:
    """``FASHIONREC_DEMO`` names a finished ``runs/demo`` to use instead of running the demo."""
    folder = tmp_path / "fashionrec"
    copy_repository(folder)
    if demo := os.environ.get("FASHIONREC_DEMO"):
        shutil.copytree(demo, folder / "runs" / "demo")
    else:
        subprocess.run(
            [sys.executable, "-m", "fashionrec", "demo"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            check=True,
        )
    assert run_all(DOCUMENTS, folder, skip_demo=True) == []


def test_the_api_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.api_reference --write"
