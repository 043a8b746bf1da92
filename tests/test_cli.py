"""The command line: contracts, exit codes, one-line errors with a hint, and nothing but results on
stdout.
"""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import command_line
import filelock
import pytest
from conftest import TINY, Result, keeps_its_contract
from PIL import Image

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


def test_help_names_every_verb(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for verb in (
        "fetch-dataset",
        "train",
        "finetune",
        "evaluate",
        "build-index",
        "caption",
        "query",
        "export",
        "demo",
        "doctor",
    ):
        assert f"  {verb} " in done.out
    assert cli("--version").out.startswith("fashionrec 0.")


def test_build_query_evaluate_verify(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    built = cli("build-index", "photos", "--index", "c", *MODELS, "--json")
    assert built.code == 0, built.err
    assert built.document["items"] == 8
    keeps_its_contract("build-index", built.document)
    assert "detector:" in built.err
    asked = cli("query", "photos/red-blue.jpg", "--index", "c", "--json", "--html", "answer.html", "-k", "2")
    assert asked.code == 0, asked.err
    assert [g["class_name"] for g in asked.document["garments"]] == ["top", "pants"]
    assert len(asked.document["garments"][0]["hits"]) == 2
    assert (tmp_path / "answer.html").read_text().startswith("<!doctype html>")
    for garment, found in (("0", ["top"]), ("1", ["pants"]), ("pants", ["pants"]), ("all", ["top", "pants"])):
        one = cli("query", "photos/red-blue.jpg", "--index", "c", "--garment", garment, "--json")
        assert [g["class_name"] for g in one.document["garments"]] == found, one.err
    for garment in ("culottes", "2"):
        assert cli("query", "photos/red-blue.jpg", "--index", "c", "--garment", garment).code == 2
    human = cli("query", "photos/green.jpg", "--index", "c")
    assert "green.jpg" in human.out
    assert "whole photo" in human.err
    assert "next:" in human.err
    (tmp_path / "q.csv").write_text("image,product_id\nphotos/green.jpg,green.jpg\nphotos/red-blue.jpg,red-blue.jpg\n")
    scores = cli("evaluate", "--index", "c", "--queries", "q.csv", "--json")
    assert scores.code == 0, scores.err
    assert scores.document["recall_at_1"] == 1.0
    keeps_its_contract("evaluate-index", scores.document)
    assert cli("catalogue", "verify", "c").code == 0
    assert cli("catalogue", "show", "c", "--json").document["counts"]["products"] == 6
    assert cli("doctor", "--index", "c", "--json").document["catalogue"]["status"] == "healthy"


def test_the_catalogue_is_found_and_the_choice_is_said(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    assert cli("query", "photos/green.jpg").code == 2
    for name in ("data/one", "data/two"):
        assert cli("build-index", "photos", "--index", name, *MODELS, "--quiet").code == 0
        only = cli("query", "photos/green.jpg", "--json")
        if name == "data/one":
            assert only.code == 0
            assert "data/one (the only one" in only.err
    assert only.code == 2
    assert "2 catalogues" in only.err
    monkeypatch.setenv("FASHIONREC_INDEX", "data/two")
    chosen = cli("query", "photos/green.jpg", "--json")
    assert chosen.code == 0
    assert "data/two (environment FASHIONREC_INDEX)" in chosen.err


@pytest.fixture(scope="module")
def misused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with photos, a catalogue of them, an encoder that was cut off, and settings
    that are none.
    """
    folder = tmp_path_factory.mktemp("misused")
    shutil.copytree(TINY / "photos", folder / "photos")
    shutil.copytree(TINY / "embedder", folder / "cut")
    (folder / "cut" / "image.onnx").write_bytes(b"half")
    (folder / "empty").mkdir()
    (folder / "wrong.yaml").write_text("train: {epoch: 3}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("FASHIONREC_BUILD__WORKERS", "1")
        built = command_line.invoke(["build-index", "photos", "--index", "c", *MODELS, "--quiet"])
    assert built.exit_code == 0, built.stderr
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("query",), 2, "give a photo or --text"),
        (("query", "none.jpg", "--index", "c"), 2, "no photo at"),
        (("query", "photos/green.jpg", "--index", "nowhere"), 2, "no catalogue at"),
        (("query", "photos/green.jpg", "--index", "photos"), 2, "not a catalogue"),
        (("query", "photos/green.jpg", "--index", "c", "--garment", "hat"), 2, "no garment is called"),
        (("query", "photos/green.jpg", "--index", "c", "--html", "no/where.html"), 2, "no folder"),
        (("query", "photos/green.jpg", "--index", "c", "--set", "query.kk=3"), 2, "unknown setting query.kk"),
        (("query", "photos/green.jpg", "--index", "c", "--config", "wrong.yaml"), 2, "unknown setting train.epoch"),
        (("query", "photos/green.jpg", "--index", "c", "--config", "none.yaml"), 2, "no config file"),
        (("query", "empty", "--index", "c"), 2, "no photos in empty"),
        (("build-index", "nowhere", "--index", "d"), 2, "no photos at"),
        (("build-index", "empty", "--index", "d", *MODELS), 2, "no photos in"),
        (("build-index", "photos", "--index", "d", "--detector", "none.pt"), 2, "no detector at"),
        (("build-index", "photos", "--index", "d", "--detector", TINY / "embedder"), 2, "not a detector"),
        (("build-index", "photos", "--index", "d"), 2, "no detector is named"),
        (("build-index", "photos", "--index", "d", "--detector", "none", "--embedder", "cut"), 2, "is damaged"),
        (("build-index", "photos", "--index", "empty/../photos", *MODELS), 2, "not empty"),
        (("evaluate",), 2, "say what to evaluate"),
        (("evaluate", "--weights", TINY / "detector", "--data", "none.yaml"), 2, "no dataset at"),
        (("evaluate", "--index", "c", "--queries", "none.csv"), 2, "no photos at"),
        (("train",), 2, "no data to train on"),
        (("train", "epochs"), 2, "what is 'epochs'"),
        pytest.param(("train", "data=none.yaml"), 2, "no dataset at", marks=pytest.mark.train),
        (("train", "mosiac=1"), 2, "unknown setting train.mosiac"),
        (("finetune", "--data", "x.yaml"), 2, "finetune needs weights and data"),
        (("finetune", "none.pt", "--data", "x.yaml"), 2, "no weights at none.pt"),
        pytest.param(
            ("finetune", "--weights", "none.pt", "--data", "x.yaml"), 2, "no weights at", marks=pytest.mark.train
        ),
        pytest.param(("export", "none.pt", "--out", "b"), 2, "no checkpoint at", marks=pytest.mark.train),
        (("fetch-dataset", "magic", "--out", "d"), 2, "no source is called"),
        (("fetch-dataset", "yolo:nowhere", "--out", "d"), 2, "no such file or folder: nowhere"),
        (("fetch-dataset", "synthetic", "--out", "photos"), 2, "not an empty"),
        (("fetch-dataset", "roboflow:a/b", "--out", "d"), 2, "WORKSPACE/PROJECT/VERSION"),
        (("fetch-dataset", "roboflow:a/b/1", "--out", "d"), 2, "ROBOFLOW_API_KEY is not set"),
        (("caption",), 2, "give photos, or a catalogue"),
        (("caption", "--index", "nowhere", "--captioner", "local"), 2, "no catalogue at"),
        (("catalogue", "show", "nowhere"), 2, "no catalogue at"),
        (("query", "--no-such-flag"), 2, "No such option"),
    ],
)
def test_wrong_use_is_one_line_and_a_hint_and_leaves_nothing_half_written(
    cli: Cli, tmp_path: Path, misused: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    shutil.copytree(misused, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = cli(*arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if not path.name.endswith(".lock")}
    assert set(after) <= set(before), "something was written"


def test_a_catalogue_of_another_version_says_so(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    cli("build-index", "photos", "--index", "c", *MODELS, "--quiet")
    pointer = tmp_path / "c" / "catalogue.json"
    pointer.write_text(pointer.read_text().replace('"format_version": 3', '"format_version": 4'))
    done = cli("query", "photos/green.jpg", "--index", "c")
    assert done.code == 2
    assert "format 4" in done.err
    assert "hint:" in done.err


def test_a_build_may_end_in_captions(cli: Cli, photos: Path) -> None:
    build = ("build-index", photos, "--index", "c", *MODELS, "--json")
    assert "captions" not in cli(*build).document
    done = cli(*build, "--set", "build.caption=local")
    assert done.code == 0, done.err
    assert (done.document["captions"]["made"], done.document["captions"]["failed"]) == (8, 0)
    assert cli("catalogue", "show", "c", "--json").document["counts"]["captions"] == 8


def test_too_many_failures_finish_and_exit_3(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(TINY / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_text("no")
    done = cli("build-index", "photos", "--index", "c", *MODELS, "--json")
    assert done.code == 3
    assert done.document["failed"] == 1
    assert done.document["failures"][0]["reason"] == "not-an-image"
    assert cli("query", "photos/green.jpg", "--index", "c", "--json").code == 0
    fine = cli("build-index", "photos", "--index", "c", *MODELS, "--set", "build.max_failures=0.5", "--json")
    assert fine.code == 0


def test_a_busy_catalogue_is_exit_75(cli: Cli, tmp_path: Path) -> None:
    from fashionrec.store.generations import writer_lock

    shutil.copytree(TINY / "photos", tmp_path / "photos")
    with writer_lock(tmp_path / "c"):
        done = cli("build-index", "photos", "--index", "c", *MODELS)
    assert done.code == 75
    assert "another process" in done.err


def in_place_of_the_lock(error: BaseException) -> Callable[..., None]:
    def acquire(*_: object, **__: object) -> None:
        raise error

    return acquire


def test_an_interrupt_is_exit_130(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", in_place_of_the_lock(KeyboardInterrupt()))
    assert cli("build-index", photos, "--index", "c", *MODELS).code == 130


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", in_place_of_the_lock(ZeroDivisionError("planted")))
    build = ("build-index", photos, "--index", "c", *MODELS)
    done = cli(*build)
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert "ZeroDivisionError: planted" in done.err
    assert "Traceback" in cli(*build, "--debug").err


def test_config_show_says_where_a_value_came_from(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("query: {k: 7}\n")
    done = cli("config", "show", "query", "--config", "mine.yaml", "--set", "query.min_score=0.1", "--json")
    assert done.document["query.k"] == {"value": 7, "origin": "mine.yaml"}
    assert done.document["query.min_score"]["origin"] == "--set query.min_score=0.1"
    assert done.document["query.garment"]["origin"] == "default"


def test_doctor_tells_whether_keys_are_there_and_never_what_they_are(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    done = cli("doctor", "--json")
    assert done.document["keys"] == {"OPENAI_API_KEY": True, "ROBOFLOW_API_KEY": False}
    assert "canary" not in done.out + done.err


VERSIONS = {
    **dict.fromkeys(("typer", "rich", "pydantic", "PyYAML", "numpy", "Pillow", "faiss-cpu", "tokenizers"), "1.0"),
    **{"onnxruntime": "1.2", "openai": "3", "torch": "2.1", "ultralytics": "8.3"},
}
DOCTOR = """\
Python {python}, {cores} cores
serving:
  typer          1.0
  rich           1.0
  pydantic       1.0
  PyYAML         1.0
  numpy          1.0
  Pillow         1.0
  onnxruntime    1.2
  faiss-cpu      1.0
  tokenizers     1.0
  openai         3
training:
  torch          2.1
  torchvision    not installed
  ultralytics    8.3
  transformers   not installed
  onnx           not installed
  roboflow       not installed
  pandas         not installed
  pyarrow        not installed
inference on: FirstProvider, SecondProvider
OPENAI_API_KEY: set (captions by GPT-4o)
ROBOFLOW_API_KEY: not set (fetch-dataset roboflow:...)
"""


def test_what_doctor_says_of_an_installation(cli: Cli, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    def said(*words: str, code: int) -> list[str]:
        done = cli("doctor", *words)
        assert done.code == code, done.err
        assert done.out.startswith(beginning)
        return [*done.out.removeprefix(beginning).splitlines(), *done.err.splitlines()]

    installed = dict(VERSIONS)
    beginning = DOCTOR.format(python=sys.version.split()[0], cores=os.cpu_count())
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["FirstProvider", "SecondProvider"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setitem(sys.modules, "cv2", None)
    torchvision = "torch is installed without torchvision: pip install 'fashionrec[train]'"
    cv2 = (
        "cv2 cannot be imported (import of cv2 halted; None in sys.modules):"
        " pip install --force-reinstall opencv-python-headless"
    )
    assert said(code=3) == [f"problem: {torchvision}", f"problem: {cv2}", "error: 2 problems found"]
    assert cli("doctor", "--json").document["problems"] == [torchvision, cv2]
    del installed["torch"], installed["ultralytics"]
    beginning = beginning.replace("torch          2.1", "torch          not installed")
    beginning = beginning.replace("ultralytics    8.3", "ultralytics    not installed")
    assert said(code=0) == ["no problems found", "next: fashionrec demo"]
    assert said("--index", "catalogue", code=0) == [
        "catalogue catalogue: healthy",
        "no problems found",
        "next: fashionrec query PHOTO --index catalogue",
    ]
    (catalogue / "catalogue.json").write_text("{")
    status, problem, error = said("--index", "catalogue", code=3)
    assert problem.startswith("problem: catalogue is damaged: catalogue/catalogue.json: ")
    assert status == f"catalogue catalogue: {problem.removeprefix('problem: ')}"
    assert error == "error: 1 problems found"
    broken = cli("doctor", "--index", "catalogue", "--json").document["catalogue"]
    assert broken == {"path": "catalogue", "status": problem.removeprefix("problem: "), "counts": {}}
    installed["onnxruntime-gpu"] = "1.2"
    assert said(code=3) == [
        "problem: onnxruntime and onnxruntime-gpu are both installed, which loses CUDA: uninstall both, install one again",
        "error: 1 problems found",
    ]
    del installed["onnxruntime"]
    beginning = beginning.replace("onnxruntime    1.2", "onnxruntime    not installed")
    beginning = beginning.replace("FirstProvider, SecondProvider", "nothing")
    assert said(code=3) == [
        "problem: onnxruntime is not installed: pip install fashionrec",
        "error: 1 problems found",
    ]
    assert cli("doctor", "--json").document["packages"] == {
        name: installed.get(name) for name in re.findall(r"(?m)^  (\S+)", beginning)
    }


def test_fetch_dataset_draws_a_world_with_its_table(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch-dataset", "synthetic", "--out", "w", "--images", "12", "--products", "6", "--seed", "3", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"]["train"] == 8
    assert done.document["products"] == "w/catalogue/products.csv"
    header = (tmp_path / "w" / "annotations.csv").read_text().splitlines()[0]
    assert header == (
        "image_id,image_path,width,height,class_id,class_name,bbox_x_center,bbox_y_center,bbox_width,bbox_height"
    )
    assert json.loads((tmp_path / "w" / "dataset.json").read_text())["fingerprint"] == done.document["fingerprint"]


def test_fetch_dataset_takes_a_yolo_dataset_and_renumbers_it_by_name(cli: Cli, tmp_path: Path) -> None:
    for sub in ("images", "labels"):
        (tmp_path / "src" / "train" / sub).mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "src/train/images/a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "src/train/images/b.png")
    (tmp_path / "src/train/images/c.png").write_bytes(b"broken")
    lines = [
        "0 .5 .5 .2 .2",
        "0 .5 .5 .2 .2",
        "1 .5 .5 .5 .5",
        "2 .9 .9 .4 .4",
        "0 .5 .5 0 0",
        "2 .1 .1 .5 .1 .5 .5 .1 .5",
    ]
    (tmp_path / "src/train/labels/a.txt").write_text("\n".join(lines))
    (tmp_path / "src/data.yaml").write_text("train: ../train/images\nnames: [top, hat, Pants]\n")
    done = cli("fetch-dataset", "yolo:src", "--out", "d", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"] == {"train": 2, "dress": 0, "pants": 2, "skirt&pants": 0, "skirt": 0, "top": 1}
    assert done.document["dropped"] == {"no-area": 1, "not-an-image": 1, "repeated-box": 1, "unknown-class": 1}
    assert done.document["fixed"] == {"beyond-edge": 1}
    assert done.document["kept"] == {"no-label-file": 1}
    labels = (tmp_path / "d/train/labels/a.txt").read_text().splitlines()
    assert labels == [
        "4 0.500000 0.500000 0.200000 0.200000",
        "1 0.850000 0.850000 0.300000 0.300000",
        "1 0.300000 0.300000 0.400000 0.400000",
    ]
    assert cli("fetch-dataset", "yolo:src", "--out", "d").code == 2


def test_yolo_habits_work_as_flags_do(cli: Cli) -> None:
    """`k=v` words are settings of the verb's section: a wrong one is refused by its full name."""
    done = cli("train", "data=x.yaml", "epochs=many")
    assert done.code == 2
    assert "train.epochs" in done.err


def test_that_check_would_catch_a_wrong_flag(cli: Cli) -> None:
    assert "--indx" not in cli("query", "--help").out


PHOTOS_ALONE = "photos by themselves take no other options than --index, --captioner and --limit"
IMPORTED = "--import-captions takes no photos and no --index: what it imports is there for all catalogues"
TWO = "two catalogues are compared as text, --json or --html"
#: The hint of an error, or of the command where several have the same error.
HINTS = {
    "--resume, --wait and --discard-unsent belong to --batch": "fashionrec caption --index C --batch --resume",
    "',' is not a state to ask again": "--retry failed,refused,filtered,truncated,invalid",
    "'failed,asleep' is not a state to ask again": "--retry failed,refused,filtered,truncated,invalid",
    "more than two catalogues are given": "--index A --index B compares two",
    "two catalogues are compared as text, --json or --html": "ask one of them for the rest",
    "--open needs --html FILE": "fashionrec query photo.jpg --html answer.html --open",
    "model is for detectors, and rows.csv trains an encoder": (
        "fashionrec finetune --weights CLIP --data TABLE starts from a CLIP"
    ),
    "the training of an encoder cannot be resumed": "train it anew, without resume",
    "no data to train on": "data=DIR/data.yaml, or a product table to train an encoder",
    "finetune needs weights and data": "fashionrec finetune --weights best.pt --data NEW/data.yaml",
    "imgsz is for detectors, and rows.csv trains an encoder": (
        "--set train_embedder.image_size=N is the side of a small CLIP's pictures"
    ),
    "--trust-pickle needs the weights on the command line": "--weights PATH.pt --trust-pickle",
    "fp16 is judged on photos of yours": "--images FOLDER",
    "--counts 1,2,3,4 is not three numbers": "train, valid, test, as in --counts 4177,400,200",
    "--counts 1/2 is not three numbers": "train, valid, test, as in --counts 4177,400,200",
    "a dataset cannot be exported to 'csv'": "--to coco, voc, or roboflow",
    "no product is named": "give ids, or --file with one id a line",
    "--force needs a reason": "--why TEXT, which is kept in run.json",
    "evaluate foo": "name what to evaluate with --weights and --data, or --index and --queries",
    "train foo": "settings are key=value, as in epochs=50",
    "export best.pt foo --out o": "settings are key=value, as in imgsz=640",
    "'b' is one word too many": "give the weights, then key=value settings",
    "--apply needs --ways": "fashionrec evaluate --index DIR --queries FILE --ways --apply",
    "say what to evaluate": (
        "a detector: --weights best.pt --data data.yaml; a search: --index DIR with --queries, --texts or --outfits"
    ),
    "--trust-pickle needs the model on the command line": "model=PATH.pt --trust-pickle",
    "there is no format 'zip'": "bundle",
    "taken is there already, and is no bundle": "choose another --out, or remove it",
    "TensorRT engine files are no longer written: no command serves them": (
        "export a bundle, and set project.device=tensorrt where it is served: ONNX Runtime builds the engine there"
    ),
    "--data is for detectors": "an encoder is checked on the photos of --images",
    "--counts 1,2 is not three numbers": "train, valid, test, as in --counts 4177,400,200",
    "--counts 1,2,x is not three numbers": "train, valid, test, as in --counts 4177,400,200",
    "--map shoe is not THEIRS=OURS": '--map "t-shirt=top", or "shoe=null" to drop it',
    "--map =top is not THEIRS=OURS": '--map "t-shirt=top", or "shoe=null" to drop it',
    "dataset export d --to coco": "fashionrec dataset export d --to coco --out DIR",
    "dataset export d --to voc": "fashionrec dataset export d --to voc --out DIR",
    "roboflow needs a target and a detector": (
        "--target WORKSPACE/PROJECT --weights best.pt; --dry-run says what would be sent"
    ),
    "there is no strategy 'x'": "auto, uncertain, or disagree",
    "compare needs models and data": "fashionrec compare --models yolov8n.yaml efficientdet_d0 --data DIR",
    "'a/b' cannot be a folder's name": "a path goes with --out",
    "'..' cannot be a folder's name": "a path goes with --out",
}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("doctor . --index c", "give either a folder or --index"),
        ("caption a.jpg --index c --batch", PHOTOS_ALONE),
        ("caption a.jpg --index c --status", PHOTOS_ALONE),
        ("caption a.jpg --index c --recaption all", PHOTOS_ALONE),
        ("caption a.jpg --index c --retry failed", PHOTOS_ALONE),
        ("caption a.jpg --index c --dry-run", PHOTOS_ALONE),
        ("caption a.jpg --index c --max-cost 0", PHOTOS_ALONE),
        ("caption --index c --resume", "--resume, --wait and --discard-unsent belong to --batch"),
        ("caption --index c --wait", "--resume, --wait and --discard-unsent belong to --batch"),
        ("caption --index c --discard-unsent", "--resume, --wait and --discard-unsent belong to --batch"),
        ("caption --index c --only-missing --recaption all", "--only-missing contradicts --recaption and --retry"),
        ("caption --index c --only-missing --retry failed", "--only-missing contradicts --recaption and --retry"),
        ("caption --index c --retry ,", "',' is not a state to ask again"),
        ("caption --index c --retry failed,asleep", "'failed,asleep' is not a state to ask again"),
        ("caption --import-captions f a.jpg", IMPORTED),
        ("caption --import-captions f --index c", IMPORTED),
        ("query a.jpg --index a --index b --index c", "more than two catalogues are given"),
        ("query a.jpg --index a --index b --csv a.csv", TWO),
        ("query a.jpg --index a --index b --xlsx a.xlsx", TWO),
        ("query a.jpg --index a --index b --jsonl", TWO),
        ("query a.jpg --index a --index b --save-crops a", TWO),
        ("query a.jpg --open", "--open needs --html FILE"),
        ("train data=rows.csv model=a.pt", "model is for detectors, and rows.csv trains an encoder"),
        ("train data=rows.csv --resume", "the training of an encoder cannot be resumed"),
        ("train model=a.pt", "no data to train on"),
        ("finetune --weights w", "finetune needs weights and data"),
        ("finetune --data d", "finetune needs weights and data"),
        ("finetune --data rows.csv --weights c imgsz=64", "imgsz is for detectors, and rows.csv trains an encoder"),
        (
            "finetune --data d --trust-pickle --set finetune.weights=w",
            "--trust-pickle is for a .pt file, and w is none",
        ),
        ("finetune --data d --config w.yaml --trust-pickle", "--trust-pickle needs the weights on the command line"),
        ("finetune --data d --weights w --trust-pickle", "--trust-pickle is for a .pt file, and w is none"),
        ("export clip --out o --images taken", "no photos in taken"),
        ("export best.pt --out o --images taken", "no photos in taken"),
        ("export clip --out o --precision fp16", "fp16 is judged on photos of yours"),
        ("fetch-dataset yolo:d --out o --counts 1,2,3,4", "--counts 1,2,3,4 is not three numbers"),
        ("fetch-dataset yolo:d --out o --counts 1/2", "--counts 1/2 is not three numbers"),
        ("dataset export d --to csv", "a dataset cannot be exported to 'csv'"),
        ("catalogue remove --index c", "no product is named"),
        ("runs promote a --force", "--force needs a reason"),
        ("query a.jpg --no-caption --captioner local", "--no-caption and --captioner contradict each other"),
        ("evaluate foo", "what is 'foo'?"),
        ("train foo", "what is 'foo'?"),
        ("export best.pt foo --out o", "what is 'foo'?"),
        ("finetune a b", "'b' is one word too many"),
        ("evaluate --index c --queries rows.csv --apply", "--apply needs --ways"),
        ("evaluate", "say what to evaluate"),
        ("evaluate --weights w", "say what to evaluate"),
        ("evaluate --data d", "say what to evaluate"),
        ("evaluate --ways", "say what to evaluate"),
        ("evaluate --captions --weights w", "say what to evaluate"),
        ("evaluate --captions --data d", "say what to evaluate"),
        ("evaluate --outfits rows.csv --weights w", "say what to evaluate"),
        ("evaluate --outfits rows.csv --data d", "say what to evaluate"),
        ("evaluate --texts rows.csv --weights w", "say what to evaluate"),
        ("evaluate --texts rows.csv --data d", "say what to evaluate"),
        ("evaluate --queries rows.csv --weights w", "say what to evaluate"),
        ("evaluate --queries rows.csv --data d", "say what to evaluate"),
        ("evaluate --ways --queries rows.csv --weights w", "say what to evaluate"),
        ("evaluate --ways --queries rows.csv --data d", "say what to evaluate"),
        ("evaluate --weights w --data d --queries rows.csv", "say what to evaluate"),
        ("train data=d/data.yaml --trust-pickle", "--trust-pickle needs the model on the command line"),
        ("train data=rows.csv imgsz=64", "imgsz is for detectors, and rows.csv trains an encoder"),
        ("export best.pt --out o --trust-pickle", "--trust-pickle is for a .pt file, and best.pt is none"),
        ("export w.safetensors --out o --trust-pickle", "--trust-pickle is for a .pt file, and w.safetensors is none"),
        ("export best.pt --out o --format zip", "there is no format 'zip'"),
        ("export best.pt --out taken", "taken is there already, and is no bundle"),
        ("export clip --out o --format engine", "TensorRT engine files are no longer written: no command serves them"),
        ("export clip --out o --data d", "--data is for detectors"),
        ("fetch-dataset yolo:d --out o --counts 1,2", "--counts 1,2 is not three numbers"),
        ("fetch-dataset yolo:d --out o --counts 1,2,x", "--counts 1,2,x is not three numbers"),
        ("fetch-dataset yolo:d --out o --map shoe", "--map shoe is not THEIRS=OURS"),
        ("fetch-dataset yolo:d --out o --map =top", "--map =top is not THEIRS=OURS"),
        ("dataset export d --to coco", "where to?"),
        ("dataset export d --to voc", "where to?"),
        ("dataset export d --to roboflow --weights w", "roboflow needs a target and a detector"),
        ("dataset export d --to roboflow --target a/b", "roboflow needs a target and a detector"),
        ("dataset export d --to roboflow --target a/b --weights w --strategy x", "there is no strategy 'x'"),
        ("compare --models a.pt", "compare needs models and data"),
        ("compare --models a.pt --data d --name a/b", "'a/b' cannot be a folder's name"),
        ("compare --models a.pt --data d --name ..", "'..' cannot be a folder's name"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(words: str, said: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,product_id\n")
    (tmp_path / "w.safetensors").write_bytes(b"")
    (tmp_path / "w.yaml").write_text("finetune: {weights: w}\n")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = cli(*words.split())
    assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [f"error: {said}"]
    hint = HINTS.get(words) or HINTS.get(said)
    assert [line for line in done.err.splitlines() if line.startswith("hint: ")] == ([f"hint: {hint}"] if hint else [])
    assert (done.code, done.out, sorted(tmp_path.rglob("*"))) == (2, "", before)
