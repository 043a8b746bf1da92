"""A finetune's decision: the paired bootstrap, what is better, worse or unknown, and
the reports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionrec.config import load_config
from fashionrec.detector.decode import Detections
from fashionrec.evaluation.detection.bootstrap import Spread, figures, paired_spreads
from fashionrec.evaluation.detection.decision import decide, headline, losses, to_markdown
from fashionrec.evaluation.detection.decision_page import decision_page
from fashionrec.evaluation.detection.judgement import judge
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.evaluation.detection.report import detection_report

NAMES = {0: "dress", 1: "pants", 2: "top"}


def measured(
    photos: int, found: Callable[[int, np.random.Generator], float], seed: int = 0, noise: float = 1.0
) -> Matches:
    """A detector on `photos` photos of two garments each; it finds those of photo n with the
    likelihood ``found(n)``.
    """
    truth_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    matches = Matches(NAMES)
    for n in range(photos):
        corner = truth_rng.uniform(0, 40, (2, 2)) + np.array([[0, 0], [100, 0]])
        truth = np.concatenate([corner, corner + truth_rng.uniform(20, 50, (2, 2))], axis=1)
        classes = truth_rng.integers(0, 3, 2)
        kept = rng.random(2) < found(n, rng)
        boxes = (truth + rng.normal(0, noise, truth.shape))[kept]
        extra = np.array([[200.0, 200.0, 230.0, 230.0]])[: int(rng.random() < 0.3)]
        scores = np.concatenate([rng.uniform(0.4, 1, len(boxes)), rng.uniform(0, 0.6, len(extra))])
        order = np.argsort(-scores, kind="stable")
        everything = np.concatenate([boxes, extra])[order].astype(np.float32)
        ids = np.concatenate([classes[kept], np.zeros(len(extra), np.int64)])[order]
        matches.add(Detections(everything, scores[order].astype(np.float32), ids), truth, classes)
    return matches


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_photos_as_they_are_give_the_report(seed: int) -> None:
    matches = measured(20, lambda n, rng: 0.7, seed, noise=4.0)
    report, one = detection_report(matches), figures(matches, np.ones((1, 20), np.int64))
    assert one["map50"][0] == pytest.approx(report.map50, abs=1e-12)
    assert one["map50_95"][0] == pytest.approx(report.map50_95, abs=1e-12)
    for name, values in report.per_class.items():
        assert one[f"map50_95, {name}"][0] == pytest.approx(values["map50_95"], abs=1e-12)
    confidence = matches.class_figures().confidence
    scores, classes = np.concatenate(matches.scores), np.concatenate(matches.classes)
    right, truths = np.concatenate(matches.correct)[:, 0], np.concatenate(matches.truths)
    precision, recall = [], []
    for number in sorted(set(truths.tolist())):
        answered = (classes == number) & (scores >= confidence)
        precision.append(right[answered].mean() if answered.any() else 1.0)
        recall.append(right[answered].sum() / (truths == number).sum())
    assert one["precision"][0] == pytest.approx(np.mean(precision), abs=1e-12)
    assert one["recall"][0] == pytest.approx(np.mean(recall), abs=1e-12)


def test_a_detection_just_as_sure_as_the_reports_confidence_counts() -> None:
    matches = Matches(NAMES)
    box, elsewhere, classes = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], np.array([0])
    for boxes, scores in (([box, elsewhere], [0.9, 0.1]), ([box], [420 / 999])):
        found = Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.zeros(len(boxes), np.int64))
        matches.add(found, np.array([box]), classes)
    # the report's confidences are 0, 1/999, ... 1, of which this one is best
    assert np.float32(matches.class_figures().confidence) == np.float32(420 / 999)
    one = figures(matches, np.ones((1, 2), np.int64))
    assert (one["precision"][0], one["recall"][0]) == (1.0, 1.0)


def test_a_photo_counted_twice_is_that_photo_there_twice() -> None:
    matches = measured(6, lambda n, rng: 0.7, 3, noise=4.0)
    counts = np.array([[2, 0, 1, 3, 0, 1]])
    written_out = Matches(NAMES)
    for n in np.repeat(np.arange(6), counts[0]):
        for part in ("correct", "scores", "classes", "truths"):
            getattr(written_out, part).append(getattr(matches, part)[n])
    # equal scores lie side by side when a photo is there twice: a box counts after its twin, which
    # AP sees as one step or two
    drawn = figures(matches, counts)["map50_95"][0]
    assert drawn == pytest.approx(figures(written_out, np.ones((1, 7), np.int64))["map50_95"][0], abs=0.02)


def test_the_pairing_is_what_makes_it_sharp() -> None:
    """Two detectors that differ in one photo of ten: unpaired, the photos' own spread would drown
    the difference.
    """
    before = measured(120, lambda n, rng: 0.6, 1)
    after = measured(120, lambda n, rng: 0.6, 1)
    for n in range(0, 120, 10):
        for part in ("correct", "scores", "classes"):
            getattr(after, part)[n] = getattr(after, part)[n][:0]
    spread = paired_spreads(before, after, resamples=400)["map50_95"]
    low, high = spread.interval(0.95)
    assert spread.measured < 0
    assert low < spread.measured < high < 0
    apart = figures(before, np.random.default_rng(0).multinomial(120, np.full(120, 1 / 120), 400))["map50_95"]
    assert np.std(spread.resamples) < 0.6 * np.sqrt(2) * np.std(apart)
    same = paired_spreads(before, before, resamples=100)["map50_95"]
    assert same.interval(0.95) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("experiments", "least"), [(12, 9), pytest.param(40, 30, marks=pytest.mark.release(seconds=20))]
)
def test_intervals_hold_the_truth_as_often_as_they_say(experiments: int, least: int) -> None:
    """By hand: of experiments with a known difference, nine in ten of the 90 % intervals hold it
    (of 40, 36, give or take 6).
    """
    large = [measured(1500, lambda n, rng, share=share: share, seed) for seed, share in ((98, 0.7), (99, 0.8))]
    truth = detection_report(large[1]).map50 - detection_report(large[0]).map50
    held = 0
    for n in range(experiments):
        before, after = measured(60, lambda n, rng: 0.7, 2 * n), measured(60, lambda n, rng: 0.8, 2 * n + 1)
        low, high = paired_spreads(before, after, resamples=100, seed=n)["map50"].interval(0.9)
        held += low <= truth <= high
    assert least <= held


def test_other_photos_are_refused() -> None:
    before, after = measured(10, lambda n, rng: 1.0), measured(9, lambda n, rng: 1.0)
    with pytest.raises(ValueError, match="same photos"):
        paired_spreads(before, after, resamples=100)


def spread(points: float, reach: float, photos: int = 100) -> Spread:
    """A difference with an interval of ± reach points."""
    return Spread(points / 100, np.linspace(points - reach / 0.95, points + reach / 0.95, 2001) / 100, photos)


@pytest.mark.parametrize(
    ("new", "old", "outcome", "promoted", "certain"),
    [
        (spread(3, 1), spread(0, 0.3), "better", True, True),
        (spread(3, 1), spread(0, 2), "unknown", True, False),  # the figures keep the rules; nobody can be sure
        (spread(0.5, 1), spread(0, 0.3), "unknown", True, False),
        (spread(3, 1), spread(-7, 1), "worse", False, False),  # the story: 7 points
        (spread(3, 1), spread(-0.6, 3), "unknown", False, False),
        (spread(-0.1, 1), spread(0, 0.1), "unknown", False, False),
        (spread(-4, 1), spread(2, 1), "worse", False, False),
        (spread(0, 0), spread(0, 0), "worse", False, False),  # nothing gained is no gain
        (spread(9, 1), None, "unknown", False, False),  # what was lost is not known
    ],
)
def test_the_decision(new: Spread, old: Spread | None, outcome: str, promoted: bool, certain: bool) -> None:
    spreads = {"new": new} | ({"old": old} if old else {})
    made = decide(spreads, 0.5, 0.95)
    assert (made["outcome"], made["promoted"]) == (outcome, promoted)
    assert decide(spreads, 0.5, 0.95, certain=True)["promoted"] is certain
    assert headline(made).startswith("promoted" if promoted else "not promoted")


def test_how_many_photos_would_do() -> None:
    """Four times the photos halve the interval: ± 2 points, half a point from the limit, needs 16
    times as many.
    """
    made = decide({"new": spread(3, 1), "old": spread(0, 2, photos=77)}, 0.5, 0.95)
    assert made["photos_needed"] == {"old": pytest.approx(77 * 16, rel=0.01)}
    assert "77 photos are too few to be certain, about 1,23" in made["reasons"][1]
    enough = decide({"new": spread(3, 1), "old": spread(0, 2 / 4.05, photos=77 * 17)}, 0.5, 0.95)
    assert enough["outcome"] == "better"


def world(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "data.yaml"
    path.write_text(
        yaml.safe_dump({"test": "images", "train": "images", "val": "images", "names": list(NAMES.values())})
    )
    return path


def test_a_loss_on_the_old_set_is_told_and_refused(tmp_path: Path) -> None:
    """A detector that learnt the new set and forgot tops of the old one."""
    sets = {"new": world(tmp_path, "new"), "old": world(tmp_path, "old")}
    quality = {("a", "new"): 0.3, ("b", "new"): 0.9, ("a", "old"): 0.9, ("b", "old"): 0.5}

    def match(weights: Path, data: Path, split: str) -> Matches:
        assert split == "test"
        return measured(150, lambda n, rng: quality[weights.stem, data.parent.name], seed=5)

    config = load_config(env={}, sets=["finetune.resamples=200"]).config.finetune
    document = judge(Path("a.pt"), Path("b.pt"), sets, tmp_path, match=match, config=config)
    assert (document["decision"]["outcome"], document["decision"]["promoted"]) == ("worse", False)
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(document))
    assert {(row["test_set"], row["metric"]) for row in document["rows"]} >= {
        (name, metric) for name in sets for metric in ("map50", "map50_95", "precision", "recall", "map50_95, top")
    }
    for row in document["rows"]:
        assert row["difference"] == pytest.approx(row["after"] - row["before"])
        assert row["low"] <= row["high"]
    assert any(loss.startswith("old: ") for loss in losses(document))
    assert not any(loss.startswith("new: ") for loss in losses(document))
    table = (tmp_path / "comparison.md").read_text()
    assert "| old | map50_95 |" in table
    assert "not promoted: worse" in table
    page = (tmp_path / "comparison.html").read_text()
    assert "not promoted: worse" in page
    assert page.count("<circle") == len(document["rows"])
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(("shift", "promoted"), [(0, True), (1, False)], ids=["right", "permuted"])
def test_labels_that_contradict_the_old_detector_are_not_trusted(tmp_path: Path, shift: int, promoted: bool) -> None:
    """The planted fault: the classes of the new set are permuted, and the candidate has learnt
    them: its figures are better on both sets, and say nothing.
    """

    def permuted(matches: Matches) -> Matches:
        again = Matches(NAMES)
        for boxes, scores, classes, truth, true in zip(
            matches.boxes, matches.scores, matches.classes, matches.true_boxes, matches.truths, strict=True
        ):
            again.add(Detections(boxes, scores, classes), truth, (true + shift) % 3)
        return again

    def learnt(matches: Matches) -> Matches:
        again = Matches(NAMES)
        for boxes, scores, classes, truth, true in zip(
            matches.boxes, matches.scores, matches.classes, matches.true_boxes, matches.truths, strict=True
        ):
            again.add(Detections(boxes, scores, (classes + shift) % 3), truth, true)
        return again

    def match(weights: Path, data: Path, split: str) -> Matches:
        likelihood = 0.5 if weights.name == "a.pt" else 0.9
        found = measured(120, lambda n, rng: likelihood)
        if "new" not in str(data):
            return found
        return learnt(permuted(found)) if weights.name == "b.pt" else permuted(found)

    sets = {}
    for name in ("new", "old"):
        sets[name] = tmp_path / name / "data.yaml"
        (tmp_path / name / "test" / "images").mkdir(parents=True)
        sets[name].write_text(yaml.safe_dump({"train": "test/images", "test": "test/images", "names": NAMES}))
    config = load_config(env={}).config.finetune
    document = judge(Path("a.pt"), Path("b.pt"), sets, tmp_path, match=match, config=config)
    assert document["decision"]["promoted"] is promoted
    assert any("contradict" in reason for reason in document["decision"]["reasons"]) is not promoted
    assert document["disagreement"]["share"] == pytest.approx(1.0 if shift else 0.0)


def test_the_page_shows_each_difference_with_its_interval() -> None:
    rows = [
        {"test_set": name, "metric": metric, "before": 0.5, "after": 0.5, "difference": at, "low": low, "high": high}
        for name, metric, low, at, high in (
            ("new", "map50_95", -0.02, 0.02, 0.06),
            ("new", "map50, dress", 0.01, 0.02, 0.03),
            ("old", "map50", -0.005, -0.003, -0.001),
        )
    ]
    document = {"rows": rows, "confidence": 0.95, "resamples": 100, "photos": {"new": 3, "old": 4}}
    document["splits"] = {"new": "test", "old": "valid"}
    document["decision"] = decide({"new": spread(2, 1), "old": spread(-0.3, 0.1)}, 0.5, 0.95)
    page = decision_page(document, "Finetune 7")
    lines = re.findall(
        r'<g class="(\w+)"><line x1="(.*?)" x2="(.*?)" y1="(.*?)" y2=".*?"/><circle cx="(.*?)".*?</g>'
        r"\s*<text.*?>(.*?)</text><text.*?>(.*?)</text>",
        page,
    )
    # 195 pixels to either side of 385: six points in the one plot, one in the other
    assert lines == [
        ("open", "320.0", "580.0", "13.0", "450.0", "mAP50-95", "+2.00"),
        ("rose", "417.5", "482.5", "39.0", "450.0", "mAP50, dress", "+2.00"),
        ("fell", "287.5", "365.5", "13.0", "326.5", "mAP50", "-0.30"),
    ]
    assert re.findall('class="axis" x1="(.*?)"', page) == ["385.0", "385.0"]
    assert re.findall('class="limit" x1="(.*?)"', page) == ["287.5"]  # half a point of tolerance, of the old set
    assert re.findall(r">\+(.*?) points<", page) == ["6.0", "1.0"]
    assert re.findall(r'viewBox="0 0 640 (\d+)"', page) == ["74", "48"]
    assert "<h1>Finetune 7</h1>" in page
    assert "promoted: better" in page
    assert "old: map50 -0.30 points" in page


def test_the_page_escapes_what_it_is_told(tmp_path: Path) -> None:
    rows = [
        {
            "test_set": "new",
            "metric": "map50_95, <b>",
            "before": 0.1,
            "after": 0.2,
            "difference": 0.1,
            "low": 0.0,
            "high": 0.2,
        }
    ]
    document = {"rows": rows, "confidence": 0.95, "resamples": 100, "photos": {"new": 3}, "splits": {"new": "test"}}
    document["decision"] = decide({"new": spread(10, 5)}, 0.5, 0.95)
    assert "<b>" not in decision_page(document, "x").replace("<b>10", "")
    assert "map50_95, &lt;b>" in to_markdown(document)
