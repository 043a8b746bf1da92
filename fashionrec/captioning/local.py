"""The captioner that needs no server: the catalogue's own encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fashionrec.captioner.local import LocalCaptioner
from fashionrec.captioner.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.config import Config


def local_captioner(catalogue: Catalogue, config: Config) -> LocalCaptioner:
    """The captioner of a catalogue's own encoder, telling only what the products' own data tells of (all, where it is mute).

    An encoder guesses values that it never saw; the columns that are attributes, and the values in them, say what it saw.
    """
    vocabulary = vocabulary_of(config.captioner)
    words: dict[str, set[str]] = {}
    fields = set(vocabulary.fields_of(None))
    for stored in catalogue.items.everything():
        for name, value in stored.item.metadata.items():
            if name in fields and isinstance(value, str):
                words.setdefault(name, set()).add(value)
    return LocalCaptioner(
        catalogue.embedder.embed_texts,
        unknown_below=config.captioner.unknown_below,
        logit_scale=catalogue.embedder.logit_scale,
        vocabulary=words or None,
        words=vocabulary,
        model=catalogue.embedder.fingerprint,
    )
