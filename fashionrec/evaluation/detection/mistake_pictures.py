"""Draw a photo with its mistakes: true boxes dashed, detections solid, numbered as in the list next
to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from fashionrec.common.pages import draw_label
from fashionrec.evaluation.detection.mistakes import PhotoMistakes

#: One colour per kind of mistake, dark enough for white text; and that of correct boxes.
KIND_COLOURS = {
    "missed": "#b42318",
    "false": "#92580a",
    "wrong_class": "#6b46c1",
    "badly_placed": "#1f5fbf",
    "double": "#0e7490",
}
RIGHT_COLOUR = "#3f8f3f"
_DRAWN = 24  # mistakes drawn in one photo; more would hide it


def draw_mistakes(pixels: Image.Image, photo: PhotoMistakes, side: int) -> Image.Image:
    """Draw the worst mistakes and the correct boxes on a copy of the photo with a longer side of
    ``side`` pixels.
    """
    scale = side / max(pixels.size)
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    picture = pixels.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    line = max(2, side // 210)
    for box in photo.right:
        _outline(draw, _scaled(box, scale, size), RIGHT_COLOUR, line, dashed=False)
    shown = list(enumerate(photo.mistakes[:_DRAWN], start=1))
    for _, mistake in reversed(shown):  # the worst on top
        colour = KIND_COLOURS[mistake.kind]
        if mistake.true_box and mistake.kind != "double":
            _outline(draw, _scaled(mistake.true_box, scale, size), colour, line, dashed=True)
        if mistake.found_box:
            _outline(draw, _scaled(mistake.found_box, scale, size), colour, line, dashed=False)
    taken: list[tuple[float, float]] = []
    for n, mistake in shown:
        x, y, _, _ = _scaled(mistake.found_box or mistake.true_box, scale, size)
        step = 9 * line
        x, y = min(x, size[0] - step), min(y, size[1] - step)
        while any(abs(x - other[0]) < step and abs(y - other[1]) < step for other in taken) and y < size[1] - step:
            y += step  # below the existing label
        taken.append((x, y))
        draw_label(draw, x, y, str(n), KIND_COLOURS[mistake.kind], line)
    return picture


def _scaled(box: Sequence[float], scale: float, size: tuple[int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (value * scale for value in box)
    right, bottom = size[0] - 1, size[1] - 1
    return (min(max(x1, 0), right), min(max(y1, 0), bottom), min(max(x2, 0), right), min(max(y2, 0), bottom))


def _outline(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: str, line: int, *, dashed: bool
) -> None:
    """Draw a rectangle with a white rim, visible on any background."""
    x1, y1, x2, y2 = box
    x2, y2 = max(x2, x1 + line), max(y2, y1 + line)
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = abs(end[0] - start[0]) + abs(end[1] - start[1])
        dash = 4 * line if dashed else max(1.0, length)
        place = 0.0
        while place < length:
            stop = min(place + dash, length)
            piece = [_along(start, end, place / length), _along(start, end, stop / length)]
            draw.line(piece, fill="white", width=line + 2)
            draw.line(piece, fill=colour, width=line)
            place = stop + (2.5 * line if dashed else 0)


def _along(start: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
