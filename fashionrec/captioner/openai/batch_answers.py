"""The answer file of an OpenAI batch, read line by line, without network or state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from fashionrec.captioner.openai.client import is_filter, is_retryable
from fashionrec.captioner.openai.wire import redact, stored_answer
from fashionrec.captioner.outcome import Outcome

if TYPE_CHECKING:
    from fashionrec.captioner.cache import Place

_EXPIRED = "batch_expired"
_MAX_LINE = 1 << 18  # bytes; longer lines are invalid


@dataclass(frozen=True)
class Collected:
    """A batch's result for one garment: the stored ``body`` of an answer, or an outcome."""

    place: Place
    model: str
    body: str | None
    outcome: Outcome | None


def answer_lines(file: IO[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the lines of an answer file; None for an invalid or too long one."""
    starts_line = True  # a line that is too long is read in several pieces
    while line := file.readline(_MAX_LINE):
        is_start, starts_line = starts_line, line.endswith(b"\n")
        if is_start and line.strip():
            yield _line(line)


def read_line(line: dict[str, Any], place: Place, model: str, key: str) -> Collected | None:
    """Return the result of a line; None if the request expired before it was processed."""
    response, error = line.get("response"), line.get("error")
    if isinstance(response, dict):
        body, status = response.get("body"), response.get("status_code")
        if status == 200:
            return Collected(place, model, stored_answer(body, key), None)
        details = body.get("error") if isinstance(body, dict) else None
        details = details if isinstance(details, dict) else {}
        code, status = str(details.get("code") or ""), status if isinstance(status, int) else 0
        reason = redact(f"{status}: {details.get('message')}", key)
        if is_filter(status, code):
            return Collected(place, model, None, Outcome("filtered", "openai", model, error=reason))
        failed = Outcome("failed", "openai", model, error=reason, retryable=is_retryable(status))
        return Collected(place, model, None, failed)
    details = error if isinstance(error, dict) else {}
    if details.get("code") == _EXPIRED:
        return None
    reason = redact(f"{details.get('code')}: {details.get('message')}", key)
    return Collected(place, model, None, Outcome("failed", "openai", model, error=reason, retryable=True))


def _line(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line) if len(line) < _MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("custom_id"), str) else None
