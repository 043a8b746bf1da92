"""The roboflow package as we use it: its key, address, time limits, output and errors.

Properties of the package (1.7) and how they are handled here:

- The key is part of every URL it requests, so its exceptions and urllib3's log lines contain the
  key. Errors are replaced by our own, a server's text is searched for the key, and a filter removes
  it from the log.
- It sends a request once and waits without limit, and has no setting for either. While it is in
  use, its ``http.get``, ``http.post`` and the session of its uploads are replaced by an
  ``http.Session`` with a deadline, a maximum response size, and retries. A redirect to another
  origin is refused: the key and the photos stay with the server of the settings.
- On import it loads a file ``.env`` from the folders above itself or above the working folder,
  which may be untrusted: that is disabled.
- Its URLs are constants that each module copies on import. The package's own way to change them is
  the variable ``API_URL`` and ``refresh_region_urls()``; both are restored afterwards. Anyone may
  have set that variable, so without ``roboflow.api_url`` the key goes to Roboflow's own hosts only.
- It prints its progress on stdout. That is discarded.

All this is global to the process, so uses are serialized.
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
from fashionrec.common.extras import need, patched
from fashionrec.errors import ConfigError, DataError, FashionrecError, MissingExtra

if TYPE_CHECKING:
    from fashionrec.config import RoboflowConfig

KEY = "ROBOFLOW_API_KEY"
PASSING = (408, 429, 500, 502, 503, 504)  # temporary status codes, which are retried

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry")
_OWN_HOST = re.compile(r"(.+\.)?roboflow(-eu)?\.(com|eu|one)")
_INVALID_RESPONSE = (ValueError, LookupError, TypeError, AttributeError)  # raised by the package for odd responses
_MAX_RESPONSE = 16 << 20  # bytes; the description of a workspace grows with its projects
_MAX_ZIP = 1 << 40
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Client:
    """The configured package. ``session`` is for URLs that the package does not request itself."""

    host: str
    key: str = field(repr=False)
    package: Any = field(repr=False)
    adapter: Any = field(repr=False)  # roboflow.adapters.rfapi: its calls, one function each
    session: Any = field(repr=False)
    timeout: float  # seconds without a response

    def project(self, workspace: str, name: str, *, own: bool = False) -> Any:
        """Return the package's ``Project``. Raises :class:`DataError` for a wrong key or name.

        ``own``: the key must belong to the workspace. The package also shows public projects of
        other workspaces, but names only the project in uploads, which then go to the workspace of
        the key.
        """
        with told_anew("Roboflow does not accept the key", self, f"check {KEY}, or run `roboflow login`"):
            owner = self.package.Roboflow(api_key=self.key)
            owner = self.package.Roboflow(api_key=self.key)
        key_workspace = getattr(owner, "current_workspace", None)
        if own and key_workspace != workspace:
            raise DataError(
                f"the key is not for the workspace {workspace}"
                + (f", but for {key_workspace}" if key_workspace else ""),
                hint=f"photos would go to another workspace: set {KEY} to a key of {workspace}",
            )
        with told_anew(
            f"Roboflow does not show the workspace {workspace}", self, "check its name, and that the key belongs to it"
        ):
            remote_workspace = owner.workspace(workspace)
        with told_anew(f"Roboflow does not show the project {workspace}/{name}", self, "check its name"):
            return remote_workspace.project(name)


def parse_project(text: str) -> tuple[str, str]:
    """Return the parts of ``WORKSPACE/PROJECT``. Raises :class:`DataError`."""
    parts = text.split("/")
    if len(parts) != 2 or not all(_SLUG.fullmatch(part) for part in parts):
        raise DataError(
            f"{text!r} is not WORKSPACE/PROJECT", hint="for example my-team/garments, from the project's URL"
        )
    return parts[0], parts[1]


@contextmanager
def connected(workspace: str, config: RoboflowConfig) -> Iterator[Client]:
    """Yield the package with the key of a workspace and the configured address; send no request.

    The key is ``ROBOFLOW_API_KEY``, else the one that `roboflow login` stored for the workspace,
    else for the default one. Raises :class:`DataError` if there is none, :class:`ConfigError` if
    something other than our settings leads away from Roboflow, :class:`MissingExtra` if the package
    is missing or too old.
    """
    package, settings, http = _load()
    with _LOCK, _address(settings, config.api_url), contextlib.redirect_stdout(io.StringIO()):
        key = _find_key(workspace, settings)
        session, api_session = _sessions(http, config)
        adapter = importlib.import_module("roboflow.adapters.rfapi")
        get, post = (functools.partial(call, timeout=config.timeout) for call in (api_session.get, api_session.post))
        with (
            patched(http, get=get, post=post, Session=lambda: api_session),
            patched(adapter, _upload_sessions=threading.local()),  # the package's cache of its upload session
            _redacted_log(key),
            contextlib.closing(session),
            contextlib.closing(api_session),
        ):
            yield Client(_host(settings, config.api_url), key, package, adapter, session, config.timeout)


def api_host(config: RoboflowConfig) -> str:
    """Return the host that the package would use: the settings' address, else its own.

    Sends no request.
    """
    _, settings, _ = _load()
    with _LOCK, _address(settings, config.api_url):
        return _host(settings, config.api_url)


@contextmanager
def told_anew(what: str, client: Client, hint: str) -> Iterator[None]:
    """Convert errors of the package and of requests to ours, without the key and without URLs.

    A refusal by the server is a :class:`DataError` that begins with ``what``; a failed connection,
    or an invalid response, is a :class:`FashionrecError`.
    """
    try:
        yield
    except FashionrecError:
        raise
    except (Exception, SystemExit) as error:
        raise _to_own_error(error, what, client, hint) from None


def reason_of(error: BaseException, key: str) -> str:
    """Return a server's error message as one short line, without the key."""
    text = str(getattr(error, "message", "") or error)
    with contextlib.suppress(ValueError):
        body: Any = parse_json(text)
        for name in ("error", "message"):
            body = body[name] if isinstance(body, dict) and body.get(name) else body
        text = body if isinstance(body, str) else text
    text = re.sub(r"https?://\S+", "(address)", " ".join(text.split()).replace(key, "***"))
    return text[:200] or type(error).__name__


