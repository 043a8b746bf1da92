"""The commands ``doctor`` and ``config``: what is installed, and what is configured."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.session import Command, Context, Group, Session
from fashionrec.common.extras import install_hint
from fashionrec.common.text import json_text, plural, shell_word
from fashionrec.errors import ConfigError, DataError, FashionrecError, Refused

_CORE = ("typer", "rich", "pydantic", "PyYAML", "numpy", "Pillow", "onnxruntime", "faiss-cpu", "tokenizers", "openai")
_TRAIN = ("torch", "torchvision", "ultralytics", "transformers", "onnx", "roboflow", "pandas", "pyarrow")
_KEYS = {"OPENAI_API_KEY": "captions by GPT-4o", "ROBOFLOW_API_KEY": "fetch-dataset roboflow:..."}
#: Number of findings of one kind that are printed.
_SHOWN = 5
_VERDICTS = {
    "safe to use": "safe to use",
    "usable": "usable: the listed files are ignored",
    "refused": "refused: commands that read this folder stop at the files listed as refused",
}
_REFUSED_HINT = "ask for a copy without the refused parts, or remove them if you do not need them"
_DATASET_HINT = (
    "`fashionrec fetch-dataset yolo:FOLDER --out NEW` creates a dataset without the refused parts;"
    " for links that you trust add --set dataset.follow_links=true"
)


def mount(app: typer.Typer) -> None:
    about = "Check the installation, or a folder from somebody else."
    app.command("doctor", cls=Command, help=about)(doctor)
    config = typer.Typer(cls=Group, help="Show the settings, or print their schema.", no_args_is_help=True)
    config.command("show", cls=Command, help="Show every setting, its value, and where it came from.")(show)
    config.command("schema", cls=Command, help="Print a JSON Schema of the settings, for editors.")(schema)
    app.add_typer(config, name="config")


def show(
    context: Context,
    section: Annotated[
        str | None, typer.Argument(metavar="SECTION", help="Section or key, as in query or query.k.")
    ] = None,
) -> None:
    session = context.session
    resolved = session.resolved
    chosen = {
        key: {"value": value, "origin": resolved.origins.get(key, "default")}
        for key, value in resolved.values.items()
        if section is None or key == section or key.startswith(f"{section}.")
    }

    def human() -> None:
        rows = [(key, "null" if e["value"] is None else e["value"], e["origin"]) for key, e in chosen.items()]
        session.out.table(("setting", "value", "from"), rows)

    session.out.result(chosen, human)
    session.out.next("fashionrec COMMAND --set SECTION.KEY=VALUE, or --config FILE with only your changes")


def schema(context: Context) -> None:
    """Print the JSON Schema: ``fashionrec config schema > fashionrec.schema.json``."""
    from fashionrec.config.schema import settings_schema

    session = context.session
    _ = session.resolved  # invalid settings stop this command, too
    document = settings_schema()
    session.out.result(document, lambda: session.out.block(json_text(document, indent=2)))


def doctor(
    context: Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Catalogue, run, bundle, dataset ... to check; nothing in it is executed."
        ),
    ] = None,
    index: Annotated[str | None, typer.Option(metavar="FOLDER", help="Catalogue to check too.")] = None,
) -> None:
    session = context.session
    if folder is not None:
        if index is not None:
            raise ConfigError("give a folder or --index, not both")
        inspect(session, folder)
        return
    document = run_doctor(session, index)

    def human() -> None:
        out = session.out
        out.line(f"Python {document['python']}, {document['cores']} cores")
        for plane, names in (("serving", _CORE), ("training", _TRAIN)):
            out.line(f"{plane}:")
            for name in names:
                out.line(f"  {name:14} {document['packages'][name] or 'not installed'}")
        out.line(f"inference on: {', '.join(document['providers']) or 'nothing'}")
        for key, entry in document["keys"].items():
            out.line(f"{key}: {'set' if entry else 'not set'} ({_KEYS[key]})")
        if document["catalogue"]:
            entry = document["catalogue"]
            out.line(f"catalogue {entry['path']}: {entry['status']}")
        for problem in document["problems"]:
            out.line(f"problem: {problem}")
        if not document["problems"]:
            out.line("no problems found")

    session.out.result(document, human)
    if document["problems"]:
        raise Refused(f"{plural(len(document['problems']), 'problem')} found")
    session.out.next("fashionrec demo" if index is None else f"fashionrec query PHOTO --index {shell_word(index)}")


def inspect(session: Session, folder: Path) -> None:
    """Print the result of inspecting a folder. Raises :class:`DataError` if it is refused."""
    from fashionrec.inspection import inspect_folder

    report = inspect_folder(folder)
    out = session.out

    def human() -> None:
        out.line(f"{report.folder}: {report.kind}, {plural(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB")
        for refused in (True, False):
            for kind in dict.fromkeys(finding.kind for finding in report.findings if finding.refused == refused):
                shown = [finding for finding in report.findings if (finding.kind, finding.refused) == (kind, refused)]
                out.line(
                    f"{'refused' if refused else 'ignored'}: {kind}" + (f" ({shown[0].effect})" * bool(shown[0].effect))
                )
                for finding in shown[:_SHOWN]:
                    out.line(f"  {finding.place}: {finding.what}")
                if len(shown) > _SHOWN:
                    out.line(f"  and {max(len(shown), report.counts[kind]) - _SHOWN:,} more (--json lists up to 100)")
        verdict = _VERDICTS[report.verdict]
        if report.kind == "unknown" and report.verdict != "refused":
            verdict = f"{verdict} (not a catalogue, run, bundle or dataset; only its files were checked)"
        out.line(f"verdict: {verdict}")

    out.result(report.document(), human)
    if report.verdict == "refused":
        hint = _DATASET_HINT if report.kind == "dataset" else _REFUSED_HINT
        if all(finding.kind == "manifest" for finding in report.findings if finding.refused):
            hint = "get a complete copy"
        raise DataError(f"{folder} is refused: {report.reason}", hint=hint)


def run_doctor(session: Session, index: str | None = None) -> dict[str, Any]:
    """Check the installation and the settings. API keys are only reported as set or not set."""
    config = session.config  # even if nothing uses it: an invalid setting is refused
    packages = {name: _version(name) for name in (*_CORE, *_TRAIN)}
    problems = [f"{name} is not installed: {install_hint()}" for name in _CORE if packages[name] is None]
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed, which disables CUDA: uninstall both, install one again"
        )
    if packages["torch"] and not packages["torchvision"]:
        problems.append(f"torch is installed without torchvision: {install_hint('train')}")
    providers: list[str] = []
    if packages["onnxruntime"]:
        import onnxruntime

        providers = list(onnxruntime.get_available_providers())
    if packages["ultralytics"] and sys.modules.get("cv2") is None:
        try:
            importlib.import_module("cv2")
        except Exception as error:  # two distributions own cv2; a broken pair fails in many ways
            problems.append(f"cv2 cannot be imported ({error}): pip install --force-reinstall opencv-python-headless")
    catalogue = None
    if index is not None:
        from fashionrec.catalogue.catalogue import Catalogue

        try:
            with Catalogue.open(Path(index), config) as opened:
                catalogue = {"path": index, "status": "healthy", "counts": opened.counts}
        except FashionrecError as error:
            catalogue = {"path": index, "status": str(error), "counts": {}}
            problems.append(str(error))
    return {
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "packages": packages,
        "providers": providers,
        "keys": {key: bool(os.environ.get(key)) for key in _KEYS},
        "catalogue": catalogue,
        "problems": problems,
    }


def _version(package: str) -> str | None:
    import importlib.metadata  # costs 12 ms, which `--help` need not pay

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
