"""The captioner without a server: zero-shot attributes by the catalogue's own encoder."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from fashionrec.captioner.base import Captioner
from fashionrec.captioner.local.calibration import sigmoid, softmax
from fashionrec.captioner.local.captioner import ZeroShotCaptioner

if TYPE_CHECKING:
    from fashionrec.captioner.base import Job, Source
    from fashionrec.captioner.outcome import Outcome


class EncoderCaptioner(Captioner):
    """Predicts attributes with the encoder of the catalogue that it is bound to.

    An encoder guesses values that it never saw, so only fields and values that occur in the product
    data are predicted (all, if none occur). The probabilities are calibrated on the same data.
    """

    name = "local"
    title = "the local captioner"
    from_encoder = True
    _source: Source

    def bind(self, source: Source) -> EncoderCaptioner:
        bound = type(self)(self.config, vocabulary=self.vocabulary)
        bound._source = source
        return bound

    @property
    def model(self) -> str:
        return self._source.fingerprint

    @property
    def label(self) -> str:
        return f"{self.title} (class and attributes by the catalogue's own encoder; nothing is sent anywhere)"

    @cached_property
    def _zero_shot(self) -> ZeroShotCaptioner:
        source, encoder = self._source, self._source.encoder
        bias = encoder.logit_bias
        captioner = ZeroShotCaptioner(
            encoder.embed_texts,
            unknown_below=self.config.unknown_below,
            logit_scale=encoder.logit_scale,
            vocabulary=source.words(self.vocabulary.fields_of(None)) or None,
            words=self.vocabulary,
            model=self.model,
            probabilities=softmax if bias is None else partial(sigmoid, bias=bias),
        )
        examples = source.examples()
        if examples is not None:
            captioner.calibrate(examples.vectors, examples.class_names, examples.attributes, examples.products)
        return captioner

    def describe_one(self, job: Job) -> Outcome:
        (outcome,) = self._zero_shot.describe_vectors(job.vector()[None], [job.class_name])
        return outcome
