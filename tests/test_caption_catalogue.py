"""`fashionrec caption --index`: what is asked, what it costs, what is kept; against a local server
of the real wire format.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captioners import count_by_state
from conftest import TINY, Result, two_halves
from openai_batches import BatchServer, Ending, answered, expired
from openai_server import OpenAIServer, Recorded, Reply, completion, error, success

from fashionrec import Catalogue
from fashionrec.captioner.cache import CaptionCache
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.types import Box

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
CANARY = "sk-canary-0123456789abcdef"
GARMENTS = 6
EACH = (400 * 2.5 + 90 * 10) / 1e6  # US$ of one of the server's answers, by gpt-4o's prices


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("FASHIONREC_CAPTIONER__RETRIES", "1")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__BATCH__POLL", "0.01")


@pytest.fixture
def index(cli: Cli, tmp_path: Path) -> Path:
    for n in range(GARMENTS):
        two_halves(tmp_path / "photos" / f"p{n}.jpg", "red", "white", (120 + n, 90))
    assert cli("build-index", "photos", "--index", "c", *MODELS, "--quiet").code == 0
    return tmp_path / "c"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    with BatchServer() as running:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", running.base_url)
        yield running


def captions(index: Path) -> dict[str, str]:
    with Catalogue.open(index) as catalogue:
        return {s.item.product_id: s.captions.get("en", "") for s in catalogue.items.everything()}


def test_before_the_first_call_it_says_what_is_new_and_what_that_will_cost(
    cli: Cli, index: Path, server: OpenAIServer
) -> None:
    told = cli("caption", "--index", "c", "--dry-run", "--json")
    assert told.code == 0, told.err
    plan = told.document["plan"]
    assert (plan["new"], plan["to_ask"], plan["captioned"], plan["cached"]) == (GARMENTS, GARMENTS, 0, 0)
    assert plan["tokens_each"]["measured"] == 0
    each = plan["tokens_each"]
    by_hand = GARMENTS * (each["input"] * 2.5 + each["output"] * 10) / 1e6
    assert plan["expected_cost_usd"] == pytest.approx(by_hand, rel=1e-3)
    assert f"{GARMENTS} garments to caption" in told.err
    assert "estimated" in told.err
    assert server.requests == server.others == []
    assert not (index / "captions.sqlite").exists()
    assert not Path("data").exists()

    done = cli("caption", "--index", "c", "--only-missing", "--json")
    assert done.code == 0, done.err
    assert (done.document["made"], done.document["left"]) == (GARMENTS, 0)
    assert done.document["cost_usd"] == pytest.approx(GARMENTS * EACH)
    assert server.others == ["GET /v1/models/gpt-4o"]
    again = cli("caption", "--index", "c", "--dry-run", "--json").document["plan"]
    assert (again["new"], again["captioned"], again["expected_cost_usd"]) == (0, GARMENTS, 0.0)


def test_what_was_measured_is_what_is_expected(cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path) -> None:
    for n in range(GARMENTS, 12):
        two_halves(tmp_path / "photos" / f"p{n}.jpg", "red", "white", (120 + n, 90))
    cli("build-index", "photos", "--index", "c", *MODELS, "--quiet")
    assert cli("caption", "--index", "c", "--limit", "10", "--json").document["left"] == 2
    told = cli("caption", "--index", "c", "--dry-run", "--json")
    plan = told.document["plan"]
    assert "expected: 2 x (400 tokens in, 90 out; measured on 10 answers)" in told.err
    assert plan["tokens_each"] == {"input": 400, "output": 90, "measured": 10}
    assert plan["expected_cost_usd"] == pytest.approx(2 * EACH)


def test_a_limit_of_the_cost_is_not_passed(cli: Cli, index: Path, server: OpenAIServer) -> None:
    cap = 3.5 * EACH
    settings = ("--set", "captioner.models.gpt-4o.image_tokens=null", "--set", "captioner.concurrency=2")
    stopped = cli("caption", "--index", "c", "--max-cost", "0.0000001", *settings, "--json")
    assert stopped.code == 3
    assert stopped.document["stopped"] == "max-cost"
    assert server.requests == []
    for _ in range(4):  # what is expected is more than what it costs: fewer at once, never more than paid for
        cli("caption", "--index", "c", "--max-cost", str(cap), *settings, "--quiet")
        with CaptionCache(index / "captions.sqlite") as cache:
            assert count_by_state(cache).get("done", 0) * EACH <= cap * 4 + 2 * EACH
    assert len(server.requests) <= GARMENTS
    unknown = cli("caption", "--index", "c", "--max-cost", "1", "--set", "captioner.model=qwen-vl")
    assert unknown.code == 1
    assert "input_price" in unknown.err


def test_nothing_recorded_is_asked_again_but_by_name(cli: Cli, index: Path, server: OpenAIServer) -> None:
    replies = [
        success(),
        Reply(body=completion(None, refusal="no")),
        Reply(body=completion("", finish="content_filter")),
        Reply(body=completion("{", finish="length")),
        Reply(body=completion("nonsense")),
        error(500, "down"),
        error(500, "down"),
        success(),
    ]
    server.script = replies
    one = ("--set", "captioner.concurrency=1", "--json")
    first = cli("caption", "--index", "c", *one)
    assert first.code == 1
    assert first.document["states"] == dict.fromkeys(
        ["done", "refused", "filtered", "truncated", "invalid", "failed"], 1
    )
    assert len(server.requests) == 7  # the one that failed was asked twice
    assert "--retry" in first.err
    again = cli("caption", "--index", "c", *one)
    assert len(server.requests) == 7
    assert again.document["reused"] == 5
    told = cli("caption", "--index", "c", "--status", "--json").document
    assert told["without"] == 5
    assert told["captioned"] == {"openai": 1}
    assert told["states"] == {
        "done": 1,
        "failed, retryable": 1,
        "filtered": 1,
        "invalid": 1,
        "refused": 1,
        "truncated": 1,
    }
    assert cli("caption", "--index", "c", "--retry", "failed", *one).document["made"] == 1
    assert len(server.requests) == 8
    assert cli("caption", "--index", "c", "--retry", "refused,invalid", *one).document["made"] == 2
    assert len(server.requests) == 10
    assert cli("caption", "--index", "c", "--retry", "broken").code == 2
    with sqlite3.connect("data/captions.sqlite") as db:
        assert db.execute("SELECT raw FROM outcomes WHERE state = 'truncated'").fetchone()[0] == "{"


def test_recaption_pays_again_for_what_it_names_and_goes_on_where_it_was(
    cli: Cli, index: Path, server: OpenAIServer
) -> None:
    cli("caption", "--index", "c", "--quiet")
    assert len(server.requests) == GARMENTS
    server.script = [success(caption_en="A fresh garment")]
    one = cli("caption", "--index", "c", "--recaption", "p3.jpg", "--json")
    assert (one.code, one.document["made"], len(server.requests)) == (0, 1, GARMENTS + 1)
    assert [name for name, said in captions(index).items() if said == "A fresh garment"] == ["p3.jpg"]
    assert cli("caption", "--index", "c", "--recaption", "nothing").code == 2
    assert cli("caption", "--index", "c", "--recaption", "skirt", "--json").document["made"] == 0
    # begun, and stopped: what was asked anew is not asked anew again
    part = cli("caption", "--index", "c", "--recaption", "top", "--limit", "4", "--json")
    assert (part.document["made"], part.document["left"]) == (4, 2)
    rest = cli("caption", "--index", "c", "--recaption", "top", "--json")
    assert (rest.document["made"], rest.document["left"]) == (2, 0)
    assert set(captions(index).values()) == {"A fresh garment"}
    assert len(server.requests) == GARMENTS + 1 + 6
    whole = cli("caption", "--index", "c", "--recaption", "all", "--json")
    assert whole.document["made"] == 6
    assert cli("caption", "--index", "c", "--recaption", "all", "--only-missing").code == 2


def retrained(folder: Path) -> Path:
    """A detector that finds the same garments, each box a pixel elsewhere (of 64)."""
    bundle = Bundle.open(TINY / "detector")
    boxes = np.array([[[16, 48], [32, 32], [32, 32], [64, 64]]], np.float32)
    elsewhere = boxes + np.array([0.5, 0.5, -1, -1], np.float32).reshape(1, 4, 1)
    graph = (bundle.path / "detect.onnx").read_bytes()
    assert graph.count(boxes.tobytes()) == 1
    folder.mkdir()
    (folder / "detect.onnx").write_bytes(graph.replace(boxes.tobytes(), elsewhere.tobytes()))
    return write_bundle(
        folder / "detector",
        kind="detector",
        name="retrained",
        graphs={"detect": "detect.onnx"},
        spec=bundle.spec,
        source={},
        agreement={},
        files={"detect.onnx": folder / "detect.onnx"},
    ).path


def test_moved_boxes_another_model_and_another_catalogue_pay_nothing(
    cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path
) -> None:
    cli("caption", "--index", "c", "--quiet")
    assert len(server.requests) == GARMENTS
    moved_boxes = ("--detector", retrained(tmp_path / "retrained"), *MODELS[2:])
    assert cli("build-index", "photos", "--index", "d", *moved_boxes, "--quiet").code == 0
    boxes = [b for root in ("c", "d") for b in _boxes(tmp_path / root)]
    assert len(set(boxes)) == 2 * GARMENTS
    moved = cli("caption", "--index", "d", "--json")
    assert (moved.document["made"], moved.document["reused"]) == (0, GARMENTS)
    assert set(captions(tmp_path / "d").values()) == set(captions(index).values())
    luna = ("--set", "captioner.model=gpt-6-luna", "--json")
    assert cli("caption", "--index", "d", *luna).document["kept"] == GARMENTS
    assert cli("build-index", "photos", "--index", "e", *moved_boxes, "--quiet").code == 0
    assert cli("caption", "--index", "e", *luna).document["reused"] == GARMENTS
    shutil.rmtree("data")  # a catalogue that is copied elsewhere has its captions with it
    assert cli("build-index", "photos", "--index", "d", "--quiet").code == 0
    with CaptionCache(tmp_path / "d" / "captions.sqlite") as cache:
        assert count_by_state(cache) == {"done": GARMENTS}
    assert len(server.requests) == GARMENTS


def _boxes(index: Path) -> list[tuple[str, Box]]:
    with Catalogue.open(index) as catalogue:
        return [(s.photo, s.item.box) for s in catalogue.items.everything()]


def test_answers_that_a_killed_process_had_written_down_are_not_asked_for_again(
    cli: Cli, index: Path, server: OpenAIServer
) -> None:
    from fashionrec.captioner.cache import Place
    from fashionrec.captioner.openai.wire import stored_answer
    from fashionrec.captioner.spool import Spool, SpooledAnswer

    garment = {"category": "top", "confidence": 0.5, "caption_en": "An old top", "caption_ko": "오래된 상의"}
    fields = json.loads(completion(""))
    with Catalogue.open(index) as catalogue:
        stored = next(iter(catalogue.items.everything()))
        place = Place(stored.photo, stored.item.class_name, stored.item.box)
    from fashionrec.captioner.schema import json_schema

    for key, spec in json_schema("top")["properties"].items():
        garment.setdefault(key, spec["enum"][0] if "enum" in spec else "")
    fields["choices"][0]["message"]["content"] = json.dumps(garment)
    spool = Spool(index / ".captions.arrived")
    spool.append(SpooledAnswer(place, "gpt-4o", stored_answer(fields), 1.5))
    spool.close()
    with spool.path.open("ab") as torn:
        torn.write(b'["half a li')
    done = cli("caption", "--index", "c", "--json")
    assert (done.document["made"], done.document["reused"]) == (GARMENTS - 1, 1)
    assert len(server.requests) == GARMENTS - 1
    assert captions(index)[stored.item.product_id] == "An old top"
    assert not spool.path.exists()


def test_photos_by_themselves_are_paid_for_once_and_have_an_outfit(
    cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path
) -> None:
    two_halves(tmp_path / "both.jpg", "red", "blue")
    first = cli("caption", "both.jpg", "--index", "c", "--captioner", "openai", "--json")
    assert first.code == 0, first.err
    (document,) = first.document["photos"]
    assert [garment["class_name"] for garment in document["garments"]] == ["top", "pants"]
    assert document["outfit"]["ko"].count("와") + document["outfit"]["ko"].count("과") >= 1
    assert document["outfit"]["en"].startswith("A black T-shirt and black ")
    assert len(server.requests) == 2
    again = cli("caption", "both.jpg", "--index", "c", "--captioner", "openai", "--json")
    assert again.document == first.document
    assert len(server.requests) == 2
    asked = cli("query", "both.jpg", "--index", "c", "--captioner", "openai", "--json")
    assert asked.document["outfit"] == document["outfit"]
    assert len(server.requests) == 4  # what a customer asks with is recorded nowhere, and found nowhere


def test_a_vocabulary_of_ones_own_is_asked_and_kept_to(
    cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path
) -> None:
    from fashionrec.config import config_dir

    text = (config_dir() / "attributes.yaml").read_text(encoding="utf-8")
    assert "      hoodie: " in text
    (tmp_path / "ours.yaml").write_text(text.replace("      hoodie: ", "      kangaroo hoodie: "), encoding="utf-8")
    server.script = [success(sub_category="kangaroo hoodie")]
    words = ("--set", "captioner.vocabulary=ours.yaml", "--json")
    assert cli("caption", "--index", "c", *words).document["states"] == {"done": GARMENTS}
    schema = server.requests[0].body["response_format"]["json_schema"]["schema"]["properties"]
    assert "kangaroo hoodie" in schema["sub_category"]["enum"]
    with Catalogue.open(index) as catalogue:
        assert {s.item.attributes["sub_category"] for s in catalogue.items.everything()} == {"kangaroo hoodie"}
    assert cli("caption", "--index", "c", "--set", "captioner.vocabulary=none.yaml").code == 2


def test_texts_that_are_too_long_for_the_text_tower_are_counted(cli: Cli, index: Path, server: OpenAIServer) -> None:
    server.script = [success(caption_en="A garment " + "with a very unusual and long description " * 12)]
    done = cli("caption", "--index", "c", "--json")
    assert done.document["texts_cut"] == GARMENTS
    assert done.document["tokens_cut"] > GARMENTS
    report = json.loads(next((index / "generations").glob("*/report.json")).read_text())
    assert report


def test_a_run_warns_of_a_model_that_ends_and_another_server_may_tell(
    cli: Cli, index: Path, server: OpenAIServer
) -> None:
    assert "shut" not in cli("caption", "--index", "c", "--limit", "1").err
    server.shutdown_date = "2020-01-01"
    assert "shut gpt-4o down on 2020-01-01" in cli("caption", "--index", "c", "--limit", "1").err


def test_batches_from_the_command_line(cli: Cli, index: Path, server: BatchServer) -> None:
    def half(lines: Any) -> Ending:
        return Ending("expired", [answered(line) for line in lines[:3]], [expired(line) for line in lines[3:]])

    server.plan = [half]
    dry = cli("caption", "--index", "c", "--batch", "--dry-run", "--json")
    live = cli("caption", "--index", "c", "--dry-run", "--json")
    assert dry.document["plan"]["expected_cost_usd"] == pytest.approx(live.document["plan"]["expected_cost_usd"] / 2)
    assert server.others == []
    sent = cli("caption", "--index", "c", "--batch", "--json")
    assert sent.code == 0, sent.err
    assert (sent.document["asked"], sent.document["pending"], sent.document["made"]) == (GARMENTS, GARMENTS, 0)
    assert "--batch --resume" in cli("caption", "--index", "c", "--batch").err  # again: nothing is submitted twice
    assert len(server.batches) == 1 + 1  # the second was submitted again for what had expired, when that was seen
    assert server.paid.total() == 3
    plain = cli("caption", "--index", "c", "--status", "--json").document
    assert (plain["without"], len(plain["batches"])) == (3, 1)
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert done.code == 0, done.err
    assert (done.document["made"], done.document["pending"]) == (3, 0)
    assert done.document["cost_usd"] == pytest.approx(3 * EACH / 2)
    assert set(server.paid.values()) == {1}
    assert all(captions(index).values())
    assert server.requests == []
    assert cli("caption", "--index", "c", "--batch", "--resume", "--json").document["pending"] == 0
    assert len(server.batches) == 2


def test_a_batch_asks_anew_and_serves_that_days_later(cli: Cli, index: Path, server: BatchServer) -> None:
    cli("caption", "--index", "c", "--quiet")
    before = captions(index)

    def fresh(lines: Any) -> Ending:
        content = []
        for line in lines:
            said = json.loads(answered(line)["response"]["body"]["choices"][0]["message"]["content"])
            content.append(answered(line, json.dumps(said | {"caption_en": "A fresh garment"}, ensure_ascii=False)))
        return Ending(output=content)

    server.plan = [fresh]
    assert cli("caption", "--index", "c", "--batch", "--recaption", "all", "--json").document["pending"] == GARMENTS
    assert captions(index) == before
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert done.document["published"] == GARMENTS
    assert set(captions(index).values()) == {"A fresh garment"}
    with CaptionCache(Path("data/captions.sqlite")) as cache:
        assert cache.recaptions() == {}


def test_options_that_do_not_go_together_are_refused(cli: Cli, index: Path, server: OpenAIServer) -> None:
    for words, said in (
        (("--batch", "--captioner", "local"), "--batch is for OpenAI; the local captioner does not need it"),
        (("--resume",), "--resume, --wait and --discard-unsent need --batch"),
        (("--wait",), "--resume, --wait and --discard-unsent need --batch"),
        (("--discard-unsent",), "--resume, --wait and --discard-unsent need --batch"),
        (("--recaption", ","), "--recaption is empty"),
        (("--only-missing", "--recaption", "top"), "--only-missing cannot be combined with --recaption or --retry"),
        (("--only-missing", "--retry", "failed"), "--only-missing cannot be combined with --recaption or --retry"),
        (
            ("--import-captions", "other"),
            "--import-captions takes no photos and no --index: it imports for all catalogues",
        ),
        *(
            (
                ("photos/p0.jpg", *words),
                "with photos, only --index, --captioner and --limit are allowed",
            )
            for words in (
                ("--batch",),
                ("--status",),
                ("--dry-run",),
                ("--recaption", "top"),
                ("--retry", "failed"),
                ("--max-cost", "0"),
            )
        ),
    ):
        done = cli("caption", "--index", "c", *words)
        assert (done.code, done.out) == (2, ""), words
        assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [f"error: {said}"]
    assert server.requests == []
    assert set(captions(index).values()) == {""}


def test_photos_by_themselves_as_many_as_the_limit_says(cli: Cli, index: Path, server: OpenAIServer) -> None:
    done = cli("caption", "photos/p0.jpg", "photos/p1.jpg", "--index", "c", "--limit", "1", "--json")
    assert done.code == 0, done.err
    assert [one["photo"] for one in done.document["photos"]] == ["photos/p0.jpg"]
    assert "give photos, or a catalogue with --index" in cli("caption").err


def test_a_second_captioner_of_the_same_catalogue_is_busy(cli: Cli, index: Path, server: OpenAIServer) -> None:
    from fashionrec.common.files import locked

    with locked(index / ".captions.lock", "is captioning c"):
        assert cli("caption", "--index", "c").code == 75
    assert server.requests == []


def test_the_key_is_in_no_file_log_or_output(
    cli: Cli, index: Path, server: BatchServer, tmp_path: Path, user_cache: Path
) -> None:
    echoes: list[Reply] = [
        error(500, f"key {CANARY} caused this"),
        Reply(body=completion(None, refusal=f"I will not use {CANARY}")),
        Reply(body=completion(f"not JSON: {CANARY}")),
        success(caption_en=f"A {CANARY} top"),
        error(400, f"bad header Authorization: Bearer {CANARY}", code="invalid_image"),
    ]

    def script(request: Recorded, number: int) -> Reply:
        return echoes[number % len(echoes)]

    server.script = script
    said = []
    for words in ((), ("--retry", "failed", "--debug"), ("--status",), ("--status", "--json")):
        done = cli("caption", "--index", "c", *words)
        said += [done.out, done.err]
    server.script = [error(401, f"Incorrect API key provided: {CANARY}", code="invalid_api_key")]
    done = cli("caption", "--index", "c", "--recaption", "all", "--debug")
    assert done.code == 1
    said += [done.out, done.err]

    def wrong(lines: Any) -> Ending:
        return Ending("failed", wrong=[{"code": "invalid", "message": f"the key {CANARY} is odd"}])

    server.plan = [wrong, wrong, wrong]
    for _ in range(4):
        done = cli("caption", "--index", "c", "--batch", "--recaption", "all", "--debug", "--json")
        said += [done.out, done.err]
    assert server.paid.total() == 0
    assert server.requests
    written = [path for folder in (tmp_path, user_cache) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"captions.sqlite", "items.sqlite"}
    for path in written:
        assert b"canary" not in path.read_bytes(), path
    assert "canary" not in "".join(said)
    assert "Incorrect API key provided: [key]" in "".join(said)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.sqlite"))
    for what in (b"A [key] top", b"invalid: the key [key] is odd"):
        assert what in kept, what  # the rest of what was said stays


def test_a_caption_is_found_by_every_word_for_what_it_says(
    cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path
) -> None:
    server.script = [success(pattern="dot", color="navy")]
    cli("caption", "--index", "c", "--quiet")

    def found(root: Path, word: str) -> int:
        with Catalogue.open(root) as catalogue:
            return len(catalogue.items.text_search(word, 50))

    assert found(index, "땡땡이") == found(index, "남색") == found(index, "polka-dot") == GARMENTS
    two_halves(tmp_path / "photos" / "new.jpg", "red", "white", (150, 90))
    assert cli("build-index", "photos", "--index", "c", "--quiet").code == 0
    assert found(index, "땡땡이") == GARMENTS  # a build keeps the words
    pytest.importorskip("pyarrow")
    assert cli("catalogue", "export", "x", "--index", "c").code == 0
    assert cli("catalogue", "import", "x", "--index", "y").code == 0
    assert found(tmp_path / "y", "땡땡이") == GARMENTS


def test_a_catalogue_of_before_such_words_is_read_and_grows(cli: Cli, index: Path, server: OpenAIServer) -> None:
    from fashionrec.store.item_writer import ItemWriter
    from fashionrec.store.items import ItemReader

    cli("caption", "--index", "c", "--quiet")
    with Catalogue.open(index) as catalogue:
        old = index.parent / "old.sqlite"
        assert catalogue.generation.changes_path is not None
        shutil.copy(catalogue.generation.changes_path, old)  # every photo has a caption now
        photo = next(iter(catalogue.items.everything())).photo
    with sqlite3.connect(old) as db:
        db.execute("DROP TABLE caption_words")
    reader = ItemReader(old)
    (row,) = reader.captions(photo).values()
    assert (row.words, row.searched) == ("", f"{row.caption_en} {row.caption_ko}")
    reader.close()
    ItemWriter(index.parent / "new.sqlite", old).close()
    again = ItemReader(index.parent / "new.sqlite")
    assert again.captions(photo) == {0: row}
    again.close()


def test_what_a_catalogue_from_elsewhere_was_told_is_the_projects_from_then_on(
    cli: Cli, index: Path, server: OpenAIServer
) -> None:
    cli("caption", "--index", "c", "--quiet")
    shutil.rmtree("data")  # as on another machine
    assert cli("caption", "--index", "c", "--json").document["kept"] == GARMENTS
    assert cli("build-index", "photos", "--index", "d", *MODELS, "--quiet").code == 0
    assert cli("caption", "--index", "d", "--json").document["reused"] == GARMENTS
    assert len(server.requests) == GARMENTS


def test_a_products_photo_of_several_garments_has_a_sentence(
    cli: Cli, index: Path, server: OpenAIServer, tmp_path: Path
) -> None:
    two_halves(tmp_path / "both" / "look.jpg", "red", "blue")
    assert cli("build-index", "both", "--index", "b", *MODELS, "--quiet").code == 0
    cli("caption", "--index", "b", "--quiet")
    shown = cli("catalogue", "show", "b", "--product", "look.jpg", "--json").document
    (said,) = shown["outfits"].values()
    assert said["en"].startswith("A black T-shirt and black ")
    assert said["ko"] in cli("catalogue", "show", "b", "--product", "look.jpg").out
