"""Captions for a catalogue: ask for what is missing, record every outcome, serve a new generation with the texts.

::

    garments.py   which garments there are, what is known of each, and which are to be asked: the plan
    caches.py     the catalogue's captions.sqlite and the project's: every outcome, found in either, recorded in both
    run.py        the plan carried out, request by request or by the local captioner (local.py)
    batches.py    the plan carried out by OpenAI's Batch API, over days and restarts
    imports.py    captions of somebody else's catalogue, taken over because the user says so
    publish.py    a new generation with what is known by then

Outcomes are recorded at once, so nothing that was asked (and paid) for is asked again, whatever happens to the generation that
was to hold it.
"""

from fashionrec.captioner.job.caches import CACHE, Caches
from fashionrec.captioner.job.garments import Recaption
from fashionrec.captioner.job.imports import import_captions
from fashionrec.captioner.job.local import local_captioner
from fashionrec.captioner.job.run import caption_catalogue, status

__all__ = ["CACHE", "Caches", "Recaption", "caption_catalogue", "import_captions", "local_captioner", "status"]
