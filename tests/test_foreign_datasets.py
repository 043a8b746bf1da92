"""Training on a data set of somebody else: nothing of it runs, nothing in it changes, and it is
what it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest
import yaml
from conftest import Result
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.errors import DataError
from fashionrec.labels.data_yaml import read_data_yaml, write_own_yaml
from fashionrec.models.runs import read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def train(cli: Callable[..., Result], data: Path, name: str, *words: str) -> Result:
    return cli("train", f"data={data}", f"model={TINY_MODEL}", "epochs=1", f"name={name}", *FAST, *words)


@pytest.mark.parametrize("words", [(), ("cache=disk",), ("cache=ram",)], ids=["plain", "disk", "ram"])
def test_nothing_of_a_dataset_runs_and_nothing_in_it_changes(
    words: tuple[str, ...], cli: Callable[..., Result], tmp_path: Path
) -> None:
    import torch

    from fashionrec.detector.training.pickles import load_pickle

    data = dataset(tmp_path / "d", {"train": 8, "valid": 4})
    assert train(cli, data, "before", *words).code == 0
    hostile.planted_dataset(data, tmp_path)
    (data.parent / "train" / "images" / "train00.npy").unlink()
    planted = content(data.parent)
    done = train(cli, data, "after", *words)
    assert done.code == 0, done.err
    assert hostile.ran(tmp_path) == []
    assert content(data.parent) == planted
    assert not list((tmp_path / "runs" / "train" / "after").rglob(".pixels*"))
    before, after = (
        load_pickle(read_run(tmp_path / "runs" / "train" / name).weights_path("last"))["model"].state_dict()
        for name in ("before", "after")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "download",
    ["{code}", "bash {folder}/run.sh", "https://127.0.0.1:1/x.zip"],
    ids=["python", "bash", "address"],
)
@pytest.mark.parametrize("missing", ["folder", "list", "photo"])
def test_a_download_is_not_run_where_photos_are_missing(
    missing: str, download: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    data = dataset(tmp_path / "d", {"train": 4, "valid": 4})
    (tmp_path / "run.sh").write_text(f"mkdir {tmp_path / hostile.CANARY}\n")
    document = yaml.safe_load(data.read_text())
    document["download"] = download.format(code=hostile.python_code(tmp_path), folder=tmp_path)
    if missing == "folder":
        document["val"] = "nowhere/images"
    else:
        (data.parent / "list.txt").write_text("valid/images/valid00.png\nvalid/images/none.png\n")
        document["val"] = "none.txt" if missing == "list" else "list.txt"
    data.write_text(yaml.safe_dump(document))
    done = train(cli, data, "x")
    assert done.code == 2, done.err
    assert "missing" in done.err
    assert hostile.ran(tmp_path) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("download", ["{code}", "bash {folder}/run.sh"], ids=["python", "bash"])
def test_a_download_is_not_run_where_ultralytics_alone_would_miss_the_photos(
    download: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    data = dataset(tmp_path / "d", {"train": 4, "valid": 4})
    (tmp_path / "run.sh").write_text(f"mkdir {tmp_path / hostile.CANARY}\n")
    document = yaml.safe_load(data.read_text())
    document |= {"path": "nowhere", "download": download.format(code=hostile.python_code(tmp_path), folder=tmp_path)}
    data.write_text(yaml.safe_dump(document))
    assert train(cli, data, "x").code == 0  # the photos lie beside the data.yaml
    assert hostile.ran(tmp_path) == []


def test_what_ultralytics_reads_is_three_keys_of_our_own(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", {"train": 2, "valid": 2, "test": 2})
    hostile.planted_dataset(data, tmp_path)
    with data.open("a") as file:
        file.write("channels: 1\nkpt_shape: [17, 3]\nmasks_dir: masks\nminival: x\n")
    own = write_own_yaml(read_data_yaml(data), tmp_path / "own")
    document = yaml.safe_load(own.read_text())
    assert sorted(document) == ["names", "path", "test", "train", "val"]
    assert document["names"] == read_data_yaml(data).names
    for key in ("train", "val", "test"):
        listing = Path(document[key])
        assert listing.parent == tmp_path / "own"
        assert all(Path(line).is_absolute() and Path(line).is_file() for line in listing.read_text().splitlines())


@pytest.mark.parametrize("name", ["a\u2028b.png", "a\x0bb.png", "a\nb.png"])
def test_a_name_that_would_be_two_lines_of_a_list_is_refused(name: str, tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", {"train": 2, "valid": 2})
    photo = next((data.parent / "train" / "images").iterdir())
    photo.rename(photo.with_name(name))
    with pytest.raises(DataError, match="a list cannot contain"):
        write_own_yaml(read_data_yaml(data), tmp_path / "own")


def test_a_jpeg_without_its_end_is_trained_on_and_not_rewritten(cli: Callable[..., Result], tmp_path: Path) -> None:
    from PIL import Image

    data = dataset(tmp_path / "d", {"train": 4, "valid": 4})
    for photo in (data.parent / "train" / "images").iterdir():
        with Image.open(photo) as image:
            image.save(photo.with_suffix(".jpg"))
        photo.unlink()
        photo.with_suffix(".jpg").write_bytes(photo.with_suffix(".jpg").read_bytes() + b"trailing")
    before = content(data.parent)
    done = train(cli, data, "x")
    assert done.code == 0, done.err
    assert content(data.parent) == before


def test_a_finetune_runs_nothing_of_its_data_or_of_what_it_replays(cli: Callable[..., Result], tmp_path: Path) -> None:
    old = dataset(tmp_path / "old", {"train": 8, "valid": 4, "test": 4})
    assert train(cli, old, "base").code == 0
    new = dataset(tmp_path / "new", {"train": 4, "valid": 4, "test": 4}, seed=1)
    for data in (old, new):
        hostile.planted_dataset(data, tmp_path)
    planted = content(tmp_path / "new") | content(tmp_path / "old")
    words = ("name=ft", "epochs=1", "resamples=100", *FAST)
    done = cli("finetune", "--weights", tmp_path / "runs/train/base", "--data", new, "--replay", old, *words)
    assert done.code in (0, 3), done.err
    assert hostile.ran(tmp_path) == []
    assert content(tmp_path / "new") | content(tmp_path / "old") == planted
