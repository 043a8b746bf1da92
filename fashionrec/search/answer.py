"""The answer to a query: the query with all its options, the results, and renderings as document,
rows and page.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fashionrec.common.text import plural
from fashionrec.errors import UsageError
from fashionrec.search.result import STAGES, GarmentAnswer, QueryResult

if TYPE_CHECKING:
    import pandas

    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.query import Query


#: Attributes that an answer to one query used to have; now those of ``results[0]``.
_OF_ONE_RESULT = frozenset({"photo", "width", "height", "text", "seen", "classes", "source", "vectors", "outfit"})


class Answer:
    """The answer to one query.

    ``query`` has every option as it was applied, ``outcomes`` the result or error of each photo;
    one result for texts, items or merged photos. Pages and notebooks show the catalogue's
    thumbnails, which must still be in its folder; the catalogue may be closed.
    """

    def __init__(self, query: Query, catalogue: Catalogue) -> None:
        self.query, self.catalogue = query, catalogue
        self.outcomes: list[QueryResult | UsageError] = []

    @property
    def results(self) -> list[QueryResult]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, QueryResult)]

    @property
    def failures(self) -> list[UsageError]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, UsageError)]

    @property
    def garments(self) -> list[GarmentAnswer]:
        """The garments of all results, each with its hits."""
        return [garment for result in self.results for garment in result.garments]

    @property
    def notes(self) -> list[str]:
        """Notes for the user, of all results."""
        return [note for result in self.results for note in result.notes]

    @property
    def timings_ms(self) -> dict[str, float]:
        """Milliseconds per stage, over all results."""
        return {stage: sum(result.timings_ms[stage] for result in self.results) for stage in STAGES}

    if not TYPE_CHECKING:  # until 0.3

        def __getattr__(self, name: str) -> Any:
            if name not in _OF_ONE_RESULT or len(self) != 1:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            warnings.warn(f"use answer.results[0].{name}", DeprecationWarning, stacklevel=2)
            return getattr(self.results[0], name)

    def __iter__(self) -> Iterator[QueryResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the document of ``fashionrec query --json``; ``explain`` adds the parts of each
        score, and notes.
        """
        documents = [result.to_dict(explain=explain) for result in self.results]
        failures = [{"error": str(error), "reason": getattr(error, "reason", "usage")} for error in self.failures]
        if self.query.is_single:
            return documents[0] | ({"failures": failures} if failures else {})
        return {"answers": documents, "failures": failures}

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row per hit, with the columns of ``query --csv``."""
        from fashionrec.search.render.tables import rows_of

        return [row for row, _ in rows_of(self.results)]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the rows as a pandas ``DataFrame``. Raises :class:`MissingExtra`
        without pandas.
        """
        from fashionrec.common.extras import load
        from fashionrec.search.render.tables import COLUMNS

        frames = load("pandas", what="a DataFrame", packages=("pandas",))
        return frames.DataFrame(self.to_rows(), columns=list(COLUMNS))

    def to_html(self) -> str:
        """Return the page of ``query --html``, complete in one file."""
        from fashionrec.search.render.page import answer_page

        return answer_page(self.catalogue, self.results)

    def _repr_html_(self) -> str:
        """Return the page for a notebook, in a frame, so that styles do not mix."""
        from html import escape

        style = "width:100%;height:640px;border:0"
        return f'<iframe sandbox="allow-popups" style="{style}" srcdoc="{escape(self.to_html())}"></iframe>'

    def __repr__(self) -> str:
        hits = sum(len(garment.hits) for garment in self.garments)
        failed = f", {plural(len(self.failures), 'failure')}" if self.failures else ""
        garments = plural(len(self.garments), "garment")
        return f"<Answer: {plural(len(self.results), 'result')}, {garments}, {plural(hits, 'hit')}{failed}>"
