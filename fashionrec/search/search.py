"""Search an open catalogue: the only entry point, for the command line, the library and
evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, cast

from fashionrec.config.captioners import ENCODER
from fashionrec.errors import UsageError
from fashionrec.search.answer import Answer
from fashionrec.search.result import QueryResult

if TYPE_CHECKING:
    from fashionrec.captioner.job.photos import Describe
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.search.query import Query
    from fashionrec.search.words import Words
    from fashionrec.types import Box

#: A result, or the error of one photo.
Outcome = QueryResult | UsageError


def search(
    catalogue: Catalogue,
    query: Query,
    *,
    describe: Describe | None = None,
    report: Callable[[Outcome], None] | None = None,
    once: bool = False,
    read_items: bool = True,
    keep: bool = True,
) -> Answer:
    """Answer a query.

    Args:
        describe: captions the garments of photos
            (:data:`fashionrec.captioner.job.photos.Describe`), which are then searched by caption
            too; by default the captioner of ``query.caption``, which is sent the crops unless it is
            the catalogue's encoder.
        report: called with the outcome of each photo as soon as it is known.
        once: no other query follows, so that the detector's memory is freed before the encoder
            needs its own.
        read_items: without it garments have a ``ranking`` but no hits (except merged lists): for
            evaluations with many queries.
        keep: without it the answer has no outcomes, only ``report`` gets them, so that any number
            of photos needs the memory of one.

    Raises :class:`CatalogueError` if the catalogue is closed, and :class:`UsageError` for queries
    that cannot be answered; failed photos among several are ``failures`` of the answer, unless all
    fail.
    """
    catalogue.check_open()
    # before other imports: models are opened in threads
    if query.sources:
        catalogue.begin("image", detect=query.box is None)
    elif query.text and not query.like:
        catalogue.begin("text")
    settings = query.settings(catalogue.query_settings)
    query = query.complete(settings)
    if describe is None and query.sources and settings.caption != "none":
        from fashionrec.captioner.job.photos import describer

        own = settings.caption in ("auto", ENCODER)  # which learns from the products once
        describe = catalogue.memoize(describer) if own else describer(catalogue, settings.caption)
    answer = Answer(query, catalogue)
    answered, failure = False, None
    outcomes = _outcomes(catalogue, query, settings, describe, once)
    for outcome in _with_items(catalogue, outcomes) if read_items else outcomes:
        if isinstance(outcome, UsageError):
            failure = failure or outcome
        else:
            answered = True
            if query.goes_with:
                from fashionrec.search.outfits import goes_with

                outcome.goes_with = goes_with(catalogue, outcome, settings)
        if keep:
            answer.outcomes.append(outcome)
        if report is not None:
            report(outcome)
    if failure is not None and not answered:
        raise failure
    return answer


def _outcomes(
    catalogue: Catalogue, query: Query, settings: QueryConfig, describe: Describe | None, once: bool
) -> Iterator[Outcome]:
    if not query.merge:
        yield from _each(catalogue, query, settings, query.words, describe, once)
        return
    from fashionrec.search.merging import merge_results, merge_settings

    outcomes = list(_with_items(catalogue, _each(catalogue, query, merge_settings(settings), [], describe, once)))
    if query.words:
        from fashionrec.search.text import search_text

        texts = (search_text(catalogue, [one], merge_settings(settings)) for one in query.words)
        outcomes += _with_items(catalogue, texts)
    yield from (one for one in outcomes if isinstance(one, UsageError))
    if results := [one for one in outcomes if isinstance(one, QueryResult)]:
        yield merge_results(results, settings)


def _each(
    catalogue: Catalogue,
    query: Query,
    settings: QueryConfig,
    words: list[Words],
    describe: Describe | None,
    once: bool,
) -> Iterator[Outcome]:
    """Yield the outcomes of photos, of items, of embedded queries, or of texts."""
    if query.sources:
        from fashionrec.search.photo import search_photos

        yield from search_photos(
            catalogue, query.sources, settings, describe, box=cast("Box | None", query.box), words=words, once=once
        )
    elif query.like:
        from fashionrec.search.like import search_like

        yield search_like(catalogue, query.like, settings, unlike=query.unlike, words=words)
    elif query.embedded:
        from fashionrec.search.ranking import rank_all

        result = QueryResult(photo=None, width=None, height=None)
        rank_all(catalogue, query.embedded, settings, result)
        yield result
    elif words:
        from fashionrec.search.text import search_text

        yield search_text(catalogue, words, settings)


def _with_items(catalogue: Catalogue, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        if isinstance(outcome, QueryResult):
            outcome.read_items(catalogue.items)
        yield outcome
