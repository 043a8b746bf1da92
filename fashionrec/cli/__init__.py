"""The command line: one file per family of commands.

``output`` is the only printer, ``session`` has the shared options.
"""
