"""Test where the training of a family without a trainer of its own starts: anew, from published
weights, or from a checkpoint.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_family_parts import ABOUT, Small, Toys, refused, same, settings
from test_family_parts import data as data  # a fixture

from fashionrec.config import load_config
from fashionrec.errors import ConfigError, ModelError
from fashionrec.labels.data_yaml import dataset_fingerprint
from fashionrec.models.runs import read_run

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train

from fashionrec.detector.training.families import STATE, plain  # noqa: E402
from fashionrec.detector.training.families.checkpoint import About, save_weights  # noqa: E402

VERSIONS = {"torch": importlib.metadata.version("torch")}
PIXELS = {"equalize": True}


def begun(folder: Path, data: Path, *words: str, pixels: bool = False) -> tuple[Any, About, Toys, list[str]]:
    """The learner, what is said of it, the family that built it, and what was logged."""
    told: list[str] = []
    family = Toys()
    run: Any = SimpleNamespace(path=folder, dataset={"pixels": PIXELS} if pixels else {})
    learner, about = plain.begin(family, run, settings(data, *words), data, told.append)
    return learner, about, family, told


def names_of(data: Path) -> dict[int, str]:
    from fashionrec.labels.data_yaml import read_data_yaml

    return read_data_yaml(data).names


def test_from_scratch_the_seed_alone_decides(data: Path, tmp_path: Path) -> None:
    (first, about, family, told), (again, *_), (other, *_) = (
        begun(tmp_path, data, "pretrained=false", "model=a/Toy_1", f"seed={seed}") for seed in (3, 3, 4)
    )
    assert about == About("toy", "toy_1", names_of(data), 64, {}, VERSIONS, {})
    assert told == ["toy_1 from scratch"]
    assert family.built == [about]
    assert same(first.model, again.model)
    assert not same(first.model, other.model)
    assert begun(tmp_path, data, "pretrained=false", pixels=True)[1].pixels == PIXELS


def test_from_published_weights_where_nothing_else_is_named(data: Path, tmp_path: Path) -> None:
    learner, about, _, told = begun(tmp_path, data, "model=toy_1")
    assert told == ["toy_1 starts from weights of the world"]
    assert about.notes == {"pretrained": True}
    assert set(learner.model.head.bias.tolist()) == {7.0}


def test_from_a_checkpoint_of_ours(data: Path, tmp_path: Path) -> None:
    """Its model and its notes are kept; its size and the names of its classes are those of this
    training.
    """
    source, old = tmp_path / "mine.safetensors", Small()
    earlier = replace(ABOUT, model="Toy_9", names={0: "hat", 1: "shoe"}, imgsz=32, notes={"frozen": 3}, pixels={})
    save_weights(source, old, earlier)
    learner, about, family, told = begun(tmp_path, data, f"model={source}", "imgsz=96", pixels=True)
    assert about == About("toy", "Toy_9", names_of(data), 96, PIXELS, VERSIONS, {"frozen": 3})
    assert told == [f"continuing from {source}, except its class layers, whose classes differ"]
    assert family.built == [about, earlier]
    assert torch.equal(learner.model.body.weight, old.body.weight)


def test_where_it_was_stopped(data: Path, tmp_path: Path) -> None:
    """The loop loads the weights of the state; it is built as the state says."""
    (tmp_path / "weights").mkdir()
    stopped = replace(ABOUT, model="toy_5", imgsz=32)
    save_weights(tmp_path / "weights" / STATE, Small(), stopped)
    for words in ((), ("pretrained=false",)):
        _, about, family, told = begun(tmp_path, data, *words)
        assert (about, family.built, told) == (stopped, [stopped], [])


def stopped_at_the_loop(family: Any, data: Path, runs: Path, *words: str) -> None:
    def stop(*_: Any) -> Any:
        raise ConfigError("as far as the loop")

    limits = load_config(env={}).config.images
    plain.train_in_run(family, settings(data, *words), runs, limits=limits, evaluate=stop, log=stop)


def test_a_checkpoint_that_does_not_fit_is_refused_before_there_is_a_run(data: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine.safetensors"
    save_weights(source, Small(3), ABOUT)
    said, _ = refused(ModelError, stopped_at_the_loop, Toys(), data, tmp_path / "runs", f"model={source}")
    assert said.startswith(f"{source} is incomplete: ")
    assert not (tmp_path / "runs").exists()


def test_a_run_says_how_its_photos_were_prepared_and_begins_without_what_was_left(data: Path, tmp_path: Path) -> None:
    (data.parent / "dataset.json").write_text(json.dumps({"pixels": PIXELS}))
    weights = tmp_path / "runs" / "train" / "r" / "weights"
    words = ("name=r", "pretrained=false", "epochs=1", "exist_ok=true")
    for _ in range(2):
        with pytest.raises(ConfigError, match="as far as the loop"):
            stopped_at_the_loop(Toys(), data, tmp_path / "runs", *words)
        run = read_run(weights.parent)
        assert run.dataset == {
            "path": str(data),
            "fingerprint": dataset_fingerprint(data),
            "valid": dataset_fingerprint(data, ("valid",)),
            "pixels": PIXELS,
        }
        assert (run.kind, run.verb, run.status, run.promoted, "resumed" in run.notes) == (
            *("detector", "train", "failed", False, False),
        )
        assert list(weights.iterdir()) == []
        save_weights(weights / STATE, Small(), replace(ABOUT, model="of the run before"))
