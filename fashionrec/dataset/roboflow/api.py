"""The roboflow package as we use it: its key, address, time limits, prints and errors, in one place.

What the package (1.7) does by itself, and what is done about it here:

- The key is part of every address it asks for, so its exceptions and urllib3's log lines hold the key. Errors are told
  anew in our words, a server's text is searched for the key, and a filter takes it out of the log.
- It asks once and waits for ever. Its ``http.get``, ``http.post`` and the session of its uploads are replaced, for the time
  of use, by an ``http.Session`` with a deadline, a limit of what an answer may hold, and retries; it has no setting for these. A
  redirect to another origin is refused: the key and the photos stay with the server of the settings.
- When it is imported it loads a file ``.env`` from the folders above itself, or above the working folder, which may be
  somebody else's: that is turned off.
- Its addresses are constants that each module copies when it is imported. The package's own way to change them is the
  variable ``API_URL`` and ``refresh_region_urls()``; both are put back afterwards. That variable is anybody's, so without
  ``roboflow.api_url`` the key goes to Roboflow's own hosts only.
- It prints its progress on stdout. That is thrown away.

All this is the process's, so one use at a time: others wait.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fashionrec.common.documents import parse_json
from fashionrec.common.extras import need, swapped
from fashionrec.errors import ConfigError, DataError, FashionrecError, MissingExtra

if TYPE_CHECKING:
    from fashionrec.config import RoboflowConfig

KEY = "ROBOFLOW_API_KEY"
PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be others next time

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry")
_OWN_HOST = re.compile(r"(.+\.)?roboflow(-eu)?\.(com|eu|one)")
_SENSELESS = (ValueError, LookupError, TypeError, AttributeError)  # the package fell over an answer
_MOST_ANSWER = 16 << 20  # bytes; what a workspace says of itself grows with its projects
_MOST_ZIP = 1 << 40
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Client:
    """The package, ready to be asked. ``session`` is for addresses that the package does not ask itself."""

    host: str
    key: str = field(repr=False)
    package: Any = field(repr=False)
    adapter: Any = field(repr=False)  # roboflow.adapters.rfapi: its calls, one function each
    session: Any = field(repr=False)
    timeout: float  # seconds without an answer

    def project(self, workspace: str, name: str, *, own: bool = False) -> Any:
        """The package's own ``Project``. Raises :class:`DataError` for a wrong key or name.

        ``own``: the key must be the workspace's. What is uploaded goes to the key's workspace whatever was asked for, since
        the package names only the project then, while it shows public projects of others.
        """
        with told_anew("Roboflow does not accept the key", self, f"check {KEY}, or run `roboflow login`"):
            owner = self.package.Roboflow(api_key=self.key)
        theirs = getattr(owner, "current_workspace", None)
        if own and theirs != workspace:
            raise DataError(
                f"the key is not of the workspace {workspace}" + (f", but of {theirs}" if theirs else ""),
                hint=f"photos would go elsewhere: set {KEY} to a key of {workspace}",
            )
        with told_anew(
            f"Roboflow does not show the workspace {workspace}", self, "check its name, and that the key is its own"
        ):
            opened = owner.workspace(workspace)
        with told_anew(f"Roboflow does not show the project {workspace}/{name}", self, "check its name"):
            return opened.project(name)


def parse_project(text: str) -> tuple[str, str]:
    """``WORKSPACE/PROJECT`` in its parts. Raises :class:`DataError`."""
    parts = text.split("/")
    if len(parts) != 2 or not all(_SLUG.fullmatch(part) for part in parts):
        raise DataError(f"{text!r} is not WORKSPACE/PROJECT", hint="as in my-team/garments, from the project's address")
    return parts[0], parts[1]


@contextmanager
def connected(workspace: str, config: RoboflowConfig) -> Iterator[Client]:
    """The package with the key of that workspace, at the address of the settings. Nothing is asked yet.

    The key is ``ROBOFLOW_API_KEY``, else what `roboflow login` stored for the workspace, else for the default one. Raises
    :class:`DataError` where there is none, :class:`ConfigError` where something else than the settings leads away from
    Roboflow, :class:`MissingExtra` where the package is missing or too old.
    """
    package, settings, http = _load()
    with _ONE_AT_A_TIME, _address(settings, config.api_url), contextlib.redirect_stdout(io.StringIO()):
        key = _find_key(workspace, settings)
        session, asking = _sessions(http, config)
        adapter = importlib.import_module("roboflow.adapters.rfapi")
        get, post = (functools.partial(ask, timeout=config.timeout) for ask in (asking.get, asking.post))
        with (
            swapped(http, get=get, post=post, Session=lambda: asking),
            swapped(adapter, _upload_sessions=threading.local()),  # where it keeps the session of its uploads
            _redacted_log(key),
            contextlib.closing(session),
            contextlib.closing(asking),
        ):
            yield Client(_host(settings, config.api_url), key, package, adapter, session, config.timeout)


def api_host(config: RoboflowConfig) -> str:
    """Where the package would send to: the settings' address, else the package's own. Nothing is asked."""
    _, settings, _ = _load()
    with _ONE_AT_A_TIME, _address(settings, config.api_url):
        return _host(settings, config.api_url)


@contextmanager
def told_anew(what: str, client: Client, hint: str) -> Iterator[None]:
    """Whatever the package or requests raise, as one of our errors, without the key and without addresses.

    What the server refuses is a :class:`DataError` that begins with ``what``; a connection that fails, or an answer that
    makes no sense, is a :class:`FashionrecError`.
    """
    try:
        yield
    except FashionrecError:
        raise
    except (Exception, SystemExit) as error:
        raise _known(error, what, client, hint) from None


def reason_of(error: BaseException, key: str) -> str:
    """What a server says in its error, one short line, without the key."""
    text = str(getattr(error, "message", "") or error)
    with contextlib.suppress(ValueError):
        body: Any = parse_json(text)
        for name in ("error", "message"):
            body = body[name] if isinstance(body, dict) and body.get(name) else body
        text = body if isinstance(body, str) else text
    text = re.sub(r"https?://\S+", "(address)", " ".join(text.split()).replace(key, "***"))
    return text[:200] or type(error).__name__


def is_connection(error: BaseException) -> bool:
    """Whether no answer came at all, as against one that says no. The package wraps what requests raises."""
    from requests.exceptions import InvalidJSONError, RequestException

    found = error if isinstance(error, RequestException) else error.__cause__
    return isinstance(found, RequestException) and not isinstance(found, InvalidJSONError)


def _known(error: BaseException, what: str, client: Client, hint: str) -> FashionrecError:
    from requests.exceptions import Timeout

    if is_connection(error):
        late = isinstance(error, Timeout) or isinstance(error.__cause__, Timeout)
        told = "does not answer in time" if late else "cannot be reached, or cut the connection"
        return FashionrecError(f"Roboflow ({client.host}) {told}", hint="check the network, then run this again")
    if client.session.last_status not in PASSING and isinstance(error, _SENSELESS):
        return FashionrecError(
            f"{client.host} does not answer as Roboflow does ({type(error).__name__})",
            hint="check roboflow.api_url and the network; a newer roboflow package may help",
        )
    if client.session.last_status in PASSING:  # the package drops the status of what it raises
        return FashionrecError(f"{what}: {client.host} is in trouble ({client.session.last_status})", hint="try later")
    return DataError(f"{what}: {reason_of(error, client.key)}", hint=hint)


def _load() -> tuple[Any, Any, Any]:
    need("roboflow", what="Roboflow")
    formatwarning = warnings.formatwarning
    try:
        # whoever else has load_dotenv already is not concerned
        with swapped(importlib.import_module("dotenv"), load_dotenv=lambda *given, **named: False):
            package = importlib.import_module("roboflow")
        settings = importlib.import_module("roboflow.config")
        http = importlib.import_module("roboflow.util.http")
        _ = settings.refresh_region_urls, http.Session
    except (ModuleNotFoundError, AttributeError):
        raise MissingExtra("the roboflow package is too old", hint="pip install --upgrade 'roboflow>=1.7.2'") from None
    except ValueError:  # it reads its settings file when it is imported
        raise DataError(
            "the settings file of the roboflow package is damaged", hint="run `roboflow login`, or remove the file"
        ) from None
    finally:
        warnings.formatwarning = formatwarning  # the package replaces everybody's
    return package, settings, http


def _find_key(workspace: str, settings: Any) -> str:
    key = os.environ.get(KEY, "").strip() or _stored_key(workspace, settings)
    if not key:
        raise DataError(
            f"Roboflow needs a key: {KEY} is not set, and `roboflow login` has stored none",
            hint=f"export {KEY}=... (roboflow.com, settings, API keys), or run `roboflow login`",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):  # it becomes part of an address
        raise DataError(f"{KEY} is no Roboflow key", hint="a key is letters and digits only")
    return key


def _stored_key(workspace: str, settings: Any) -> str:
    """The key that `roboflow login` stored for a workspace, else for the default one, else nothing."""
    stored = settings.get_conditional_configuration_variable("workspaces", default={})
    known = [entry for entry in stored.values() if isinstance(entry, dict)] if isinstance(stored, dict) else []
    keys = {str(entry.get("url")): str(entry.get("apiKey") or "").strip() for entry in known}
    default = settings.get_conditional_configuration_variable("RF_WORKSPACE", default=None)
    return keys.get(workspace) or keys.get(str(default)) or ""


def _host(settings: Any, url: str | None) -> str:
    found = urlsplit(settings.API_URL)
    if url is None and not _OWN_HOST.fullmatch(found.hostname or ""):
        raise ConfigError(
            f"the variable API_URL, or the roboflow package's settings file, names {found.netloc}, which is not Roboflow's",
            hint="remove it; a proxy of yours belongs into roboflow.api_url",
        )
    result: str = found.netloc
    return result


@contextmanager
def _address(settings: Any, url: str | None) -> Iterator[None]:
    if url is None:
        yield
        return
    before = os.environ.get("API_URL")
    os.environ["API_URL"] = url.rstrip("/")
    try:
        settings.refresh_region_urls()
        yield
    finally:
        os.environ.pop("API_URL")
        if before is not None:
            os.environ["API_URL"] = before
        settings.refresh_region_urls()


def _sessions(http: Any, config: RoboflowConfig) -> tuple[Any, Any]:
    """Two sessions: for links, which may lead anywhere and are as long as they are, and for the package's own questions."""
    from urllib3.util.retry import Retry

    from fashionrec.dataset.feed.limited_http import LimitedAdapter, SameOrigin

    retry = Retry(
        total=config.retries,
        backoff_factor=0.5,
        status_forcelist=PASSING,
        allowed_methods={"GET"},
        raise_on_status=False,
        respect_retry_after_header=False,  # it may name an hour
    )
    session, asking = http.Session(), type("Session", (SameOrigin, http.Session), {})()
    session.last_status = None
    for one, most in ((session, _MOST_ZIP), (asking, _MOST_ANSWER)):
        one.hooks["response"].append(lambda answer, **_: setattr(session, "last_status", answer.status_code))
        for scheme in ("https://", "http://"):
            adapter = LimitedAdapter(config.timeout, most, extend=one is session, max_retries=retry)
            one.mount(scheme, adapter)
    return session, asking


class _Redact(logging.Filter):
    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().replace(self.key, "***"), ()
        return True


@contextmanager
def _redacted_log(key: str) -> Iterator[None]:
    redact = _Redact(key)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(redact)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(redact)
