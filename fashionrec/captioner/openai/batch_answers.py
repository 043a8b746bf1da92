"""The file of answers that a batch of OpenAI's leaves, line by line. No network and no state here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from fashionrec.captioner.openai.client import is_filter, is_retryable
from fashionrec.captioner.openai.wire import essence, redact
from fashionrec.captioner.outcome import Outcome

if TYPE_CHECKING:
    from fashionrec.captioner.cache import Place

_EXPIRED = "batch_expired"
_LONGEST_LINE = 1 << 18  # bytes of a line of answers that are read


@dataclass(frozen=True)
class Collected:
    """What a batch says of one garment: an answer (``body`` as kept) or an outcome."""

    place: Place
    model: str
    body: str | None
    outcome: Outcome | None


def answer_lines(file: IO[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the lines of a file of answers; None for one that is none, or too long."""
    whole = True  # a line that is too long is read in pieces, of which the first tells that it is
    while line := file.readline(_LONGEST_LINE):
        first, whole = whole, line.endswith(b"\n")
        if first and line.strip():
            yield _line(line)


def read_line(line: dict[str, Any], place: Place, model: str, key: str) -> Collected | None:
    """What a line says of a garment; None for one that was not asked: it expired."""
    response, error = line.get("response"), line.get("error")
    if isinstance(response, dict):
        body, status = response.get("body"), response.get("status_code")
        if status == 200:
            return Collected(place, model, essence(body, key), None)
        told = body.get("error") if isinstance(body, dict) else None
        told = told if isinstance(told, dict) else {}
        code, status = str(told.get("code") or ""), status if isinstance(status, int) else 0
        reason = redact(f"{status}: {told.get('message')}", key)
        if is_filter(status, code):
            return Collected(place, model, None, Outcome("filtered", "openai", model, error=reason))
        failed = Outcome("failed", "openai", model, error=reason, retryable=is_retryable(status))
        return Collected(place, model, None, failed)
    told = error if isinstance(error, dict) else {}
    if told.get("code") == _EXPIRED:
        return None
    reason = redact(f"{told.get('code')}: {told.get('message')}", key)
    return Collected(place, model, None, Outcome("failed", "openai", model, error=reason, retryable=True))


def _line(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line) if len(line) < _LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("custom_id"), str) else None
