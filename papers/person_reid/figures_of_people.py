"""FigReID's drawings: procedural figures of clothed people, one image from an identity, a pose, a camera and nuisances.

No image shows a person: everything is drawn from random numbers with polygons and lines. Lengths are shares of the image's
height unless something else is said; images are drawn at twice their size and scaled down.
"""

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
View = Literal["front", "back", "left", "right"]

CLOTHES: tuple[Colour, ...] = (
    (200, 40, 40), (40, 70, 190), (40, 140, 60), (225, 205, 60), (235, 235, 235),
    (35, 35, 40), (130, 130, 135), (120, 75, 45), (130, 50, 150), (230, 130, 40),
)  # fmt: skip
SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (240, 200, 165), (215, 170, 125), (180, 130, 90), (130, 90, 60), (85, 60, 45)
)  # fmt: skip
HAIRS: tuple[Colour, ...] = ((25, 20, 20), (70, 45, 25), (130, 85, 45), (205, 170, 95), (150, 60, 35), (170, 170, 175))
PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "check", "dots", "logo")
VIEWS: tuple[View, ...] = ("front", "back", "left", "right")
SIDE_WIDTH = 0.62  # of the body seen from the side, over its width seen from the front
OVERSAMPLING = 2


@dataclass(frozen=True)
class Identity:
    """What makes a figure itself, in every image."""

    top: Colour
    second: Colour
    pattern: str
    frequency: int
    sleeve: Literal["short", "long"]
    bottom: Literal["trousers", "shorts", "skirt"]
    bottom_colour: Colour
    shoe: Colour
    skin: Colour
    hair: Colour
    hair_length: Literal["none", "short", "long"]
    cap: Colour | None
    bag: Literal["none", "backpack", "shoulder", "hand"]
    bag_colour: Colour
    height: float
    width: float


@dataclass(frozen=True)
class Camera:
    """What a camera does to every image.

    Attributes:
        gain: of red, green and blue.
        gamma: exponent of intensities.
        background: grey level of the ground, 0..255.
        texture: of the background.
        blur: standard deviation in pixels of an image of 128 rows.
        noise: standard deviation in grey levels.
        quality: of JPEG.
        foreshortening: height of a figure over its height seen from its own level.
    """

    gain: tuple[float, float, float]
    gamma: float
    background: Colour
    texture: Literal["gradient", "bars", "blocks"]
    blur: float
    noise: float
    quality: int
    foreshortening: float


@dataclass(frozen=True)
class Shot:
    """What belongs to one image alone.

    Attributes:
        view: the side of the figure that is seen.
        phase: of the gait, radians.
        shift: of the figure's axis from the middle, shares of the image's width.
        rise: of the feet from their usual place.
        scale: of the figure.
        brightness: factor on intensities.
        rectangles: coloured distractors behind the figure: (x, y, width, height, colour), shares of width and height.
        other: a second figure at an edge: (identity, side -1 or 1).
        occluder: (x, y, width, height, colour) in front of the figure.
        cut: share of the figure that is seen, from its head; 1 is all of it.
        motion: length of horizontal motion blur in pixels of an image of 128 rows; 0 is none.
        stretch: width of the box over its usual width.
    """

    view: View
    phase: float
    shift: float
    rise: float
    scale: float
    brightness: float
    rectangles: tuple[tuple[float, float, float, float, Colour], ...] = ()
    other: tuple[Identity, int] | None = None
    occluder: tuple[float, float, float, float, Colour] | None = None
    cut: float = 1.0
    motion: float = 0.0
    stretch: float = 1.0


