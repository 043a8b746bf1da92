"""What is asked of OpenAI's files and batches, request by request; what may be asked again and what may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.captioner.client import Caller

ENDPOINT = "/v1/chat/completions"
#: The key of a batch's metadata that holds our token.
METADATA = "fashionrec"

_TIMEOUT = 600.0  # seconds; for files of 200 MB


class BatchApi:
    """Raises :class:`CaptionError` where the server cannot be asked, or knows no such thing (state ``gone``)."""

    def __init__(self, caller: Caller) -> None:
        self._caller, self._client = caller, caller.client

    def upload(self, path: Path) -> str:
        """Upload a file of requests; returns its id. Twice does no harm: a file costs nothing."""

        def send() -> Any:
            with path.open("rb") as file:
                return self._client.files.create(file=(path.name, file), purpose="batch", timeout=_TIMEOUT)

        return str(self._caller.fetch("uploading a batch", send).id)

    def find_file(self, name: str, size: int) -> str | None:
        """The id of a file that may have been uploaded before a process ended."""
        for found in self._pages("looking for a file", partial(self._client.files.list, purpose="batch")):
            if found.filename == name and found.bytes == size:
                return str(found.id)
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

        return str(self._caller.fetch("submitting a batch", send, retries=0).id)

    def find_batch(self, token: str) -> str | None:
        """The id of a batch that may have been created before a process ended."""
        for found in self._pages("looking for a batch", self._client.batches.list):
            if (found.metadata or {}).get(METADATA) == token:
                return str(found.id)
        return None

    def look(self, batch_id: str) -> Any:
        """How a batch is going: the package's own ``Batch``."""
        return self._caller.fetch("looking at a batch", lambda: self._client.batches.retrieve(batch_id))

    def download(self, file_id: str, path: Path) -> None:
        """Bring a file of answers, however large it is."""

        def receive() -> None:
            content = self._client.files.with_streaming_response.content(file_id, timeout=_TIMEOUT)
            with content as response, path.open("wb") as file:
                for data in response.iter_bytes(1 << 20):
                    file.write(data)

        self._caller.fetch("collecting a batch", receive)

    def remove(self, file_id: str) -> None:
        """Take pictures away from the server that are of no use there any more. A server may keep them."""
        try:
            self._caller.fetch("removing a batch's file", lambda: self._client.files.delete(file_id), retries=0)
        except CaptionError:
            return

    def _pages(self, what: str, request: Callable[..., Any]) -> Iterator[Any]:
        """Everything that a list of the server holds, newest first."""
        after: dict[str, Any] = {}
        while True:
            page = self._caller.fetch(what, partial(request, limit=100, **after))
            yield from page.data
            if not page.data or not getattr(page, "has_more", False):
                return
            after = {"after": page.data[-1].id}
