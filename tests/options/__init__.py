"""The table of the command line's options: for each of them a row that sees what it sets.

See `options.table`.
"""

import pytest

#: The modules that rows stand in.
FAMILIES = ("captions", "catalogue", "data", "demo", "evaluate", "query", "runs", "shared", "training")

pytest.register_assert_rewrite(*(f"options.{name}" for name in (*FAMILIES, "table")))
