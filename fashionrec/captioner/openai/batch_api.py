"""What is asked of OpenAI's files and batches, request by request; what may be asked again and what may not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from fashionrec.captioner.openai.transport import MOST_BYTES
from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.captioner.openai.client import Caller

ENDPOINT = "/v1/chat/completions"
#: The key of a batch's metadata that holds our token.
METADATA = "fashionrec"

_TIMEOUT = 600.0  # seconds for a transfer, and more where it makes progress:
_SECONDS_EACH = 30.0  # for each
_PIECE = 1 << 20
_ANSWER_BYTES = 64 << 10  # of a garment's line of answers at most: a usual one has 2 KB
_MOST_PAGES = 1000  # of a list; a server's list may have no end
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")  # ids become parts of addresses and of file names


class BatchApi:
    """Raises :class:`CaptionError` where the server cannot be asked, or knows no such thing (state ``gone``)."""

    def __init__(self, caller: Caller) -> None:
        self._caller, self._client = caller, caller.client

    def upload(self, name: str, open_file: Callable[[], IO[bytes]], size: int) -> str:
        """Upload a file of requests; returns its id. Twice does no harm: a file costs nothing."""

        def send() -> Any:
            with open_file() as file:
                return self._client.files.create(file=(name, file), purpose="batch", timeout=_TIMEOUT)

        seconds = _TIMEOUT + _SECONDS_EACH * size / _PIECE
        return checked_id(self._caller.fetch("uploading a batch", send, seconds=seconds))

    def find_file(self, name: str, size: int) -> str | None:
        """The id of a file that may have been uploaded before a process ended."""
        for found in self._pages("looking for a file", partial(self._client.files.list, purpose="batch")):
            if getattr(found, "filename", None) == name and getattr(found, "bytes", None) == size:
                return checked_id(found)
        return None

    def create(self, file_id: str, token: str) -> str:
        """Submit a file as a batch that is known by a token; returns its id. Asked once: whoever hears nothing looks for it."""

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
        """The id of a batch that may have been created before a process ended."""
        for found in self._pages("looking for a batch", self._client.batches.list):
            if token_of(found) == token:
                return checked_id(found)
        return None

    def look(self, batch_id: str) -> Any:
        """How a batch is going: the package's own ``Batch``, which checks no types."""
        checked_id(batch_id)
        return self._caller.fetch("looking at a batch", lambda: self._client.batches.retrieve(batch_id))

    def download(self, file_id: str, create: Callable[[], IO[bytes]], requests: int) -> None:
        """Write the answers to so many requests to a file that ``create`` makes anew."""
        checked_id(file_id)

        def receive() -> None:
            content = self._client.files.with_streaming_response.content(file_id, timeout=_TIMEOUT)
            with content as response, create() as file:
                for data in response.iter_bytes(_PIECE):
                    file.write(data)
                    if len(data) == _PIECE:
                        self._caller.extend(_SECONDS_EACH)

        most = MOST_BYTES + _ANSWER_BYTES * requests
        self._caller.fetch("collecting a batch", receive, seconds=_TIMEOUT, most_bytes=most)

    def remove(self, file_id: str) -> None:
        """Take pictures away from the server that are of no use there any more. A server may keep them."""
        try:
            checked_id(file_id)
            self._caller.fetch("removing a batch's file", lambda: self._client.files.delete(file_id), retries=0)
        except CaptionError:
            return

    def _pages(self, what: str, request: Callable[..., Any]) -> Iterator[Any]:
        """What a list of the server holds, newest first."""
        after: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            page = self._caller.fetch(what, partial(request, limit=100, **after))
            listed = getattr(page, "data", None)
            if not isinstance(listed, list) or not listed:
                return
            yield from listed
            if not getattr(page, "has_more", False):
                return
            after = {"after": checked_id(listed[-1])}


def checked_id(found: object) -> str:
    """The id of a file or batch: a text, or of what a server answered. Raises :class:`CaptionError` for what is none."""
    name = found if isinstance(found, str) else getattr(found, "id", None)
    if isinstance(name, str) and _ID.fullmatch(name):
        return name
    raise CaptionError(f"{ascii(name)[:80]} is not the id of a file or batch", hint="check captioner.base_url")


def token_of(batch: object) -> str | None:
    """The token that a batch was submitted with, as the server tells it."""
    metadata = getattr(batch, "metadata", None)
    token = metadata.get(METADATA) if isinstance(metadata, dict) else None
    return token if isinstance(token, str) else None
