"""The command ``catalogue reindex``: another index over the same vectors."""

from typing import Any

from fashionrec.cli.options import CatalogueArgument, IndexType, MaxLatency, MaxMemory
from fashionrec.cli.session import Context, Session
from fashionrec.common.text import plural, shell_word


def reindex(
    context: Context,
    index: CatalogueArgument = None,
    index_type: IndexType = None,
    max_memory: MaxMemory = None,
    max_latency_ms: MaxLatency = None,
) -> None:
    from fashionrec.catalogue.reindex import reindex_catalogue

    session = context.session
    override_index(session, index_type, max_memory, max_latency_ms)
    root = session.find_catalogue(index)
    vectors = session.config.index.vectors if session.is_set("index.vectors") else None
    entry = reindex_catalogue(root, session.config, vectors=vectors, log=session.out.say)
    # "path" is the folder of the index, null for an exact index
    document = {"catalogue": str(root)} | {key: value for key, value in entry.items() if key not in ("head", "over")}
    session.out.done(document, lambda: print_index(session, entry))
    session.out.next(
        f"fashionrec query PHOTO --index {shell_word(root)}", f"fashionrec catalogue rollback {shell_word(root)}"
    )


def override_index(
    session: Session, index_type: str | None, max_memory: int | None, max_latency_ms: float | None
) -> None:
    """Apply a command's options to the section ``index`` of the settings."""
    values = {"type": index_type, "max_memory": max_memory, "max_latency_ms": max_latency_ms}
    session.override("index", values)


def print_index(session: Session, entry: dict[str, Any]) -> None:
    """Print an index entry: what was tried, what was chosen, and why."""
    out = session.out
    rows = [
        (
            trial["kind"],
            f"{trial['memory'] / 2**20:.1f}",
            _number(trial.get("recall_at_10"), 4),
            _number(trial.get("latency_ms_p50"), 2),
            _number(trial.get("latency_ms_p95"), 2),
            _number(trial.get("build_seconds"), 1),
            trial.get("rejected") or "taken",
        )
        for trial in entry.get("tried", [])
    ]
    if rows:
        columns = ("tried", "MiB", "recall@10", "p50 ms", "p95 ms", "made in s", "")
        out.table(columns, rows, right=(1, 2, 3, 4, 5))
    out.line(f"index: {entry['reason']}")
    out.line(
        f"{plural(entry['vectors'], 'vector')} ({entry['dtype']}), recall@10 {entry['recall_at_10']:.3f},"
        f" {entry['latency_ms_p50']:.2f} ms a query (95 %: {entry['latency_ms_p95']:.2f})"
    )
    if "float16_recall_at_10" in entry:
        out.line(f"recall@10 of float16 against float32: {entry['float16_recall_at_10']:.4f}")


def index_line(entry: dict[str, Any]) -> str:
    """Describe an index entry in one line, with the number of measured vectors if that differs."""
    line = f"{entry['kind']}, {plural(entry['vectors'], 'vector')}, recall@10 {entry['recall_at_10']:.3f},"
    line += f" {entry['latency_ms_p50']:.2f} ms a query"
    if measured_on := entry.get("measured_on"):
        line += f" (measured on {plural(measured_on['image'], 'vector')})"
    return line


def _number(value: float | None, places: int) -> str | None:
    return None if value is None else f"{value:.{places}f}"
