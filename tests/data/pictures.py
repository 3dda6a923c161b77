"""Pictures and npy arrays as Pillow and numpy write and see them, for picture_test.cpp: pictures.py FOLDER"""
import sys

import numpy as np
from PIL import Image

folder = sys.argv[1]
random = np.random.default_rng(1)
y, x = np.mgrid[0:61, 0:83]
smooth = np.stack([127 + 120 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], -1)
pixels = np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
rgb = Image.fromarray(pixels)


def keep(name, image):
    np.save(f"{folder}/{name}.npy", np.ascontiguousarray(np.asarray(image))[None])


for name, image in [("rgb.png", rgb), ("grey.png", rgb.convert("L")), ("palette.png", rgb.quantize(16)),
                    ("colour.jpg", rgb), ("luma.jpg", rgb.convert("L")), ("progressive.jpg", rgb)]:
    image.save(f"{folder}/{name}", **(dict(quality=92, progressive="prog" in name) if "jpg" in name else {}))
    keep(name, Image.open(f"{folder}/{name}").convert("RGB"))
keep("rgb_as_luma", rgb.convert("L"))
transparent = rgb.convert("RGBA")
transparent.putalpha(Image.fromarray(((x + y) % 2 * 255).astype(np.uint8)))
transparent.save(f"{folder}/alpha.png")
keep("alpha.png", Image.fromarray(pixels * ((x + y) % 2).astype(np.uint8)[..., None]))


def scaled_to(width, height):
    """Across, then down: Pillow did so always before release 13, which begins with what is less work."""
    return rgb.resize((width, 61), Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)


for width, height in [(28, 28), (83, 20), (20, 61), (200, 150), (1, 1), (97, 31)]:
    keep(f"resize_{width}x{height}", scaled_to(width, height))
# shorter side to 32, then the centre 28 x 28, as torchvision does
scaled = scaled_to(int(32 * 83 / 61), 32)
left, top = round((scaled.width - 28) / 2.0), round((scaled.height - 28) / 2.0)
keep("centre", scaled.crop((left, top, left + 28, top + 28)))

np.lib.format.write_array(open(f"{folder}/v2.npy", "wb"), np.arange(6, dtype="<i8").reshape(2, 3), version=(2, 0))
np.lib.format.write_array(open(f"{folder}/v3.npy", "wb"), np.arange(6, dtype="<u2").reshape(6), version=(3, 0))
np.save(f"{folder}/fortran.npy", np.asfortranarray(np.arange(6, dtype="u1").reshape(2, 3)))
