"""A captioner is one class and one line of the registry: no other place knows its name."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from captioners import Echo
from conftest import TINY, Result

import fashionrec
from fashionrec.captioner.cost import Price
from fashionrec.captioner.providers import captioner_class
from fashionrec.config import config_dir, load_config
from fashionrec.config.captioners import CAPTIONERS

PACKAGE = Path(fashionrec.__file__).parent
#: Where a name may stand besides: the package that doctor lists has the name of the provider.
ALLOWED = {("cli/project.py", "'openai'")}


def mentions(source: str, names: list[str]) -> list[str]:
    """Texts that are a name, quote one (SQL), or tell a title of a provider, and imports of its
    folder; docstrings aside.
    """
    tree = ast.parse(source)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words = "|".join(map(re.escape, names))
    titles = "|".join(re.escape(captioner_class(name).title) for name in names if name in CAPTIONERS)
    said = re.compile(rf"""(?:{words})|.*['"`](?:{words})['"`].*|.*\b(?:{titles})\b.*""", re.DOTALL)
    module = re.compile(rf"(?:fashionrec)?\.?captioner\.(?:{words})(?:\..*)?")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            if said.fullmatch(node.value) or module.match(node.value):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            used = [alias.name for alias in node.names]
            base = getattr(node, "module", None)
            if any(module.fullmatch(f"{base}.{name}" if base else name) for name in used):
                found.append(ast.unparse(node))
    return found


def test_no_provider_is_named_outside_its_folder_the_registry_and_the_settings() -> None:
    own = [PACKAGE / "captioner" / name for name in CAPTIONERS]
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "config") or any(path.is_relative_to(folder) for folder in own):
            continue
        name = path.relative_to(PACKAGE).as_posix()
        found += [(name, one) for one in mentions(path.read_text(encoding="utf-8"), list(CAPTIONERS))]
    assert set(found) == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        'if kind == "openai": pass',
        "sql = \"SELECT 1 FROM outcomes WHERE captioner = 'openai' AND model = ?\"",
        "from fashionrec.captioner.openai.remote import OpenAICaptioner",
        "from fashionrec.captioner import local",
        "import fashionrec.captioner.local.captioner as c",
        'load("fashionrec.captioner.openai.remote")',
        'say(f"captions by OpenAI, {model}")',
        'choose("local")',
    ],
)
def test_a_planted_name_is_found(code: str) -> None:
    assert len(mentions(code, list(CAPTIONERS))) == 1


def test_words_that_are_no_names_are_not() -> None:
    code = '"""Local things, by OpenAI."""\nthreading.local()\nsay("a local file", "openai-compatible is no name")'
    assert mentions(code, list(CAPTIONERS)) == []


#: Runs commands, one after another, in the working folder; their codes, outputs and messages come
#: out.
SCRIPT = """
import json, sys
from typer.testing import CliRunner
from fashionrec.cli.main import make_app
app, runner = make_app(), CliRunner()
done = [runner.invoke(app, words) for words in json.load(sys.stdin)]
print(json.dumps([[one.exit_code, one.stdout, one.stderr] for one in done]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Result]]:
    """The command line of a package with one captioner more: one file, and one line of the
    registry.
    """
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, house / "fashionrec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(config_dir(), house / "configs", dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("captioners.py"), house / "fashionrec" / "captioner" / "echo.py")
    registry = house / "fashionrec" / "config" / "captioners.py"
    before = registry.read_text(encoding="utf-8")
    registry.write_text(before.replace("CAPTIONERS = {", 'CAPTIONERS = {\n    "echo": ".echo:Echo",'), encoding="utf-8")
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(TINY / "photos", folder / "photos")
    rows = ["image,product_id", *(f"photos/{name}.jpg,{name}" for name in ("red-white", "white-blue", "green"))]
    (folder / "p.csv").write_text("\n".join(rows))
    environment = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}

    def run(*commands: str) -> list[Result]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(house), "FASHIONREC_BUILD__WORKERS": "1"},
            input=json.dumps([shlex.split(command) for command in commands]),
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return [Result(*one) for one in json.loads(done.stdout)]

    models = f"--detector '{TINY / 'detector'}' --embedder '{TINY / 'embedder'}'"
    for built in run(f"build-index p.csv --index c {models} -q", f"build-index p.csv --index d {models} -q"):
        assert built.code == 0, built.err
    return run


def test_one_file_and_one_line_describe_catalogues_photos_and_queries(run: Callable[..., list[Result]]) -> None:
    local, made, kept, status, photo, asked, known = run(
        "caption --index c --captioner local --json",
        "caption --index c --set captioner.kind=echo --json",
        "caption --index c --captioner local --json",
        "caption --index c --status --json",
        "caption photos/green.jpg --index c --captioner echo --json",
        "query photos/green.jpg --index c --captioner echo --json",
        "caption --index d --captioner echo --json",
    )
    assert local.document["made"] == 3
    assert made.code == 0, made.err
    assert "captions by the echo, echo-1" in made.err
    assert (made.document["captioner"], made.document["model"]) == ("echo", "echo-1")
    assert (made.document["made"], made.document["failed"], made.document["cost_usd"]) == (3, 0, 0.0)
    assert (kept.document["made"], kept.document["kept"]) == (0, 3)  # an encoder's word replaces nobody's
    assert (status.document["captioned"], status.document["states"]) == ({"echo": 3}, {"done": 3})
    (garment,) = photo.document["photos"][0]["garments"]
    assert (garment["captioner"], garment["state"]) == ("echo", "done")
    assert asked.document["garments"][0]["caption"].startswith("an echo of")
    assert asked.document["garments"][0]["hits"][0]["product_id"] == "green"
    assert (known.document["asked"], known.document["reused"]) == (0, 3)  # what it said is the project's


def test_what_it_cannot_do_is_refused(run: Callable[..., list[Result]]) -> None:
    batch, unknown = run("caption --index c --captioner echo --batch", "caption --index c --captioner parrot")
    assert (batch.code, unknown.code) == (2, 2)
    assert "the echo does not need it" in batch.err
    assert "captioner.kind: should be auto or echo or openai or local, not 'parrot'" in unknown.err


def test_a_captioner_that_costs_is_free_only_if_it_says_so() -> None:
    class Paid(Echo):
        costs = True

    config = load_config(env={}).config.captioner
    assert (Echo(config).price(), Paid(config).price(), Paid(config).price(batch=True)) == (Price(0.0, 0.0), None, None)
