"""Check whether a folder from somebody else is safe to use, and what in it other programs would
execute or follow.

:func:`inspect_folder` reads a catalogue, run, bundle, dataset or any other folder: it follows no
link, opens nothing outside, executes, unpickles and evaluates nothing, and does bounded work. It
reports what other commands refuse or ignore.
"""

from fashionrec.inspection.folder import inspect_folder
from fashionrec.inspection.report import Finding, Report

__all__ = ["Finding", "Report", "inspect_folder"]
