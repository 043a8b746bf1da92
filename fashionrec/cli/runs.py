"""The commands ``runs ...``: list, show, compare, promote and demote trainings."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.options import RunArgument, Why
from fashionrec.cli.session import Command, Context, Group, Session
from fashionrec.common.text import shell_word
from fashionrec.errors import FashionrecError, UsageError

if TYPE_CHECKING:
    from fashionrec.evaluation.detection.run_comparison import RunComparison
    from fashionrec.models.runs import Run

#: Main metric of a run: the first of these that it has.
_MAIN = ("map50_95", "held_out_recall_at_1")


def mount(app: typer.Typer) -> None:
    family = typer.Typer(cls=Group, help="List and compare runs, and choose the one in use.", no_args_is_help=True)
    family.command("list", cls=Command, help="List all runs, newest first.")(list_)
    family.command("show", cls=Command, help="Show everything recorded about a run.")(show)
    family.command("compare", cls=Command, help="Compare two runs: metrics, classes and settings.")(compare)
    family.command("promote", cls=Command, help="Use a run by default.")(promote)
    family.command("demote", cls=Command, help="Stop using a run by default.")(demote)
    app.add_typer(family, name="runs")


def list_(context: Context) -> None:
    from fashionrec.models.runs import list_runs

    session = context.session
    refused: list[FashionrecError] = []
    found_runs = list_runs(session.runs, refused)
    used = _default_runs(session)
    document: dict[str, Any] = {"runs": [_summary(run, used) for run in found_runs]}
    if refused:
        document["refused"] = [str(error) for error in refused]

    def human() -> None:
        if not found_runs:
            session.out.line(f"no runs under {session.runs}")
            return
        rows = [
            (
                f"{run.verb}/{run.name}",
                run.kind,
                run.state,
                _epochs(run),
                *_figure(run),
                "used" if str(run.path) in used else "promoted" if run.promoted else "",
                run.created[:16].replace("T", " "),
            )
            for run in found_runs
        ]
        columns = ("run", "kind", "state", "epochs", "metric", "value", "", "created (UTC)")
        session.out.table(columns, rows, right=(3, 5))

    for error in refused:
        session.out.warn(str(error))
    session.out.result(document, human)
    if any(run.state in ("killed", "failed") and run.verb == "train" and run.kind == "detector" for run in found_runs):
        session.out.next("fashionrec train --resume")


def show(context: Context, run: RunArgument) -> None:
    from fashionrec.models.runs import find_run

    session = context.session
    found = find_run(session.runs, run)
    document = _summary(found, _default_runs(session)) | {
        field.name: getattr(found, field.name) for field in fields(found)
    }
    document["path"] = str(found.path)

    def human() -> None:
        out = session.out
        for key in ("path", "kind", "state", "promoted", "used", "created", "seconds", "seed", "device"):
            out.line(f"{key:10} {document[key]}")
        out.line(f"{'epochs':10} {_epochs(found)}")
        for title in ("metrics", "dataset", "config", "weights", "versions", "notes", "promotions"):
            if document[title]:
                out.line(f"{title}:")
                _print_tree(session, document[title], 1)

    session.out.result(document, human)


def compare(context: Context, a: RunArgument, b: RunArgument) -> None:
    from fashionrec.evaluation.detection.run_comparison import compare_runs
    from fashionrec.models.runs import find_run

    session = context.session
    first, second = find_run(session.runs, a), find_run(session.runs, b)
    comparison = compare_runs(first, second)
    used = _default_runs(session)
    document = {"a": _summary(first, used), "b": _summary(second, used), **comparison.to_dict()}
    session.out.result(document, lambda: _print_comparison(session, first, second, comparison))
    if comparison.why_not:
        session.out.next(
            f"fashionrec evaluate --weights {shell_word(first.path)} --data DIR/data.yaml",
            f"fashionrec evaluate --weights {shell_word(second.path)} --data DIR/data.yaml",
        )


def promote(
    context: Context,
    run: RunArgument,
    force: Annotated[bool, typer.Option("--force", help="Also promote a rejected finetune; needs --why.")] = False,
    why: Why = "",
) -> None:
    from fashionrec.models import runs

    session = context.session
    if force and not why:
        raise UsageError("--force needs a reason", hint="--why TEXT, which is recorded in run.json")
    found = runs.find_run(session.runs, run)
    runs.promote(found, why=why, force=force)
    _print_default(session, found)


def demote(context: Context, run: RunArgument, why: Why = "") -> None:
    from fashionrec.models import runs

    session = context.session
    found = runs.find_run(session.runs, run)
    runs.demote(found, why=why)
    _print_default(session, found)


def _print_default(session: Session, run: "Run") -> None:
    from fashionrec.models.runs import newest_promoted

    used = newest_promoted(session.runs, run.kind)
    document = {"run": str(run.path), "promoted": run.promoted, "used": str(used.path) if used else None}

    def human() -> None:
        session.out.line(f"{run.path} is {'promoted' if run.promoted else 'no longer promoted'}")
        session.out.line(f"default {run.kind}: {used.path if used else 'none'}")

    session.out.result(document, human)


def _default_runs(session: Session) -> set[str]:
    from fashionrec.models.runs import newest_promoted

    defaults = (newest_promoted(session.runs, kind) for kind in ("detector", "embedder"))
    return {str(run.path) for run in defaults if run is not None}


def _summary(run: "Run", used: set[str]) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "verb": run.verb,
        "kind": run.kind,
        "state": run.state,
        "promoted": run.promoted,
        "used": str(run.path) in used,
        "created": run.created,
        "seconds": round(run.seconds, 2),
        "epochs": run.epochs,
        "epochs_asked": _planned_epochs(run),
        "metrics": {key: value for key, value in run.metrics.items() if isinstance(value, (int, float))},
    }


def _planned_epochs(run: "Run") -> int | None:
    sections = [values for values in run.config.values() if isinstance(values, dict)]
    return next((int(values["epochs"]) for values in sections if "epochs" in values), None)


def _epochs(run: "Run") -> str:
    planned = _planned_epochs(run)
    return f"{run.epochs or '?'}/{planned}" if planned else str(run.epochs or "")


def _figure(run: "Run") -> tuple[str, str]:
    name = next((key for key in _MAIN if key in run.metrics), None)
    return (name, f"{run.metrics[name]:.3f}") if name else ("", "")


def _print_tree(session: Session, value: Any, depth: int) -> None:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (dict, list)) and item:
            session.out.line(f"{'  ' * depth}{key}:")
            _print_tree(session, item, depth + 1)
        else:
            session.out.line(f"{'  ' * depth}{key}: {round(item, 4) if isinstance(item, float) else item}")


def _print_comparison(session: Session, a: "Run", b: "Run", comparison: "RunComparison") -> None:
    out = session.out
    names = [f"{run.verb}/{run.name}" for run in (a, b)]
    if comparison.why_not:
        out.line(f"metrics cannot be compared: {comparison.why_not}")
    rows = [
        (row.name, _text(row.a), _text(row.b), f"{row.difference:+.3f}" if row.difference is not None else "")
        for row in [*comparison.metrics, *(row for row in comparison.per_class if row.name.endswith(f", {_MAIN[0]}"))]
    ]
    out.table(("metric", *names, "difference"), rows, right=(1, 2, 3))
    same = {True: "the same", False: "different", None: "not recorded for both"}[comparison.same_data]
    out.line(f"trained on: {same} data")
    for title, pairs in (("setting", comparison.settings), ("version", comparison.versions)):
        if pairs:
            out.line()
            out.table((title, *names), [(key, first, second) for key, (first, second) in pairs.items()])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
