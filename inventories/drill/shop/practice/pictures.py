"""Product pictures that people and programs can tell apart: colour, shape and number follow from the product's number.

Needs Pillow only, and no font: the digits are drawn as seven segments. The same number gives the same picture
everywhere, so that whoever checks the shop can draw the expected picture again and compare.
"""

import colorsys
from pathlib import Path

from PIL import Image, ImageDraw

COUNT = 24
SIZE = 900
_WHITE = (255, 255, 255)
_INK = (20, 20, 20)

#   a
# f   b
#   g
# e   c
#   d
_SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc",
    "5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg",
}  # fmt: skip


def background(number: int) -> tuple[int, int, int]:
    """Return the background colour; neighbours differ in hue, and in lightness too."""
    hue = (number * 7 % COUNT) / COUNT
    lightness = (0.35, 0.5, 0.65)[number % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(number: int) -> Image.Image:
    """Return the picture of product ``number`` (1 to 99)."""
    picture = Image.new("RGB", (SIZE, SIZE), background(number))
    pen = ImageDraw.Draw(picture)
    _shape(pen, number)
    for place, digit in enumerate(f"{number:02d}"):
        _digit(pen, digit, left=270 + place * 200, top=290)
    return picture


def write(number: int, path: Path) -> None:
    """Write the picture as JPEG, whole or not at all, readable for the web server."""
    temporary = path.with_name(f".{path.name}.new")
    draw(number).save(temporary, format="JPEG", quality=85)
    temporary.chmod(0o644)
    temporary.replace(path)


def _shape(pen: ImageDraw.ImageDraw, number: int) -> None:
    """Draw one of six white bodies, so that pictures differ without their colours."""
    kind = number % 6
    if kind == 0:
        pen.ellipse((70, 70, 830, 830), fill=_WHITE)
    elif kind == 1:
        pen.rectangle((130, 130, 770, 770), fill=_WHITE)
    elif kind == 2:
        pen.polygon([(450, 10), (890, 450), (450, 890), (10, 450)], fill=_WHITE)
    elif kind == 3:
        pen.rounded_rectangle((190, 20, 710, 880), radius=200, fill=_WHITE)
    elif kind == 4:
        pen.rounded_rectangle((20, 210, 880, 690), radius=120, fill=_WHITE)
    else:
        pen.polygon([(250, 30), (650, 30), (880, 870), (20, 870)], fill=_WHITE)


def _digit(pen: ImageDraw.ImageDraw, digit: str, left: int, top: int, width: int = 160, height: int = 320) -> None:
    """Draw one digit in seven segments."""
    thick = 36
    right, bottom, middle = left + width, top + height, top + height // 2
    boxes = {
        "a": (left, top, right, top + thick),
        "b": (right - thick, top, right, middle),
        "c": (right - thick, middle, right, bottom),
        "d": (left, bottom - thick, right, bottom),
        "e": (left, middle, left + thick, bottom),
        "f": (left, top, left + thick, middle),
        "g": (left, middle - thick // 2, right, middle + thick // 2),
    }
    for segment in _SEGMENTS[digit]:
        pen.rectangle(boxes[segment], fill=_INK)
