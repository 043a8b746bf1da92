"""The house rules: imports go downwards, the serving plane loads nothing heavy, names are resolved
lazily.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import fashionrec

PACKAGE = Path(fashionrec.__file__).parent
HEAVY = ("torch", "torchvision", "ultralytics", "transformers", "pandas", "roboflow", "onnx")

#: From the bottom up. A unit may use those of the lines above its own in this list, and no other of
#: its own line. `captioner.job` is a unit of its own: jobs over a whole catalogue stand above it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("common",),
    ("config", "types"),
    ("photos",),
    ("labels", "products", "models"),
    ("store", "dataset", "detector", "embedder", "captioner"),
    ("garments",),
    ("catalogue",),
    ("captioner.job",),
    ("search",),
    ("evaluation", "inspection"),
    ("cli",),
    ("__main__",),
)
UNITS = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
#: What is still to be taken apart: (unit, unit) that may be used against the rule, and circles of
#: modules.
DEBTS: set[tuple[str, str]] = set()
CIRCLES: tuple[tuple[str, ...], ...] = ()
#: Where settings are read: the edge, the library's own among it. Everything below is handed them,
#: so that a file, the environment and --set reach it.
EDGE = ("cli", "config", "search.facade")
#: The training plane: imported by name at call time, and by `cli` alone.
TRAINING = ("fashionrec.detector.training", "fashionrec.embedder.training")
#: Files of it that load nothing heavy: `cli` and `inspection` use them directly.
LIGHT = {"architecture", "names", "options", "gpus", "whole", "pairing", "agreement", "gate", "evidence"}
LOOSE = 8  # modules beside the folders, at most
SCREEN = 60  # lines of a function of the command line, at most: it parses, calls and prints


def unit_of(module: str) -> str:
    """The unit that a module of the package (without its name) belongs to: the longest that is
    listed.
    """
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in UNITS else parts[0]


def package_modules(package: Path = PACKAGE) -> dict[str, ast.Module]:
    found = {}
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def uses(tree: ast.Module, modules: Collection[str]) -> set[str]:
    """Modules that a file imports, anywhere in it, under TYPE_CHECKING too, or names in a string
    for a later import.
    """
    used = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            nested = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("fashionrec.") in modules else node.module for name in nested]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        used |= {name.removeprefix("fashionrec.") for name in names if name.startswith("fashionrec.")}
    return used & set(modules)


def graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {name: uses(tree, modules.keys()) - {name} for name, tree in modules.items() if name}


def climbs(edges: dict[str, set[str]]) -> list[str]:
    """Uses that go upwards or sideways."""
    wrong = []
    for module, used in edges.items():
        own = unit_of(module)
        for other in used:
            unit = unit_of(other)
            if unit != own and UNITS[unit] >= UNITS[own] and (own, unit) not in DEBTS:
                wrong.append(f"{module} uses {other}")
    return sorted(wrong)


def circles(edges: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Modules that reach each other, as the sorted members of each strongly connected component."""

    def reach(start: str) -> set[str]:
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            for other in edges.get(waiting.pop(), ()):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        return reached

    reached = {module: reach(module) for module in edges}
    return sorted(
        {
            tuple(sorted({other for other in reached[module] if module in reached[other]}))
            for module in edges
            if module in reached[module]
        }
    )


MODULES = package_modules()
EDGES = graph(MODULES)


def test_imports_go_downwards() -> None:
    assert climbs(EDGES) == []


def test_no_module_reaches_itself() -> None:
    assert circles(EDGES) == sorted(CIRCLES)


def test_one_place_commits_a_generation() -> None:
    """Only the writer begins and commits one."""
    for module, tree in MODULES.items():
        names = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "generations"
        }
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "fashionrec.store.generations"
            for alias in node.names
        }
        assert names.isdisjoint({"begin", "commit"}) or module == "store.writer", module


def test_every_module_has_its_floor() -> None:
    assert {unit_of(module) for module in EDGES} == set(UNITS)


