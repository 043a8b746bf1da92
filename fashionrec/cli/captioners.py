"""Choose captioners for commands, and announce who will caption."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.config.captioners import ENCODER
from fashionrec.errors import UsageError

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.job.photos import Describe
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.cli.session import Session


def open_captioner(session: Session, kind: str, *, ask: bool = True) -> Captioner:
    """Return the captioner with a name from the settings.

    ``ask``: its server may be asked when its model will be retired.
    """
    from fashionrec.captioner.providers import make_captioner

    captioner = make_captioner(kind, session.config.captioner)
    session.out.say(f"captions by {captioner.label}")
    if notice := captioner.notice(ask=ask):
        session.out.warn(notice)
    return captioner


def query_describer(session: Session, catalogue: Catalogue) -> Describe | None:
    """Return a function that captions the garments of a query, or None if ``query.caption`` is off.

    Nothing is sent to a server unless the setting names it: ``auto`` is the catalogue's own
    encoder.
    """
    kind = session.config.query.caption
    if kind == "none":
        return None
    from fashionrec.captioner.job import describer

    return describer(catalogue, kind if kind in ("auto", ENCODER) else open_captioner(session, kind, ask=False))


def run_caption_catalogue(
    session: Session,
    root: Path,
    kind: str,
    limit: int | None = None,
    *,
    again: Collection[str] = (),
    recaption: str | None = None,
    dry_run: bool = False,
    batch: str | None = None,
    discard_unsent: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Caption the garments of a catalogue that have no caption, and commit a new generation.

    ``batch`` is ``submit`` or ``resume`` for batches.
    """
    from fashionrec.captioner.job import Recaption, caption_catalogue
    from fashionrec.captioner.job.batches import caption_in_batches
    from fashionrec.captioner.providers import batch_captioners

    selection = Recaption.parse(recaption) if recaption is not None else None
    captioner = open_captioner(session, kind, ask=not dry_run)
    options: dict[str, Any] = {"limit": limit, "again": again, "recaption": selection, "dry_run": dry_run}
    if batch is None:
        with session.out.progress("captioning", "garments") as tick:
            return caption_catalogue(root, session.config, captioner, **options, progress=tick, say=session.out.say)
    if captioner.batch_folder is None:
        providers = batch_captioners()
        raise UsageError(
            f"--batch is for {' or '.join(provider.title for provider in providers)}; {captioner.title} does not need it",
            hint=" or ".join(f"--captioner {provider.name}" for provider in providers),
        )
    options |= {"resume": batch == "resume", "discard_unsent": discard_unsent, "wait": wait}
    with session.out.progress("batches", "garments") as tick:
        return caption_in_batches(root, session.config, captioner, **options, progress=tick, say=session.out.say)
