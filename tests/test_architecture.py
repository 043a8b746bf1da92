"""The house rules: imports go downwards, the serving plane loads nothing heavy, names are resolved lazily."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fashionrec

PACKAGE = Path(fashionrec.__file__).parent
HEAVY = ("torch", "torchvision", "ultralytics", "transformers", "pandas", "roboflow", "onnx")

#: From the bottom up. A module may import from its own line and from those above it in this list (which are below it).
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "yolo_options"),
    ("common",),
    ("types", "files", "extras", "sections", "parquet"),
    ("config",),
    ("providers", "manifest"),
    ("images", "bundle", "graphs", "runs", "yolo_data", "pixels", "pages"),
    ("decoding",),
    ("dataset", "detector", "embedder", "captioner", "store"),  # siblings: none imports another
    ("assemble", "catalogue"),
    ("search",),
    ("build_report", "pipeline", "tuning"),
    ("crops", "changes", "compaction"),
    ("build", "captioning", "evaluation", "exchange"),
    ("grow", "reindex", "inspection"),
    ("cli",),
    ("__main__",),
)
SIBLINGS = {"dataset", "detector", "embedder", "captioner", "store"}
#: The facade's methods search through the layer above it, at call time.
EXCEPTIONS = {("catalogue", "search"), ("detector", "evaluation")}
#: Files of the training plane: imported by name at call time, and by `cli` alone.
TRAINING = {
    "fashionrec.detector.train",
    "fashionrec.detector.finetune",
    *(f"fashionrec.detector.{name}" for name in ("export", "precision", "gate", "engine")),
    *(
        f"fashionrec.detector.families{name}"
        for name in ("", ".ultra", ".effdet", ".torchvision", ".loop", ".plain", ".photos", ".checkpoint")
    ),
    "fashionrec.embedder.train",
    "fashionrec.embedder.checkpoint",
    "fashionrec.embedder.export",
    "fashionrec.embedder.precision",
}


def level(part: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if part in names)


def imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def part_of(module: str) -> str | None:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == "fashionrec" else None


def violations(sources: dict[str, set[str]]) -> list[str]:
    """Imports that go upwards or sideways. ``sources`` maps a file, relative to the package, to what it imports."""
    known = {name for names in LAYERS for name in names}
    found = []
    for file, imported in sources.items():
        own = file.split("/")[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imported:
            other = part_of(module)
            if other not in known or other == own or (own, other) in EXCEPTIONS:
                continue
            sideways = own in SIBLINGS and other in SIBLINGS
            if level(other) > level(own) or sideways:
                found.append(f"{file} imports {module}")
    return sorted(found)


def package_sources() -> dict[str, set[str]]:
    return {path.relative_to(PACKAGE).as_posix(): imports_of(path) for path in PACKAGE.rglob("*.py")}


def test_imports_go_downwards() -> None:
    assert violations(package_sources()) == []


def test_every_module_has_its_place() -> None:
    parts = {file.split("/")[0].removesuffix(".py") for file in package_sources()} - {"__init__"}
    assert parts == {name for names in LAYERS for name in names}


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("store/items.py", "fashionrec.catalogue"),
        ("detector/detect.py", "fashionrec.embedder.embed"),
        ("types.py", "fashionrec.cli"),
    ],
)
def test_the_rule_catches_a_planted_import(file: str, module: str) -> None:
    assert violations({file: {module}}) == [f"{file} imports {module}"]


def test_training_files_are_imported_by_name_and_by_nothing_light() -> None:
    for file, imported in package_sources().items():
        own = file[:-3].removesuffix("/__init__").replace("/", ".")
        if file.split("/")[0] in ("detector", "embedder") and f"fashionrec.{own}" in TRAINING:
            continue
        if file == "cli/pairs.py":
            continue  # itself imported at call time, by train
        assert not (imported & TRAINING), file


def loaded_by(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_loads_nothing_heavy() -> None:
    code = "from fashionrec.cli.main import make_app\nmake_app()"
    assert not loaded_by(code) & {*HEAVY, "numpy", "PIL", "pydantic", "faiss", "onnxruntime", "openai", "rich", "yaml"}


def test_the_serving_plane_loads_no_training_package() -> None:
    code = (
        "import fashionrec.catalogue, fashionrec.search.photo, fashionrec.search.text, fashionrec.build\n"
        "import fashionrec.detector.detect, fashionrec.embedder.embed, fashionrec.cli.query, fashionrec.captioner.remote"
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
