"""Draw the pictures of README and docs from the fitted sample person.

make demo && .venv/bin/python docs/pictures.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from talkhead.app.composer.idle_clip import idle_frames, load_idle
from talkhead.app.composer.paste import paste_mask
from talkhead.app.evaluation.measures.image import head_mask
from talkhead.app.home.identities import Home
from talkhead.crops import cut_crop
from talkhead.face import INNER_LIPS
from talkhead.types import UInt8

DOCS = Path(__file__).parent
SHEET_WIDTH = 1400


def shrink_sheet(sheet: Path, target: Path) -> None:
    """Write the contact sheet of the held-out frames at the README's width."""
    image = cv2.imread(str(sheet))
    scale = SHEET_WIDTH / image.shape[1]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def tint(image: UInt8, mask: UInt8, color: tuple[int, int, int]) -> UInt8:
    """Return an image in which the pixels of a mask are tinted with a color."""
    share = (mask > 127).astype(np.float32)[..., None] * 0.45
    return (image * (1 - share) + np.array(color) * share).astype(np.uint8)


def draw_regions(home: Path, target: Path) -> None:
    """Draw head, neck strip and mouth interior, and the area that is pasted when the mouth closes."""
    idle = load_idle(Home.locate(home).load())
    number = int(np.argmax(idle.codes[:, 0] ** 2))
    [whole] = idle_frames(idle.path, len(idle), number, number + 1)
    size = (idle.crop_height, idle.crop_width)
    crop = cut_crop(whole, idle.origins[number], size, idle.scale)
    rest = np.where(np.arange(idle.codes.shape[1]) < idle.face.n_mouth, idle.face.silence, 0)
    codes = np.stack([idle.codes[number], rest.astype(np.float32)])
    open_mouth, closed = idle.landmarks(number, codes)
    person = (idle.mask(number) * 255).astype(np.uint8)
    above = head_mask(open_mouth, size).astype(np.uint8) * 255
    pasted = (paste_mask(open_mouth, closed, size) * 255).astype(np.uint8)
    inner = np.zeros(size, np.uint8)
    cv2.fillPoly(inner, [open_mouth[list(INNER_LIPS)].astype(np.int32)], 255)
    regions = tint(crop, person & above, (60, 140, 255))
    regions = tint(regions, person & ~above & pasted, (80, 220, 120))
    regions = tint(regions, inner, (255, 60, 60))
    both = np.hstack([crop, regions, tint(crop, pasted, (255, 200, 0))])
    cv2.imwrite(str(target), both[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    shrink_sheet(demo / "identities" / "person" / "sheet.png", DOCS / "sample.png")
    draw_regions(demo, DOCS / "regions.png")
