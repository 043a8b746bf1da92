"""Captions without any server: zero-shot attributes by the catalogue's own encoder, and sentences made from them.

Each allowed value becomes a few sentences ("a red dress", "a photo of a red dress", ...), whose mean text vector stands
for it; a garment's picture is compared with the values of each field by a softmax at the encoder's own logit scale
(Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4). Where the
attributes of some garments are known, the probabilities are made to hold on them (``fashionrec.captioner.local.calibration``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from fashionrec.captioner.local.calibration import Calibration, fit, softmax
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.phrases import caption_en, caption_ko, with_article
from fashionrec.captioner.schema import Description
from fashionrec.captioner.vocabulary import FIELDS, NONE, UNKNOWN, Vocabulary, load_vocabulary
from fashionrec.types import CLASS_NAMES

_Scores = tuple[list[str], np.ndarray]  # the values of a field, and a unit vector for each


class ZeroShotCaptioner:
    """Describes garments by their vectors alone. It says what it is: ``outcome.captioner`` is ``local``."""

    name = "local"

    def __init__(
        self,
        embed_texts: Callable[[Sequence[str]], np.ndarray],
        unknown_below: float,
        logit_scale: float = 100.0,
        *,
        vocabulary: Mapping[str, Collection[str]] | None = None,
        words: Vocabulary | None = None,
        model: str = "zero-shot",
        probabilities: Callable[[np.ndarray], np.ndarray] = softmax,
    ) -> None:
        """``embed_texts`` returns float32 [n, d] in the space of the picture vectors; a value less probable than
        ``unknown_below`` (beyond chance, before :meth:`calibrate`) is not told. ``vocabulary`` names the fields to tell and the
        values (or other words for them) that occur, as in a catalogue's metadata; by default all values of the fields that
        pictures tell best. ``probabilities`` are those of logits [values] where nothing is calibrated.
        """
        self._embed_texts = embed_texts
        self._unknown_below = unknown_below
        self._logit_scale = logit_scale
        self._probabilities = probabilities
        self._words = words or load_vocabulary()
        self._narrow_to = vocabulary
        self._model = model
        self._classes: _Scores | None = None
        self._fields: dict[str, dict[str, _Scores]] = {}
        self._calibrations: dict[tuple[str, str], Calibration] = {}
        self._scales: dict[str | None, float] = {}

    def calibrate(
        self,
        vectors: np.ndarray,
        class_names: Sequence[str | None],
        known: Sequence[Mapping[str, str]],
        products: Sequence[str],
    ) -> dict[tuple[str, str], Calibration]:
        """Make the probabilities hold on garments whose attributes are ``known`` (field to any word for its value).

        ``vectors`` as in :meth:`describe_vectors`; ``products`` says which garments are of one product. Returns what was fitted,
        by class and field: none where too few are known. There the scale of the same field in other classes, or of other fields,
        keeps the captioner from being surer than it is elsewhere. What was fitted before is forgotten.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        self._calibrations = {}
        for category in CLASS_NAMES:
            rows = [n for n, name in enumerate(class_names) if name == category]
            if not rows:
                continue
            for field, (names, texts) in self._field_vectors(category).items():
                numbers = {name: n for n, name in enumerate(names)}
                words = {
                    word: self._words.find(field, word, category) for word in {known[n].get(field, "") for n in rows}
                }
                told = [(n, value) for n in rows if (value := words[known[n].get(field, "")]) in numbers]
                if not told:
                    continue
                logits = self._logit_scale * (vectors[[n for n, _ in told]] @ texts.T)
                truth = np.array([numbers[value] for _, value in told if value is not None])
                found = fit(logits, truth, [products[n] for n, _ in told])
                if found is not None:
                    self._calibrations[category, field] = found
        scales: dict[str | None, list[float]] = {}
        for (_, field), one in self._calibrations.items():
            for key in (field, None):
                scales.setdefault(key, []).append(one.scale)
        self._scales = {key: float(np.median(some)) for key, some in scales.items()}
        return dict(self._calibrations)

    def describe_vectors(self, vectors: np.ndarray, class_names: Sequence[str | None]) -> list[Outcome]:
        """One outcome per garment, in order; ``vectors`` is float32 [n, d], unit length, of the garments' pictures.

        The category is the class where one is given, else the likeliest of the five.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(class_names):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(class_names)} classes")
        return [self._describe(vector, name) for vector, name in zip(vectors, class_names, strict=True)]

    def _describe(self, vector: np.ndarray, class_name: str | None) -> Outcome:
        started = time.perf_counter()
        certainties: dict[str, float] = {}
        category = class_name
        if category is None:
            category, certainties["category"] = self._best(vector, self._class_vectors())
        found: dict[str, str] = {}
        for field, scores in self._field_vectors(category).items():
            found[field], certainties[field] = self._best(vector, scores, self._calibrated(category, field))
            if certainties[field] < self._least(category, field, len(scores[0])):
                found[field] = UNKNOWN
        self._settle(found, certainties)
        told = {field: value for field, value in found.items() if value != UNKNOWN}
        sure = [certainties[field] for field in ("category", *told) if field in certainties]
        description = Description(
            category=category,
            **found,
            caption_en=caption_en(self._words, category, told),
            caption_ko=caption_ko(self._words, category, told),
            confidence=min(1.0, float(np.mean(sure))) if sure else 0.0,
        )
        seconds = round(time.perf_counter() - started, 4)
        return Outcome("done", self.name, self._model, description=description, seconds=seconds)

    def _least(self, category: str, field: str, values: int) -> float:
        """How sure a value must be to be told. A certainty that was never checked must be so far beyond chance."""
        least = self._unknown_below
        return least if (category, field) in self._calibrations else least + (1 - least) / values

    def _calibrated(self, category: str, field: str) -> Calibration | None:
        scale = self._scales.get(field, self._scales.get(None))
        elsewhere = None if scale is None else Calibration(scale, np.zeros(1), 0)
        return self._calibrations.get((category, field), elsewhere)

    def _best(self, vector: np.ndarray, scores: _Scores, calibration: Calibration | None = None) -> tuple[str, float]:
        """The likeliest value and its probability."""
        names, texts = scores
        logits = self._logit_scale * (texts @ vector)
        odds = calibration.probabilities(logits) if calibration else self._probabilities(logits)
        best = int(odds.argmax())
        return names[best], float(odds[best])

    def _settle(self, found: dict[str, str], certainties: Mapping[str, float]) -> None:
        """Where the sub-category and another field contradict each other, only the surer of the two is told."""
        kind = self._words.fields["sub_category"].values.get(found.get("sub_category", ""))
        for field, implied in kind.implies.items() if kind else ():
            other = found.get(field, UNKNOWN)
            if other not in (UNKNOWN, implied):
                if certainties[field] > certainties["sub_category"]:
                    found["sub_category"] = UNKNOWN
                    return
                found[field] = UNKNOWN

    def _class_vectors(self) -> _Scores:
        if self._classes is None:
            nouns = [self._words.classes[name].text[0] for name in CLASS_NAMES]
            self._classes = list(CLASS_NAMES), self._ensembles([with_article(noun) for noun in nouns])
        return self._classes

    def _field_vectors(self, category: str) -> dict[str, _Scores]:
        """The fields to tell of a class with their values' vectors; made at the first garment of the class."""
        if category not in self._fields:
            chosen = {field: self._values(field, category) for field in FIELDS}
            chosen = {field: garments for field, garments in chosen.items() if len(garments) > 1}
            vectors = self._ensembles([garment for garments in chosen.values() for garment in garments.values()])
            made: dict[str, _Scores] = {}
            start = 0
            for field, garments in chosen.items():
                made[field] = list(garments), vectors[start : start + len(garments)]
                start += len(garments)
            self._fields[category] = made
        return self._fields[category]

    def _values(self, field: str, category: str) -> dict[str, str]:
        """The values to tell apart, each with the garment that it makes in words ("a red dress")."""
        spec = self._words.fields[field]
        values = self._words.values(field, category)
        if self._narrow_to is not None:
            given = self._narrow_to.get(field, ())
            occurring = {self._words.find(field, word, category) for word in given}
            values = {name: value for name, value in values.items() if name in occurring}
        elif not spec.zero_shot:
            return {}
        noun = self._words.classes[category].text[0]
        garments = {}
        for name, value in values.items():
            if field == "sub_category":
                garments[name] = with_article(value.text[0])
            elif field in ("closure", "graphic"):
                said = value.text[0] if field == "closure" else f"{with_article(value.text[0])} print"
                garments[name] = with_article(noun) + ("" if name == NONE else f" with {said}")
            elif field != "second_color":  # two colours in one picture: an encoder this small mixes up which is which
                garments[name] = with_article(f"{value.text[0]} {noun}")
        return garments

    def _ensembles(self, garments: Sequence[str]) -> np.ndarray:
        """One unit vector per garment in words: the mean over the prompts. float32 [n, d]."""
        prompts = self._words.prompts
        if not garments:
            return np.zeros((0, 1), dtype=np.float32)
        texts = [prompt.format(garment=garment) for garment in garments for prompt in prompts]
        vectors = _unit(np.asarray(self._embed_texts(texts), dtype=np.float32))
        return _unit(vectors.reshape(len(garments), len(prompts), -1).mean(axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
