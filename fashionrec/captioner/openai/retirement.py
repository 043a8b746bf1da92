"""Models end: when one is shut down, what a run says before, and what it does afterwards."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.openai.client import connect, find_key, host, is_openai, server_url
from fashionrec.captioner.openai.transport import Guard
from fashionrec.common.text import shell_word
from fashionrec.errors import CaptionError, ConfigError

if TYPE_CHECKING:
    from fashionrec.config import CaptionerConfig

_TIMEOUT = 5.0  # seconds that the question after a model may take: nothing hangs on it


def shutdown_notice(config: CaptionerConfig, today: date, reported: str | None = None) -> str:
    """The warning that a run should show, or nothing. ``reported`` is the date that the server tells, which goes before ours.

    Our own dates are OpenAI's: they say nothing about another server. Raises :class:`ConfigError` where OpenAI has shut the
    model down.
    """
    entry = config.models.get(config.model) or config.models["other"]
    told = _date(reported)
    ends = told or (_date(entry.shutdown) if is_openai(config) else None)
    if ends is None:
        return ""
    replacement = entry.replacement
    hint = f"move on with --set {shell_word('captioner.model=' + (replacement or 'MODEL'))}"
    days = (ends - today).days
    where = "OpenAI" if is_openai(config) else host(server_url(config))
    if days < 0 and is_openai(config):
        raise ConfigError(
            f"{config.model} was shut down on {ends}" + (f"; {replacement} replaces it" if replacement else ""),
            hint=hint + "; captions that are there are kept, and nothing is asked again",
        )
    if days > config.warn_days:
        return ""
    when = (
        f"shuts {config.model} down on {ends}, in {days} days" if days >= 0 else f"shut {config.model} down on {ends}"
    )
    return f"{where} {when}: {hint}"


def ask_shutdown(config: CaptionerConfig, key: str | None = None) -> str | None:
    """The date that the server's ``GET /models/{model}`` tells; None where it tells none, or does not answer. One short call."""
    try:
        guard = Guard()
        with connect(config, find_key(config, key), guard=guard, timeout=_TIMEOUT) as client, guard.limit(_TIMEOUT):
            found: Any = client.models.retrieve(config.model)
        told = getattr(found, "shutdown_date", None)
    except CaptionError:
        return None
    except Exception:  # whatever the server or its transport does: captions are asked for without knowing
        return None
    return told if isinstance(told, str) else None


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text[:10]) if text else None
    except ValueError:
        return None
