"""Requests to OpenAI's files and batches, with the retries that are safe for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from fashionrec.captioner.openai.transport import MOST_BYTES
from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.captioner.openai.client import ApiCaller

ENDPOINT = "/v1/chat/completions"
#: The metadata key of a batch for our token.
METADATA = "fashionrec"

_TIMEOUT = 600.0  # seconds for a transfer,
_SECONDS_PER_PIECE = 30.0  # extended by this for each piece that arrives
_PIECE = 1 << 20
_MAX_ANSWER_BYTES = 64 << 10  # of one line of answers; a typical one has 2 KB
_MAX_PAGES = 1000  # of a list, which may have no end on an untrusted server
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")  # ids become parts of URLs and file names


class BatchApi:
    """The files and batches of a server.

    Raises :class:`CaptionError` if the server cannot be reached, or for an unknown id (state
    ``gone``).
    """

    def __init__(self, caller: ApiCaller) -> None:
        self._caller, self._client = caller, caller.client

    def upload(self, name: str, open_file: Callable[[], IO[bytes]], size: int) -> str:
        """Upload a file of requests; return its id. Safe to repeat: files cost nothing."""

        def send() -> Any:
            with open_file() as file:
                return self._client.files.create(file=(name, file), purpose="batch", timeout=_TIMEOUT)

        seconds = _TIMEOUT + _SECONDS_PER_PIECE * size / _PIECE
        return checked_id(self._caller.fetch("uploading a batch", send, seconds=seconds))

    def find_file(self, name: str, size: int) -> str | None:
        """Return the id of a file that may have been uploaded before a process ended."""
        for file in self._pages("looking for a file", partial(self._client.files.list, purpose="batch")):
            if getattr(file, "filename", None) == name and getattr(file, "bytes", None) == size:
                return checked_id(file)
        return None

    def create(self, file_id: str, token: str) -> str:
        """Submit a file as a batch with a token; return its id.

        Sent only once: without an answer, the caller looks the batch up by its token.
        """

        def send() -> Any:
            return self._client.batches.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={METADATA: token},
                extra_headers={"Idempotency-Key": token},
            )

        return checked_id(self._caller.fetch("submitting a batch", send, retries=0))

    def find_batch(self, token: str) -> str | None:
        """Return the id of a batch that may have been created before a process ended."""
        for batch in self._pages("looking for a batch", self._client.batches.list):
            if token_of(batch) == token:
                return checked_id(batch)
        return None

    def look(self, batch_id: str) -> Any:
        """Return a batch as the openai package's ``Batch``, which validates no types."""
        checked_id(batch_id)
        return self._caller.fetch("looking at a batch", lambda: self._client.batches.retrieve(batch_id))

    def download(self, file_id: str, create: Callable[[], IO[bytes]], requests: int) -> None:
        """Download the answers to some requests into a new file made by ``create``."""
        checked_id(file_id)

        def receive() -> None:
            content = self._client.files.with_streaming_response.content(file_id, timeout=_TIMEOUT)
            with content as response, create() as file:
                for data in response.iter_bytes(_PIECE):
                    file.write(data)
                    if len(data) == _PIECE:
                        self._caller.extend(_SECONDS_PER_PIECE)

        max_bytes = MOST_BYTES + _MAX_ANSWER_BYTES * requests
        self._caller.fetch("collecting a batch", receive, seconds=_TIMEOUT, most_bytes=max_bytes)

    def remove(self, file_id: str) -> None:
        """Delete a file of images that is no longer needed. Errors are ignored."""
        try:
            checked_id(file_id)
            self._caller.fetch("removing a batch's file", lambda: self._client.files.delete(file_id), retries=0)
        except CaptionError:
            return

    def _pages(self, action: str, request: Callable[..., Any]) -> Iterator[Any]:
        """Yield the entries of a list of the server, newest first."""
        after: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            page = self._caller.fetch(action, partial(request, limit=100, **after))
            listed = getattr(page, "data", None)
            if not isinstance(listed, list) or not listed:
                return
            yield from listed
            if not getattr(page, "has_more", False):
                return
            after = {"after": checked_id(listed[-1])}


def checked_id(value: object) -> str:
    """Return the id of a file or batch, given as text or as the server's object.

    Raises :class:`CaptionError` for an invalid id.
    """
    identifier = value if isinstance(value, str) else getattr(value, "id", None)
    if isinstance(identifier, str) and _ID.fullmatch(identifier):
        return identifier
    raise CaptionError(f"invalid file or batch id {ascii(identifier)[:80]}", hint="check captioner.base_url")


def token_of(batch: object) -> str | None:
    """Return the token that a batch was submitted with, from its metadata."""
    metadata = getattr(batch, "metadata", None)
    token = metadata.get(METADATA) if isinstance(metadata, dict) else None
    return token if isinstance(token, str) else None