#: What only `common.system` uses: the rest asks it. A method of one argument: of paths; texts are
#: replaced by two.
SYSTEM_NAMES = {"os.fsync", "os.replace", "os.rename", "os.dup2", "os.name", "sys.platform"}
SYSTEM_MODULES = {"fcntl", "msvcrt", "resource", "pwd"}


def system_calls(tree: ast.Module) -> list[str]:
    """Return what a file asks of the operating system that is not the same on all of them."""
    return [ast.unparse(node) for node in ast.walk(tree) if depends_on_system(node)]


def depends_on_system(node: ast.AST) -> bool:
    match node:
        case ast.Attribute():
            return ast.unparse(node) in SYSTEM_NAMES
        case ast.Import():
            return bool(SYSTEM_MODULES & {alias.name for alias in node.names})
        case ast.Call(func=ast.Attribute(attr="rename" | "replace"), args=[_], keywords=[]):
            return True
    return False


def test_one_module_knows_the_operating_system() -> None:
    assert {name: calls for name, tree in MODULES.items() if (calls := system_calls(tree))}.keys() == {"common.system"}
    planted = "import fcntl, os\nos.fsync(3)\npath.replace(other)\n'a'.replace('a', 'b')\nreplace(spec, path=path)"
    assert len(system_calls(ast.parse(planted))) == 3


def test_few_modules_lie_loose() -> None:
    loose = [path.name for path in PACKAGE.glob("*.py")]
    assert len(loose) <= LOOSE, loose


