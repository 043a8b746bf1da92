"""All rows of the option table: importing this fills `options.table.ROWS`."""

import importlib

from options import FAMILIES
from options.table import ROWS as ROWS

for name in FAMILIES:
    importlib.import_module(f"options.{name}")
