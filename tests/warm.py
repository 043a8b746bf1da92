"""Modules that commands import late, imported once, before processes are forked that would
each import it anew.
"""

from __future__ import annotations

import faiss  # noqa: F401
import filelock  # noqa: F401
import jinja2  # noqa: F401
import numpy.random  # noqa: F401
import onnxruntime  # noqa: F401
import tokenizers  # noqa: F401
from PIL import Image

Image.preinit()
