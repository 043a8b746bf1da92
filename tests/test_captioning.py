"""Captions of a catalogue: local and by an API, recorded once, searchable, failures
never captions.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result

from fashionrec import Catalogue

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


@pytest.fixture
def index(cli: Cli, tmp_path: Path) -> Path:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    rows = ["image,product_id,color"]
    rows += [
        f"photos/{name}.jpg,{name},{colour}"
        for name, colour in [("red-white", "red"), ("white-blue", "blue"), ("green", "green")]
    ]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    assert cli("build-index", "p.csv", "--index", "c", *MODELS, "--quiet").code == 0
    return tmp_path / "c"


def test_local_captions_are_made_once_kept_and_searchable(cli: Cli, index: Path) -> None:
    done = cli("caption", "--index", "c", "--captioner", "local", "--json")
    assert done.code == 0, done.err
    assert (done.document["made"], done.document["failed"]) == (3, 0)
    assert "nothing is sent anywhere" in done.err
    with Catalogue.open(index) as catalogue:
        items = {s.item.product_id: s for s in catalogue.items.everything()}
        assert items["red-white"].item.attributes["color"] == "red"
        assert "red" in items["red-white"].captions["en"]
        assert "레드" in items["red-white"].captions["ko"] or "빨" in items["red-white"].captions["ko"]
        assert len(catalogue.captions) == 3
        catalogue.generation.check(contents=True)
    again = cli("caption", "--index", "c", "--captioner", "local", "--json")
    assert (again.document["made"], again.document["kept"]) == (0, 3)
    word = items["white-blue"].captions["ko"].split()[0]
    asked = cli("query", "--text", word, "--index", "c", "--json")
    assert asked.document["garments"][0]["hits"][0]["product_id"] == "white-blue"


def test_captions_survive_a_rebuild_that_changes_only_metadata(cli: Cli, index: Path, tmp_path: Path) -> None:
    cli("caption", "--index", "c", "--captioner", "local", "--quiet")
    table = tmp_path / "p.csv"
    table.write_text(table.read_text().replace("image,product_id,color", "image,product_id,colour_name"))
    assert cli("build-index", "p.csv", "--index", "c", "--quiet").code == 0
    with Catalogue.open(index) as catalogue:
        assert catalogue.counts["captions"] == 3
        assert all(s.item.caption for s in catalogue.items.everything())
        catalogue.generation.check(contents=True)


def test_a_query_can_describe_its_garments_locally_and_fuse_that_text(cli: Cli, index: Path) -> None:
    cli("caption", "--index", "c", "--captioner", "local", "--quiet")
    done = cli("query", "photos/red-white.jpg", "--index", "c", "--caption", "--json")
    assert done.code == 0, done.err
    (garment,) = done.document["garments"]
    assert "red" in garment["caption"]
    assert garment["hits"][0]["product_id"] == "red-white"
    assert done.document["timings_ms"]["caption"] > 0


def test_photos_can_be_captioned_by_themselves(cli: Cli, index: Path) -> None:
    done = cli("caption", "photos/red-blue.jpg", "photos/none.jpg", "--index", "c", "--captioner", "local", "--json")
    assert done.code == 1
    first, second = done.document["photos"]
    assert [g["class_name"] for g in first["garments"]] == ["top", "pants"]
    assert all(g["captioner"] == "local" and g["caption_ko"] for g in first["garments"])
    assert second["reason"] == "missing"


def test_an_api_is_asked_once_per_garment_and_failures_are_no_captions(
    cli: Cli, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai_server import OpenAIServer, Reply, completion, success

    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123456789")
    refusal = Reply(body=completion(None, refusal="I cannot help with that."))
    with OpenAIServer([success(), refusal, success()]) as server:
        options = (
            "--captioner",
            "openai",
            "--set",
            f"captioner.base_url={server.base_url}",
            "--set",
            "captioner.concurrency=1",
        )
        done = cli("caption", "--index", "c", *options, "--json")
        assert done.code == 1
        assert done.document["states"] == {"done": 2, "refused": 1}
        assert "sent there" in done.err
        assert len(server.requests) == 3
        again = cli("caption", "--index", "c", *options, "--json")
        assert len(server.requests) == 3  # what was answered, even by a refusal, is not asked again
        assert again.document["kept"] == 2
    with Catalogue.open(index) as catalogue:
        assert sum(bool(s.item.caption) for s in catalogue.items.everything()) == 2
    assert "canary" not in done.out + done.err
    for path in index.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_customer_photos_reach_no_api_unless_it_is_asked_for(
    cli: Cli, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai_server import OpenAIServer

    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123456789")
    with OpenAIServer() as server:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        for caption in ((), ("--caption",), ("--captioner", "local"), ("--captioner", "auto")):
            assert cli("query", "photos/red-white.jpg", "--index", "c", *caption, "--json").code == 0
        assert server.requests == server.others == []
        assert cli("query", "photos/red-white.jpg", "--index", "c", "--captioner", "openai", "--json").code == 0
        assert len(server.requests) == 1
        monkeypatch.setenv("FASHIONREC_QUERY__CAPTION", "openai")  # asked for by the config: --caption keeps to it
        assert cli("query", "photos/red-white.jpg", "--index", "c", "--no-caption", "--json").code == 0
        assert len(server.requests) == 1
        assert cli("query", "photos/red-white.jpg", "--index", "c", "--caption", "--json").code == 0
        assert len(server.requests) == 2
    assert cli("query", "photos/red-white.jpg", "--index", "c", "--no-caption", "--captioner", "local").code == 2
