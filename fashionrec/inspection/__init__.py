"""Whether a folder from somebody else is safe to use, and what in it would have been run or followed.

:func:`inspect_folder` reads a catalogue, run, bundle, data set or any other folder: it follows no link, opens nothing outside,
runs, unpickles and evaluates nothing, and does bounded work. It says what is refused or ignored by the other commands.
"""

from fashionrec.inspection.folder import inspect_folder
from fashionrec.inspection.report import Finding, Report

__all__ = ["Finding", "Report", "inspect_folder"]
