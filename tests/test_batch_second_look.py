"""A look at a batch that fails loses nothing: the next one collects what was paid for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from captioners import count_by_state
from openai_batches import BatchServer
from test_captioner_batch import Client, place

from fashionrec.errors import CaptionError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BatchServer() as running:
        yield running


@pytest.mark.parametrize("status", [503, 401])
@pytest.mark.parametrize("what", ["GET /batches/batch-0", "GET /files/"])
def test_a_failed_look_or_collection_is_no_end_of_the_batch(
    what: str, status: int, server: BatchServer, tmp_path: Path
) -> None:
    with Client(server, tmp_path) as client:
        client.batches.add(place(n) for n in range(3))
        client.batches.advance()
        server.fails = [(what, status)] * 2  # the settings have one retry
        with pytest.raises(CaptionError, match="the key" if status == 401 else "503") as caught:
            client.until_done()
        assert caught.value.retryable == (status == 503)
        assert count_by_state(client.cache) == {}
        server.fails = []
    with Client(server, tmp_path) as later:  # another process, on another day
        assert [part.requests for part in later.batches.open_parts()] == [3]
        later.until_done()
        assert count_by_state(later.cache) == {"done": 3}
    assert len(server.batches) == 1
    assert set(server.paid.values()) == {1}


def test_a_batch_that_the_server_knows_no_more_has_failed_and_is_not_submitted_again(
    server: BatchServer, tmp_path: Path
) -> None:
    with Client(server, tmp_path) as client:
        client.batches.add(place(n) for n in range(3))
        client.batches.advance()
        server.batches.clear()
        done = client.batches.advance()
        assert done.errors == ["batch batch-0: the server no longer has the batch"]
        assert count_by_state(client.cache) == {"failed": 3}
        assert client.batches.open_parts() == []
    assert server.batches == {}