def is_connection(error: BaseException) -> bool:
    """Return whether there was no response at all. The package wraps exceptions of requests."""
    from requests.exceptions import InvalidJSONError, RequestException

    cause = error if isinstance(error, RequestException) else error.__cause__
    return isinstance(cause, RequestException) and not isinstance(cause, InvalidJSONError)


def _to_own_error(error: BaseException, what: str, client: Client, hint: str) -> FashionrecError:
    from requests.exceptions import Timeout

    if is_connection(error):
        is_timeout = isinstance(error, Timeout) or isinstance(error.__cause__, Timeout)
        problem = "did not answer in time" if is_timeout else "cannot be reached, or closed the connection"
        return FashionrecError(f"Roboflow ({client.host}) {problem}", hint="check the network, then run this again")
    if client.session.last_status not in PASSING and isinstance(error, _INVALID_RESPONSE):
        return FashionrecError(
            f"{client.host} does not respond like Roboflow ({type(error).__name__})",
            hint="check roboflow.api_url and the network; a newer roboflow package may help",
        )
    if client.session.last_status in PASSING:  # the package drops the status of its exceptions
        return FashionrecError(
            f"{what}: {client.host} has a temporary problem (status {client.session.last_status})",
            hint="try again later",
        )
    return DataError(f"{what}: {reason_of(error, client.key)}", hint=hint)