def long_functions(tree: ast.Module, most: int = SCREEN) -> list[str]:
    """Functions of more lines than a screen has, signature, decorators and docstring among them."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    first = {node: min([node.lineno, *(line.lineno for line in node.decorator_list)]) for node in functions}
    return [node.name for node in functions if (node.end_lineno or 0) - first[node] + 1 > most]


def test_a_function_of_the_command_line_fits_a_screen() -> None:
    commands = {name: long_functions(tree) for name, tree in MODULES.items() if name.startswith("cli")}
    assert "cli.query" in commands
    assert {name: functions for name, functions in commands.items() if functions} == {}


@pytest.mark.parametrize(
    ("code", "long"),
    [
        ("def f(\n" + "    a,\n" * 55 + "):\n    x()\n" + "    y()\n" * 3, ["f"]),
        ("def f():\n" + "    x()\n" * 59, []),
        ("def f():\n" + "    x()\n" * 60, ["f"]),
        ("@d\ndef f():\n" + "    x()\n" * 59, ["f"]),
        ("class A:\n    async def f(self):\n" + "        x()\n" * 60, ["f"]),
        ("def f():\n    def g():\n" + "        x()\n" * 60 + "    return g", ["f", "g"]),
    ],
)
def test_a_planted_long_function_is_caught(code: str, long: list[str]) -> None:
    assert long_functions(ast.parse(code)) == long


def reads_settings(tree: ast.Module) -> bool:
    """Return whether a file names `load_config`, however it gets it."""
    return any(
        "load_config" in (getattr(n, "id", 0), getattr(n, "attr", 0), getattr(n, "name", 0)) for n in ast.walk(tree)
    )


def test_settings_are_read_at_the_edge() -> None:
    readers = {module for module, tree in MODULES.items() if reads_settings(tree)}
    assert {module for module in readers if not module.startswith(EDGE)} == set()


@pytest.mark.parametrize(
    "code",
    [
        "from fashionrec.config import load_config",
        "def f():\n    from fashionrec.config import load_config as read\n    return read()",
        "from fashionrec import config\nlimits = config.load_config().config.images",
    ],
)
def test_a_planted_reader_of_settings_is_caught(code: str) -> None:
    assert reads_settings(ast.parse(code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("store.items", "from fashionrec.catalogue.catalogue import Catalogue"),
        ("detector.detect", "import fashionrec.embedder.embed"),
        ("types", "def f():\n    from fashionrec.cli import output"),
        ("captioner.schema", "from fashionrec.captioner.job import run"),
        ("store.items", "if TYPE_CHECKING:\n    from fashionrec.search.result import QueryResult"),
        ("common.text", "load('fashionrec.models.bundle')"),
    ],
)
def test_the_rule_catches_a_planted_import(module: str, code: str) -> None:
    planted = {**EDGES, module: EDGES[module] | uses(ast.parse(code), MODULES.keys())}
    assert len(climbs(planted)) == 1


def test_a_planted_circle_is_caught() -> None:
    planted = {**EDGES, "errors": {"common.folder"}}
    assert any({"errors", "common.folder"} <= set(circle) for circle in circles(planted))


def test_training_files_are_imported_by_name_and_by_nothing_light() -> None:
    heavy = {
        module for module in EDGES if f"fashionrec.{module}".startswith(TRAINING) and module.split(".")[-1] not in LIGHT
    }
    for module, tree in MODULES.items():
        if f"fashionrec.{module}".startswith(TRAINING):
            continue
        imports = ast.Module([node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not uses(imports, MODULES.keys()) & heavy, module


def loaded_by(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_loads_nothing_heavy() -> None:
    code = "from fashionrec.cli.main import make_app\nmake_app()"
    assert not loaded_by(code) & {*HEAVY, "numpy", "PIL", "pydantic", "faiss", "onnxruntime", "openai", "rich", "yaml"}


def test_the_serving_plane_loads_no_training_package() -> None:
    code = (
        "import fashionrec.catalogue.catalogue, fashionrec.search.photo, fashionrec.search.text\n"
        "import fashionrec.catalogue.build.build\n"
        "import fashionrec.detector.detect, fashionrec.embedder.embed, fashionrec.cli.query, fashionrec.captioner.openai.remote"
    )
    assert not loaded_by(code) & {*HEAVY, "openai"}


def test_photos_and_words_are_asked_without_what_they_do_not_need() -> None:
    code = (
        "from fashionrec.cli.main import make_app\nmake_app('query')\n"
        "import fashionrec.search.photo, fashionrec.config, faiss, onnxruntime, fashionrec.cli.output\n"
        "import fashionrec.search.text, fashionrec.captioner.lexicon"
    )
    loaded = loaded_by(code)
    assert "fashionrec" in loaded
    assert not loaded & {*HEAVY, "pydantic", "openai", "rich", "jinja2", "tokenizers", "xlsxwriter"}


def test_a_question_is_understood_before_numpy_is_loaded() -> None:
    """The models are opened in threads first, and what needs numpy is imported beside that."""
    code = (
        "import fashionrec.search.query, fashionrec.search.search\nfashionrec.search.query.Query('a.jpg', text='red:2')"
    )
    assert not loaded_by(code) & {*HEAVY, "numpy", "PIL", "faiss", "onnxruntime", "jinja2"}


def test_the_families_of_commands_are_those_that_mount_them() -> None:
    from fashionrec.cli.main import FAMILIES, make_app

    for family, commands in FAMILIES.items():
        for name in commands:
            app = make_app(name)
            mounted = {one.name for one in [*app.registered_commands, *app.registered_groups]}
            assert mounted == set(commands), family
    everything = make_app("nothing of the kind")
    assert len(everything.registered_commands) + len(everything.registered_groups) == sum(map(len, FAMILIES.values()))


def test_the_guard_would_see_a_heavy_import() -> None:
    assert "json" in loaded_by("import json.decoder")


def test_public_names_resolve() -> None:
    for name in fashionrec.__all__:
        assert getattr(fashionrec, name) is not None
    with pytest.raises(AttributeError):
        fashionrec.nothing  # noqa: B018


def test_the_page_on_architecture_names_what_is_there() -> None:
    root = PACKAGE.parent
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:fashionrec|tests|configs)/[\w./]+)`", page))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (root / name).exists()] == []
    layers = page.partition("## Layers")[2].partition("\n## ")[0]
    assert [unit for unit in UNITS if unit != "__main__" and f"`{unit.replace('.', '/')}" not in layers] == []


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
