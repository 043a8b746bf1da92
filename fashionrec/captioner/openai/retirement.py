"""Shutdown dates of models: the warning before a run, and the error afterwards."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.openai.client import connect, find_key, host, is_openai, server_url
from fashionrec.captioner.openai.transport import TransportLimits
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import CaptionError, ConfigError

if TYPE_CHECKING:
    from fashionrec.config import CaptionerConfig

_TIMEOUT = 5.0  # seconds for the lookup of a model, which is optional


def shutdown_notice(config: CaptionerConfig, today: date, reported: str | None = None) -> str:
    """Return the shutdown warning to show before a run, or "".

    ``reported`` is the server's date, which takes precedence over ours. Ours are OpenAI's dates and
    ignored for other servers. Raises :class:`ConfigError` if OpenAI has shut the model down.
    """
    entry = config.models.get(config.model) or config.models["other"]
    shutdown = _date(reported) or (_date(entry.shutdown) if is_openai(config) else None)
    if shutdown is None:
        return ""
    replacement = entry.replacement
    hint = f"switch with --set {shell_word('captioner.model=' + (replacement or 'MODEL'))}"
    days = (shutdown - today).days
    server = "OpenAI" if is_openai(config) else host(server_url(config))
    if days < 0 and is_openai(config):
        raise ConfigError(
            f"{config.model} was shut down on {shutdown}" + (f"; {replacement} replaces it" if replacement else ""),
            hint=hint + "; existing captions are kept, and nothing is requested again",
        )
    if days > config.warn_days:
        return ""
    message = (
        f"shuts {config.model} down on {shutdown}, in {plural(days, 'day')}"
        if days >= 0
        else f"shut {config.model} down on {shutdown}"
    )
    return f"{server} {message}: {hint}"


def ask_shutdown(config: CaptionerConfig, key: str | None = None) -> str | None:
    """Query the shutdown date of the model (``GET /models/{model}``), with a short time-out.

    Returns None if the server has none or does not answer.
    """
    try:
        guard = TransportLimits()
        with connect(config, find_key(config, key), guard=guard, timeout=_TIMEOUT) as client, guard.limit(_TIMEOUT):
            model: Any = client.models.retrieve(config.model)
        shutdown = getattr(model, "shutdown_date", None)
    except CaptionError:
        return None
    except Exception:  # whatever the server or its transport does: the run does not need the date
        return None
    return shutdown if isinstance(shutdown, str) else None


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text[:10]) if text else None
    except ValueError:
        return None
