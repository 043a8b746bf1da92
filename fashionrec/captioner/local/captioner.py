"""Captions without a server: zero-shot attributes by the catalogue's encoder, and phrases of them.

Each allowed value becomes a few sentences ("a red dress", "a photo of a red dress", ...),
represented by their mean text vector; a garment's image vector is compared with the values of each
field by a softmax at the encoder's own logit scale (Radford et al. 2021, "Learning Transferable
Visual Models From Natural Language Supervision", section 3.1.4). If the attributes of some garments
are known, the probabilities are calibrated on them (``fashionrec.captioner.local.calibration``).
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
from fashionrec.common.text import plural
from fashionrec.types import CLASS_NAMES

_ValueVectors = tuple[list[str], np.ndarray]  # the values of a field, and a unit vector for each


class ZeroShotCaptioner:
    """Describes garments by their image vectors; ``outcome.captioner`` is ``local``."""

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
        """Set the encoder and the vocabulary.

        Args:
            embed_texts: Returns text vectors float32 [n, d] in the space of the image vectors.
            unknown_below: Values with a lower probability are ``unknown``; without
                :meth:`calibrate` the threshold is this far above chance.
            logit_scale: The encoder's logit scale.
            vocabulary: The fields to predict, and the values (or other words for them) that occur,
                for instance in the product data; by default all values of the zero-shot fields.
            words: The vocabulary; by default the shipped one.
            model: The model name to record.
            probabilities: Maps logits [values] to probabilities without a calibration.
        """
        self._embed_texts = embed_texts
        self._unknown_below = unknown_below
        self._logit_scale = logit_scale
        self._probabilities = probabilities
        self._words = words or load_vocabulary()
        self._narrow_to = vocabulary
        self._model = model
        self._classes: _ValueVectors | None = None
        self._fields: dict[str, dict[str, _ValueVectors]] = {}
        self._calibrations: dict[tuple[str, str], Calibration] = {}
        self._scales: dict[str | None, float] = {}

    def calibrate(
        self,
        vectors: np.ndarray,
        class_names: Sequence[str | None],
        known: Sequence[Mapping[str, str]],
        products: Sequence[str],
    ) -> dict[tuple[str, str], Calibration]:
        """Calibrate the probabilities on garments with known attributes.

        A class and field with too few garments is not fitted, but uses the median scale of the same
        field in other classes, or of all fields, so that its probabilities are not overconfident.
        Earlier calibrations are discarded.

        Args:
            vectors: As in :meth:`describe_vectors`.
            class_names: The class of each garment.
            known: The attributes of each garment: field to any word for the value.
            products: The product of each garment.

        Returns the calibrations by class and field.
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
                labelled = [(n, value) for n in rows if (value := words[known[n].get(field, "")]) in numbers]
                if not labelled:
                    continue
                logits = self._logit_scale * (vectors[[n for n, _ in labelled]] @ texts.T)
                truth = np.array([numbers[value] for _, value in labelled if value is not None])
                calibration = fit(logits, truth, [products[n] for n, _ in labelled])
                if calibration is not None:
                    self._calibrations[category, field] = calibration
        scales: dict[str | None, list[float]] = {}
        for (_, field), calibration in self._calibrations.items():
            for key in (field, None):
                scales.setdefault(key, []).append(calibration.scale)
        self._scales = {key: float(np.median(values)) for key, values in scales.items()}
        return dict(self._calibrations)

    def describe_vectors(self, vectors: np.ndarray, class_names: Sequence[str | None]) -> list[Outcome]:
        """Return one outcome per garment, for image vectors float32 [n, d] of unit length.

        The category is the given class, else the most likely one.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(class_names):
            raise ValueError(
                f"vectors of shape {vectors.shape} do not match {plural(len(class_names), 'class', 'classes')}"
            )
        return [self._describe(vector, name) for vector, name in zip(vectors, class_names, strict=True)]

    def _describe(self, vector: np.ndarray, class_name: str | None) -> Outcome:
        started = time.perf_counter()
        probabilities: dict[str, float] = {}
        category = class_name
        if category is None:
            category, probabilities["category"] = self._best(vector, self._class_vectors())
        values: dict[str, str] = {}
        for field, scores in self._field_vectors(category).items():
            values[field], probabilities[field] = self._best(vector, scores, self._calibrated(category, field))
            if probabilities[field] < self._threshold(category, field, len(scores[0])):
                values[field] = UNKNOWN
        self._resolve_contradictions(values, probabilities)
        known_values = {field: value for field, value in values.items() if value != UNKNOWN}
        used = [probabilities[field] for field in ("category", *known_values) if field in probabilities]
        description = Description(
            category=category,
            **values,
            caption_en=caption_en(self._words, category, known_values),
            caption_ko=caption_ko(self._words, category, known_values),
            confidence=min(1.0, float(np.mean(used))) if used else 0.0,
        )
        seconds = round(time.perf_counter() - started, 4)
        return Outcome("done", self.name, self._model, description=description, seconds=seconds)

    def _threshold(self, category: str, field: str, values: int) -> float:
        """Return the least probability of a value that is not ``unknown``.

        Without a calibration, the threshold is scaled to the range from chance to 1.
        """
        threshold = self._unknown_below
        return threshold if (category, field) in self._calibrations else threshold + (1 - threshold) / values

    def _calibrated(self, category: str, field: str) -> Calibration | None:
        scale = self._scales.get(field, self._scales.get(None))
        fallback = None if scale is None else Calibration(scale, np.zeros(1), 0)
        return self._calibrations.get((category, field), fallback)

    def _best(
        self, vector: np.ndarray, scores: _ValueVectors, calibration: Calibration | None = None
    ) -> tuple[str, float]:
        """Return the most likely value and its probability."""
        names, texts = scores
        logits = self._logit_scale * (texts @ vector)
        probabilities = calibration.probabilities(logits) if calibration else self._probabilities(logits)
        best = int(probabilities.argmax())
        return names[best], float(probabilities[best])

    def _resolve_contradictions(self, values: dict[str, str], probabilities: Mapping[str, float]) -> None:
        """Drop the less likely of the sub-category and a field that contradicts it."""
        kind = self._words.fields["sub_category"].values.get(values.get("sub_category", ""))
        for field, implied in kind.implies.items() if kind else ():
            value = values.get(field, UNKNOWN)
            if value not in (UNKNOWN, implied):
                if probabilities[field] > probabilities["sub_category"]:
                    values["sub_category"] = UNKNOWN
                    return
                values[field] = UNKNOWN

    def _class_vectors(self) -> _ValueVectors:
        if self._classes is None:
            nouns = [self._words.classes[name].text[0] for name in CLASS_NAMES]
            self._classes = list(CLASS_NAMES), self._ensembles([with_article(noun) for noun in nouns])
        return self._classes

    def _field_vectors(self, category: str) -> dict[str, _ValueVectors]:
        """Return the fields to predict for a class with their value vectors; cached per class."""
        if category not in self._fields:
            phrases = {field: self._values(field, category) for field in FIELDS}
            phrases = {field: by_value for field, by_value in phrases.items() if len(by_value) > 1}
            vectors = self._ensembles([phrase for by_value in phrases.values() for phrase in by_value.values()])
            fields: dict[str, _ValueVectors] = {}
            start = 0
            for field, by_value in phrases.items():
                fields[field] = list(by_value), vectors[start : start + len(by_value)]
                start += len(by_value)
            self._fields[category] = fields
        return self._fields[category]

    def _values(self, field: str, category: str) -> dict[str, str]:
        """Return the values to predict, each with a phrase of it ("a red dress")."""
        spec = self._words.fields[field]
        values = self._words.values(field, category)
        if self._narrow_to is not None:
            words = self._narrow_to.get(field, ())
            occurring = {self._words.find(field, word, category) for word in words}
            values = {name: value for name, value in values.items() if name in occurring}
        elif not spec.zero_shot:
            return {}
        noun = self._words.classes[category].text[0]
        phrases = {}
        for name, value in values.items():
            if field == "sub_category":
                phrases[name] = with_article(value.text[0])
            elif field in ("closure", "graphic"):
                detail = value.text[0] if field == "closure" else f"{with_article(value.text[0])} print"
                phrases[name] = with_article(noun) + ("" if name == NONE else f" with {detail}")
            elif field != "second_color":  # a small encoder confuses the two colours of a garment
                phrases[name] = with_article(f"{value.text[0]} {noun}")
        return phrases

    def _ensembles(self, phrases: Sequence[str]) -> np.ndarray:
        """Return one unit vector per phrase, the mean over the prompts; float32 [n, d]."""
        prompts = self._words.prompts
        if not phrases:
            return np.zeros((0, 1), dtype=np.float32)
        texts = [prompt.format(garment=phrase) for phrase in phrases for prompt in prompts]
        vectors = _unit(np.asarray(self._embed_texts(texts), dtype=np.float32))
        return _unit(vectors.reshape(len(phrases), len(prompts), -1).mean(axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
