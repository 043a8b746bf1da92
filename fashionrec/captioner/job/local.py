"""The captioner that needs no server: the catalogue's own encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fashionrec.captioner.job.known import MOST, Known, calibrate, known_garments
from fashionrec.captioner.local.captioner import LocalCaptioner
from fashionrec.captioner.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import Config


def local_captioner(catalogue: Catalogue, config: Config, fitted_on: Sequence[Known] | None = None) -> LocalCaptioner:
    """The captioner of a catalogue's own encoder, telling only what the products' own data tells of (all, where it is mute).

    An encoder guesses values that it never saw; the columns that are attributes, and the values in them, say what it saw. How
    sure it may be is learnt from the same columns, by default of products all over the catalogue; ``fitted_on`` is for those who
    judge it on others.
    """
    vocabulary = vocabulary_of(config.captioner)
    captioner = LocalCaptioner(
        catalogue.embedder.embed_texts,
        unknown_below=config.captioner.unknown_below,
        logit_scale=catalogue.embedder.logit_scale,
        vocabulary=catalogue.items.words_of(vocabulary.fields_of(None)) or None,
        words=vocabulary,
        model=catalogue.embedder.fingerprint,
    )
    known = known_garments(catalogue, vocabulary, MOST) if fitted_on is None else fitted_on
    calibrate(captioner, catalogue, known)
    return captioner
