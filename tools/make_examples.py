"""Makes the example pictures: two photographs that scikit-learn ships (CC BY), made smaller, and two drawings.

python -m tools.make_examples
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_image

FOLDER = Path(__file__).parents[1] / "assets" / "examples"


def photographs() -> None:
    """china.jpg (Peter Koe, CC BY 2.0) and flower.jpg (dany13, CC BY 2.0), as shipped with scikit-learn."""
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(FOLDER / f"{name}.jpg", quality=88)


def candle() -> Image.Image:
    """A burning candle in a dark room."""
    glow = Image.new("RGB", (480, 480), (22, 14, 10))
    draw = ImageDraw.Draw(glow)
    for radius in range(230, 0, -4):
        warmth = 1 - radius / 230
        colour = (int(22 + 170 * warmth**2), int(14 + 95 * warmth**2), int(10 + 25 * warmth**2))
        draw.ellipse((240 - radius, 165 - radius, 240 + radius, 165 + radius), fill=colour)
    draw.rectangle((205, 230, 275, 430), fill=(236, 224, 196))
    draw.ellipse((205, 215, 275, 245), fill=(250, 238, 205))
    draw.polygon([(240, 75), (262, 160), (258, 205), (240, 222), (222, 205), (218, 160)], fill=(255, 170, 40))
    draw.polygon([(240, 115), (252, 170), (240, 212), (228, 170)], fill=(255, 244, 190))
    draw.line((240, 205, 240, 228), fill=(40, 30, 25), width=4)
    draw.ellipse((150, 415, 330, 460), fill=(140, 105, 50))
    return glow.filter(ImageFilter.GaussianBlur(2.5))


def lemons() -> Image.Image:
    """Two lemons on a board."""
    picture = Image.new("RGB", (480, 480), (232, 228, 220))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 300, 480, 480), fill=(150, 104, 66))
    for x, y in ((70, 190), (215, 225)):
        draw.ellipse((x, y + 120, x + 210, y + 165), fill=(105, 70, 44))
        draw.ellipse((x, y, x + 200, y + 145), fill=(240, 205, 35))
        draw.polygon([(x + 188, y + 50), (x + 224, y + 72), (x + 188, y + 98)], fill=(236, 198, 30))
        draw.ellipse((x + 35, y + 20, x + 110, y + 62), fill=(252, 232, 110))
    return picture.filter(ImageFilter.GaussianBlur(3))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    photographs()
    candle().save(FOLDER / "candle.jpg", quality=88)
    lemons().save(FOLDER / "lemons.jpg", quality=88)