def _load() -> tuple[Any, Any, Any]:
    need("roboflow", what="Roboflow")
    formatwarning = warnings.formatwarning
    try:
        # a module that has imported load_dotenv already keeps it
        with patched(importlib.import_module("dotenv"), load_dotenv=lambda *args, **kwargs: False):
            package = importlib.import_module("roboflow")
        settings = importlib.import_module("roboflow.config")
        http = importlib.import_module("roboflow.util.http")
        _ = settings.refresh_region_urls, http.Session
    except (ModuleNotFoundError, AttributeError):
        raise MissingExtra("the roboflow package is too old", hint="pip install --upgrade 'roboflow>=1.7.2'") from None
    except ValueError:  # it reads its settings file on import
        raise DataError(
            "the settings file of the roboflow package is damaged", hint="run `roboflow login`, or remove the file"
        ) from None
    finally:
        warnings.formatwarning = formatwarning  # the package replaces it for the whole process
    return package, settings, http


def _find_key(workspace: str, settings: Any) -> str:
    key = os.environ.get(KEY, "").strip() or _stored_key(workspace, settings)
    if not key:
        raise DataError(
            f"Roboflow needs a key: {KEY} is not set, and `roboflow login` has stored none",
            hint=f"export {KEY}=... (roboflow.com, settings, API keys), or run `roboflow login`",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):  # it becomes part of a URL
        raise DataError(f"{KEY} is not a valid Roboflow key", hint="a key consists of letters and digits")
    return key


def _stored_key(workspace: str, settings: Any) -> str:
    """Return the key that `roboflow login` stored for a workspace or for the default one, or ""."""
    stored = settings.get_conditional_configuration_variable("workspaces", default={})
    entries = [entry for entry in stored.values() if isinstance(entry, dict)] if isinstance(stored, dict) else []
    keys = {str(entry.get("url")): str(entry.get("apiKey") or "").strip() for entry in entries}
    default = settings.get_conditional_configuration_variable("RF_WORKSPACE", default=None)
    return keys.get(workspace) or keys.get(str(default)) or ""


def _host(settings: Any, url: str | None) -> str:
    address = urlsplit(settings.API_URL)
    if url is None and not _OWN_HOST.fullmatch(address.hostname or ""):
        raise ConfigError(
            f"the variable API_URL, or the roboflow package's settings file, names {address.netloc},"
            " which is not a Roboflow host",
            hint="remove it; set roboflow.api_url to use a proxy of your own",
        )
    result: str = address.netloc
    return result


@contextmanager
def _address(settings: Any, url: str | None) -> Iterator[None]:
    if url is None:
        yield
        return
    previous = os.environ.get("API_URL")
    os.environ["API_URL"] = url.rstrip("/")
    try:
        settings.refresh_region_urls()
        yield
    finally:
        os.environ.pop("API_URL")
        if previous is not None:
            os.environ["API_URL"] = previous
        settings.refresh_region_urls()


def _sessions(http: Any, config: RoboflowConfig) -> tuple[Any, Any]:
    """Return two sessions: for download links (any host and size), and for the package."""
    from urllib3.util.retry import Retry

    from fashionrec.dataset.feed.limited_http import LimitedAdapter, SameOrigin

    retry = Retry(
        total=config.retries,
        backoff_factor=0.5,
        status_forcelist=PASSING,
        allowed_methods={"GET"},
        raise_on_status=False,
        respect_retry_after_header=False,  # it may be an hour
    )
    session, api_session = http.Session(), type("Session", (SameOrigin, http.Session), {})()
    session.last_status = None
    for http_session, max_bytes in ((session, _MAX_ZIP), (api_session, _MAX_RESPONSE)):
        http_session.hooks["response"].append(
            lambda response, **_: setattr(session, "last_status", response.status_code)
        )
        for scheme in ("https://", "http://"):
            adapter = LimitedAdapter(config.timeout, max_bytes, extend=http_session is session, max_retries=retry)
            http_session.mount(scheme, adapter)
    return session, api_session


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