def _background(camera: Camera, width: int, height: int) -> Image.Image:
    """The camera's wall and floor."""
    base = np.array(camera.background, dtype=np.float64)
    rows, columns = np.mgrid[0:height, 0:width]
    if camera.texture == "gradient":
        shade = 30 * (rows / height - 0.5)
    elif camera.texture == "bars":
        shade = 18 * np.sign(np.sin(2 * math.pi * columns / (height / 8)))
    else:
        side = max(height // 16, 1)
        shade = 22 * (((rows // side) * 7 + (columns // side) * 13) % 5 - 2) / 2
    return Image.fromarray((base + shade[..., None]).clip(0, 255).astype(np.uint8))


def _pattern(identity: Identity, size: tuple[int, int], box: tuple[float, float, float, float], view: View) -> Image.Image:
    """The cloth of the top, an image of which the torso takes what it covers."""
    cloth = Image.new("RGB", size, identity.top)
    pen = ImageDraw.Draw(cloth)
    left, upper, right, lower = box
    count = 2 * identity.frequency + 1
    tall, wide = (lower - upper) / count, (right - left) / count
    if identity.pattern in ("horizontal stripes", "check"):
        for k in range(1, count, 2):
            pen.rectangle((left, upper + k * tall, right, upper + (k + 1) * tall), fill=identity.second)
    if identity.pattern in ("vertical stripes", "check"):
        for k in range(1, count, 2):
            pen.rectangle((left + k * wide, upper, left + (k + 1) * wide, lower), fill=identity.second)
    if identity.pattern == "dots":
        radius = 0.55 * wide
        for j in range(count):
            for i in range(j % 2, count, 2):
                x, y = left + (i + 0.5) * wide, upper + (j + 0.5) * tall
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=identity.second)
    if identity.pattern == "logo" and view == "front":
        x, y = (left + right) / 2, upper + 0.33 * (lower - upper)
        radius = (right - left) * (0.12 + 0.04 * identity.frequency)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=identity.second)
    return cloth


def draw_figure(canvas: Image.Image, identity: Identity, shot: Shot, *, axis: float, feet: float, size: float) -> None:
    """Draw one figure into `canvas`.

    Args:
        canvas: RGB, changed.
        identity: whose figure.
        shot: view and phase of the gait.
        axis: x of the body's axis in pixels.
        feet: y of the ground in pixels.
        size: height of a figure of height 1 in pixels.
    """
    pen = ImageDraw.Draw(canvas)
    h = size * identity.height
    side = shot.view in ("left", "right")
    facing = {"left": -1, "right": 1}.get(shot.view, 0)
    half = 0.125 * h * identity.width * (SIDE_WIDTH if side else 1.0)  # of the shoulders
    swing = math.sin(shot.phase)
    shoulder, hip = feet - 0.81 * h, feet - 0.47 * h
    limb = max(round(0.055 * h * identity.width), 1)

    def leg(direction: int) -> None:
        x = axis + (0.0 if side else direction * 0.5 * half)
        foot = x + direction * swing * (0.13 if side else 0.02) * h
        ankle = feet - 0.025 * h
        knee = (x + foot) / 2, (hip + ankle) / 2
        covered = identity.bottom == "trousers"
        pen.line((x, hip, *knee), fill=identity.bottom_colour if identity.bottom != "skirt" else identity.skin, width=limb + 2)
        pen.line((*knee, foot, ankle), fill=identity.bottom_colour if covered else identity.skin, width=limb)
        toe = foot + facing * 0.05 * h
        pen.ellipse(
            (min(foot, toe) - 0.7 * limb, feet - 0.045 * h, max(foot, toe) + 0.7 * limb, feet + 0.005 * h), fill=identity.shoe
        )

    def arm(direction: int) -> tuple[float, float]:
        x = axis + (0.0 if side else direction * half)
        hand = x + (facing or direction) * (0.02 * h) + direction * swing * (-0.11 if side else -0.01) * h
        bottom = feet - 0.44 * h
        elbow = (x + hand) / 2 + direction * (0.0 if side else 0.015 * h), (shoulder + bottom) / 2
        pen.line((x, shoulder + 0.02 * h, *elbow), fill=identity.top, width=limb)
        pen.line((*elbow, hand, bottom), fill=identity.top if identity.sleeve == "long" else identity.skin, width=limb - 1)
        radius = 0.45 * limb
        pen.ellipse((hand - radius, bottom - radius, hand + radius, bottom + radius), fill=identity.skin)
        return hand, bottom

    def backpack(left: float, right: float) -> None:
        pen.rounded_rectangle((left, shoulder + 0.02 * h, right, hip - 0.06 * h), radius=0.02 * h, fill=identity.bag_colour)

    far, near = (-1, 1) if facing >= 0 else (1, -1)
    if side:
        arm(far)
    leg(far)
    leg(near)
    if identity.bottom == "skirt":
        pen.polygon(
            [(axis - 0.75 * half, hip - 0.02 * h), (axis + 0.75 * half, hip - 0.02 * h),
             (axis + 1.15 * half, hip + 0.19 * h), (axis - 1.15 * half, hip + 0.19 * h)],
            fill=identity.bottom_colour,
        )  # fmt: skip
    if identity.bag == "backpack" and side:
        behind = axis - facing * (half + 0.055 * h)
        backpack(min(behind, axis), max(behind, axis))
    torso = [(axis - half, shoulder), (axis + half, shoulder), (axis + 0.78 * half, hip), (axis - 0.78 * half, hip)]
    mask = Image.new("1", canvas.size)
    ImageDraw.Draw(mask).polygon(torso, fill=1)
    canvas.paste(_pattern(identity, canvas.size, (axis - half, shoulder, axis + half, hip), shot.view), mask=mask)
    if identity.bag == "backpack" and shot.view == "back":
        backpack(axis - 0.7 * half, axis + 0.7 * half)
    if not side:
        arm(far)
    hand = arm(near)
    if identity.bag == "shoulder":
        pen.line((axis - 0.8 * half, shoulder, axis + 0.9 * half, hip), fill=identity.bag_colour, width=max(limb // 3, 1))
        x = axis + 0.9 * half
        pen.rectangle((x - 0.045 * h, hip - 0.02 * h, x + 0.045 * h, hip + 0.07 * h), fill=identity.bag_colour)
    if identity.bag == "hand":
        pen.rectangle((hand[0] - 0.05 * h, hand[1], hand[0] + 0.05 * h, hand[1] + 0.1 * h), fill=identity.bag_colour)

    radius = 0.06 * h
    x, y = axis + facing * 0.015 * h, feet - 0.9 * h
    pen.rectangle((axis - 0.025 * h, y, axis + 0.025 * h, shoulder + 0.01 * h), fill=identity.skin)
    if identity.hair_length == "long":
        back = x - facing * 0.025 * h
        pen.rectangle((back - 1.05 * radius, y, back + 1.05 * radius, shoulder + 0.05 * h), fill=identity.hair)
    pen.ellipse((x - 0.85 * radius, y - radius, x + 0.85 * radius, y + radius), fill=identity.skin)
    if identity.hair_length != "none":
        if shot.view == "back":
            pen.ellipse((x - 0.9 * radius, y - 1.05 * radius, x + 0.9 * radius, y + 0.8 * radius), fill=identity.hair)
        else:
            start, end = {"front": (180, 360), "left": (200, 450), "right": (90, 340)}[shot.view]
            pen.pieslice(
                (x - 0.95 * radius, y - 1.1 * radius, x + 0.95 * radius, y + 0.9 * radius), start, end, fill=identity.hair
            )
    if identity.cap is not None:
        pen.pieslice((x - radius, y - 1.2 * radius, x + radius, y + 0.8 * radius), 180, 360, fill=identity.cap)
        if shot.view != "back":
            reach = facing * 0.07 * h
            pen.rectangle(
                (min(x, x + reach) - 0.6 * radius, y - 0.25 * radius, max(x, x + reach) + 0.6 * radius, y), fill=identity.cap
            )


def draw_image(identity: Identity, camera: Camera, shot: Shot, size: tuple[int, int], noise: np.random.Generator) -> np.ndarray:
    """One image of an identity.

    Args:
        identity: whose.
        camera: which takes it.
        shot: pose and nuisances.
        size: height and width in pixels.
        noise: draws the camera's noise.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = size
    H, W = OVERSAMPLING * height, round(OVERSAMPLING * width / shot.stretch)
    canvas = _background(camera, W, H)
    pen = ImageDraw.Draw(canvas)
    for x, y, wide, tall, colour in shot.rectangles:
        pen.rectangle((x * W, y * H, (x + wide) * W, (y + tall) * H), fill=colour)
    tall = 0.94 * H * shot.scale * camera.foreshortening / shot.cut
    feet = 0.97 * H + shot.rise * H
    if shot.cut < 1:  # the head stays where it is, what is below the cut leaves the image
        feet = 0.06 * H + shot.rise * H + tall
    if shot.other is not None:
        other, edge = shot.other
        draw_figure(canvas, other, shot, axis=W * (0.5 + 0.48 * edge), feet=feet - 0.03 * H, size=0.95 * tall)
    draw_figure(canvas, identity, shot, axis=W * (0.5 + shot.shift), feet=feet, size=tall)
    if shot.occluder is not None:
        x, y, wide, high, colour = shot.occluder
        pen.rectangle((x * W, y * H, (x + wide) * W, (y + high) * H), fill=colour)
    pixels = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255
    pixels = (pixels * np.array(camera.gain) * shot.brightness).clip(0, 1) ** camera.gamma
    if shot.motion:
        pixels = _motion_blur(pixels, max(round(shot.motion * height / 128), 1))
    image = Image.fromarray((255 * pixels).round().astype(np.uint8))
    if camera.blur:
        image = image.filter(ImageFilter.GaussianBlur(camera.blur * height / 128))
    grainy = np.asarray(image, dtype=np.float64) + noise.normal(0, camera.noise, (height, width, 3))
    stream = io.BytesIO()
    Image.fromarray(grainy.round().clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=camera.quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def _motion_blur(pixels: np.ndarray, length: int) -> np.ndarray:
    """Mean over `length` neighbours in a row; edges are repeated."""
    padded = np.pad(pixels, ((0, 0), (length // 2, length - 1 - length // 2), (0, 0)), mode="edge")
    return np.stack([padded[:, k : k + pixels.shape[1]] for k in range(length)]).mean(axis=0)
