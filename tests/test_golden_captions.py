"""Test what captions cost, say and change, value by value: by a server that answers by what it is
sent, and by the local captioner.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from golden import Golden
from golden_world import OpenAIServer
from openai_batches import BatchServer
from test_golden_evaluate import QUERIES

Cli = Callable[..., Result]
WHERE = ("--index", "catalogue")
REMOTE = (*WHERE, "--captioner", "openai")

#: What the shop knows of its products: some of it in Korean, some of it not what is said of their
#: photos.
TRUTH = """\
image,product_id,category,color,pattern
-,T1,top,빨강,stripe
-,T2,top,red,plain
-,P1,pants,navy,plain
-,P2,pants,하늘색,check
-,D1,dress,green,
-,S1,skirt,yellow,plain
-,S2,skirt,yellow,plain
-,T4,top,pink,plain
"""


def recorded(path: Path) -> list[list[Any]]:
    """Return what is kept of each answer that was paid for, but for when it came and how long it
    took.
    """
    columns = "class_name, captioner, model, x1, y1, x2, y2, state, retryable, error, input_tokens, output_tokens"
    with closing(sqlite3.connect(path)) as database:
        return [list(row) for row in database.execute(f"SELECT {columns} FROM outcomes ORDER BY photo_sha256, x1")]


def test_captions_by_a_server(cli: Cli, own_world: Path, captioning: OpenAIServer, golden: Golden) -> None:
    golden.document("caption-dry-run", cli("caption", *REMOTE, "--dry-run", "--json", "--quiet").document)
    part = cli("caption", *REMOTE, "--limit", 5, "--json", "--quiet")
    golden.document("caption-part", part.document)
    done = cli("caption", *REMOTE, "--json", "--quiet")
    golden.document("caption-done", {"code": done.code, "stderr": done.err.splitlines(), "document": done.document})
    golden.document("caption-status", cli("caption", *WHERE, "--status", "--json", "--quiet").document)
    golden.text("caption-status", cli("caption", *WHERE, "--status", "--quiet").out)
    golden.document("caption-recorded", recorded(own_world / "data" / "captions.sqlite"))
    golden.document(
        "caption-product", cli("catalogue", "show", "catalogue", "--product", "T2", "--json", "--quiet").document
    )

    photos = cli("caption", "asked/look.bmp", "asked/gone.bmp", *REMOTE, "--json", "--quiet")
    golden.document("caption-photos", {"code": photos.code, "document": photos.document})
    golden.text("caption-photos", cli("caption", "asked/look.bmp", *REMOTE, "--quiet").out)

    def ask(name: str, *words: object) -> None:
        answered = cli("query", *words, *WHERE, "--explain", "--json", "--quiet")
        assert answered.code == 0, answered.err
        golden.document(f"query-{name}", answered.document)

    ask("captioned", "asked/look.bmp", "-k", 3, "--captioner", "openai", "--set", "query.caption_weight=0.6")
    ask("captioned-ranks", "asked/sky.bmp", "-k", 3, "--captioner", "openai", "--set", "query.fusion=rrf")
    ask("captioned-local", "asked/look.bmp", "-k", 2, "--caption", "--garment", "top")
    ask("captioned-text", "--text", "핑크 상의", "-k", 3)
    shares = ("--set", "query.caption_weight=0.5", "--set", "query.lexical_weight=0.4")
    ask("captioned-text-fused", "--text", "red shirt", "--caption", "-k", 4, *shares)


def test_captions_measured(cli: Cli, own_world: Path, captioning: OpenAIServer, golden: Golden) -> None:
    cli("caption", *REMOTE, "--quiet")
    (own_world / "truth.csv").write_text(TRUTH, encoding="utf-8")
    (own_world / "queries.csv").write_text(QUERIES, encoding="utf-8")
    asked = ("evaluate", "--captions", "--truth", "truth.csv", *WHERE, "--quiet")
    done = cli(*asked, "--json")
    assert done.code == 0, done.err
    golden.document("evaluate-captions", done.document)
    golden.text("evaluate-captions", cli(*asked).out)
    ways = ("evaluate", "--ways", "--queries", "queries.csv", *WHERE, "--quiet")
    golden.document("evaluate-ways", cli(*ways, "--json").document)
    golden.text("evaluate-ways", cli(*ways, "--apply").out)
    # the weight that was applied is that of the next query
    answered = cli("query", "asked/sky.bmp", "-k", 2, "--caption", "--explain", *WHERE, "--json", "--quiet")
    golden.document("query-captioned-applied", answered.document)


def test_captions_by_the_local_captioner(cli: Cli, own_world: Path, golden: Golden) -> None:
    done = cli("caption", *WHERE, "--captioner", "local", "--json", "--quiet")
    assert done.code == 0, done.err
    golden.document("caption-local", done.document)
    golden.document(
        "caption-local-product", cli("catalogue", "show", "catalogue", "--product", "T4", "--json").document
    )


def test_captions_in_a_batch(cli: Cli, own_world: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__BATCH__POLL", "0.01")
    with BatchServer() as server:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        batch = ("caption", *REMOTE, "--batch", "--set", "captioner.batch.requests=10", "--quiet")
        golden.document("caption-batch-submitted", cli(*batch, "--json").document)
        golden.document("caption-batch-status", cli("caption", *WHERE, "--status", "--json", "--quiet").document)
        assert cli("caption", *WHERE, "--status").out.splitlines()[-2:] == [
            "  batch batch-0: submitted, 10 garments",
            "  batch batch-1: submitted, 4 garments",
        ]
        golden.document("caption-batch-collected", cli(*batch, "--resume", "--wait", "--json").document)
        assert cli(*batch).out == ""
        golden.text("caption-batch-again", cli(*batch[:-1]).out)
