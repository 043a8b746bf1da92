"""A large YOLO that sees what a small one sees: its compute is its own, its answers are those of
the small one's weights.

Trained for minutes on a CPU, a large network answers next to the same everywhere, and which boxes
pass a threshold then hangs on the last bit. So the channels of the small network are laid into the
large one's, which repeat them; what no channel of the small one reads has weight zero.
(Function-preserving widening; Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge
Transfer".)
"""

from __future__ import annotations

from typing import Any

import torch

#: Where the small network's channels lie among the large one's.
Places = torch.Tensor


def widen(small: Any, large: Any) -> None:
    """Lay the weights of ``small`` into ``large``: ultralytics' DetectionModels of the YOLOv8
    family with the same classes.
    """
    places: list[Places] = []
    widths: list[int] = []
    for number, (a, b) in enumerate(zip(small.model, large.model, strict=True)):
        sources = [b.f] if isinstance(b.f, int) else b.f
        sources = [number + source if source < 0 else source for source in sources]
        known = [(places[n], widths[n]) for n in sources] if number else [(torch.arange(3), 3)]
        kind = type(b).__name__
        if kind == "Detect":
            for level, (at, _) in enumerate(known):
                _head(a.cv2[level], b.cv2[level], at)
                _head(a.cv3[level], b.cv3[level], at)
            return
        here, width = _joined(known)
        if kind == "Conv":
            here, width = _conv(a, b, here), b.conv.out_channels
        elif kind == "C2f":
            here, width = _c2f(a, b, here), b.cv2.conv.out_channels
        elif kind == "SPPF":
            _conv(a.cv1, b.cv1, here)
            each = a.cv1.conv.out_channels, b.cv1.conv.out_channels
            here, width = _conv(a.cv2, b.cv2, _repeated(*each, 4)), b.cv2.conv.out_channels
        elif kind not in ("Upsample", "Concat"):
            raise ValueError(f"layer {number} is a {kind}")
        places.append(here)
        widths.append(width)


def _joined(parts: list[tuple[Places, int]]) -> tuple[Places, int]:
    offset, found = 0, []
    for at, width in parts:
        found.append(at + offset)
        offset += width
    return torch.cat(found), offset


def _repeated(small: int, large: int, times: int) -> Places:
    """The first ``small`` of each of so many groups of ``large`` channels."""
    return torch.cat([torch.arange(small) + n * large for n in range(times)])


def _c2f(a: Any, b: Any, here: Places) -> Places:
    _conv(a.cv1, b.cv1, here, _repeated(a.c, b.c, 2))
    for one, other in zip(a.m, b.m, strict=False):  # the large one has more, which nothing reads
        _conv(one.cv2, other.cv2, _conv(one.cv1, other.cv1, torch.arange(a.c)))
    return _conv(a.cv2, b.cv2, _repeated(a.c, b.c, 2 + len(a.m)))


def _head(a: Any, b: Any, here: Places) -> None:
    for one, other in zip(a[:-1], b[:-1], strict=True):
        here = _conv(one, other, here)
    with torch.no_grad():
        b[-1].weight.zero_()
        b[-1].weight[:, here] = a[-1].weight
        b[-1].bias.copy_(a[-1].bias)


def _conv(a: Any, b: Any, inputs: Places, outputs: Places | None = None) -> Places:
    """Lay one convolution and its norm into a wider one; returns where its channels are
    (``outputs``, by default the first).
    """
    count, wide = a.conv.out_channels, b.conv.out_channels
    outputs = torch.arange(count) if outputs is None else outputs
    source = torch.arange(wide) % count
    source[outputs] = torch.arange(count)
    with torch.no_grad():
        b.conv.weight.zero_()
        b.conv.weight[:, inputs] = a.conv.weight[source]
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(b.bn, name).copy_(getattr(a.bn, name)[source])
        b.bn.eps = a.bn.eps
    return outputs
