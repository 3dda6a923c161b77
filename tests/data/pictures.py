"""Pictures and npy arrays as Pillow and numpy write and see them, for picture_test.cpp: pictures.py FOLDER"""
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

warnings.simplefilter("ignore")  # of transparency that convert() drops
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


def keep_both(name):
    """What Pillow makes of a file, in colour and in grey."""
    image = Image.open(f"{folder}/{name}")
    keep(name + ".rgb", image.convert("RGB"))
    keep(name + ".grey", image.convert("L"))


# --- PNG: every colour type and depth, interlaced or not, and what may stand beside the samples
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
WIDTH, HEIGHT = 13, 11  # no multiple of 8 pixels


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scanlines(samples, depth):
    """Rows of samples [H, W, C] as a PNG has them, unfiltered."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth:]
    return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(len(rows), -1))


def png(name, colour, depth, interlaced=False, beside=b"", after=b"", colours=None):
    high = 2**depth if colour != 3 else min(2**depth, len(colours))
    samples = random.integers(0, high, (HEIGHT, WIDTH, CHANNELS[colour]))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [samples]
    data = b"".join(scanlines(part, depth) for part in parts if part.size)
    palette = chunk(b"PLTE", colours.astype(np.uint8).tobytes()) if colours is not None else b""
    with open(f"{folder}/{name}", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, int(interlaced))))
        file.write(beside + palette + after)
        file.write(chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    if colour == 0 and depth == 16:  # which Pillow clips
        grey = np.floor(samples[..., 0] / 257 + 0.5).astype(np.uint8)
        keep(name + ".grey", grey)
        keep(name + ".rgb", np.repeat(grey[..., None], 3, -1))
    else:
        keep_both(name)


for colour, depths in [(0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))]:
    for depth in depths:
        for interlaced in (False, True):
            colours = random.integers(0, 256, (2**depth, 3)) if colour == 3 else None
            png(f"suite_{colour}_{depth}_{int(interlaced)}.png", colour, depth, interlaced, colours=colours)
gammas = {"100": chunk(b"gAMA", struct.pack(">I", 100000)), "55": chunk(b"gAMA", struct.pack(">I", 55556)),
          "45": chunk(b"gAMA", struct.pack(">I", 45455)), "srgb": chunk(b"sRGB", b"\0"),
          "chrm": chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"cHRM", struct.pack(
              ">8I", 31270, 32900, 70000, 30000, 20000, 70000, 15000, 6000)),
          "profile": chunk(b"iCCP", b"odd\0\0" + zlib.compress(b"no profile"))}
for name, beside in gammas.items():
    for colour, depth in [(0, 8), (0, 16), (2, 8), (3, 8), (6, 8)]:
        colours = random.integers(0, 256, (200, 3)) if colour == 3 else None
        png(f"suite_{colour}_{depth}_{name}.png", colour, depth, beside=beside, colours=colours)
png("suite_0_8_key.png", 0, 8, after=chunk(b"tRNS", struct.pack(">H", 7)))
png("suite_2_8_key.png", 2, 8, after=chunk(b"tRNS", struct.pack(">3H", 7, 8, 9)))
png("suite_3_8_key.png", 3, 8, after=chunk(b"tRNS", bytes(range(0, 200, 2))),
    colours=random.integers(0, 256, (200, 3)))
# indices beyond the palette
short = open(f"{folder}/suite_3_8_0.png", "rb").read()
at = short.index(b"PLTE") - 4
with open(f"{folder}/suite_3_8_short.png", "wb") as file:
    file.write(short[:at] + chunk(b"PLTE", short[at + 8:at + 8 + 30]) + short[at + 12 + 768:])
keep_both("suite_3_8_short.png")

# --- JPEG: colours of four inks, and odd ways to write a file whose pixels are whole
inks = Image.fromarray(np.concatenate([pixels, 255 - pixels[..., :1] // 2], -1), mode="CMYK")
inks.save(f"{folder}/odd_inks.jpg", quality=92)


def odd(name, source, *changes):
    """A JPEG with bytes changed where `find` stands: changes are (find, offset, bytes)."""
    data = bytearray(open(f"{folder}/{source}", "rb").read())
    for find, offset, value in changes:
        at = data.index(find) + offset
        data[at:at + len(value)] = value
    with open(f"{folder}/{name}", "wb") as file:
        file.write(data)


odd("odd_ycck.jpg", "odd_inks.jpg", (b"Adobe", 11, b"\2"))  # the same samples, said to be YCCK
data = open(f"{folder}/odd_inks.jpg", "rb").read()
at = data.index(b"\xff\xee")
with open(f"{folder}/odd_plain_inks.jpg", "wb") as file:  # without a word of Adobe's
    file.write(data[:at] + data[at + 16:])
scan = b"\xff\xda\0\x0c\3"
odd("odd_scan.jpg", "colour.jpg", (scan, 11, b"\0\0\0"))  # as telephones write: no coefficients named
odd("odd_transform.jpg", "odd_inks.jpg", (b"Adobe", 11, b"\7"))
odd("odd_version.jpg", "colour.jpg", (b"JFIF", 5, b"\7"))
data = open(f"{folder}/colour.jpg", "rb").read()
at = data.index(b"\xff\xc4")
with open(f"{folder}/odd_stray.jpg", "wb") as file:  # bytes between two segments
    file.write(data[:at] + b"stray" + data[at:])
with open(f"{folder}/odd_trailer.jpg", "wb") as file:
    file.write(data + b"what a camera adds")
for name in ["inks", "ycck", "plain_inks", "scan", "transform", "version", "stray", "trailer"]:
    keep_both(f"odd_{name}.jpg")
odd("twelve.jpg", "colour.jpg", (b"\xff\xc0", 4, b"\x0c"))  # 12 bits a sample
keep("colour_as_luma", Image.open(f"{folder}/colour.jpg").convert("L"))
turned = Image.Exif()
turned[0x0112] = 6  # turn by a quarter
rgb.save(f"{folder}/odd_turned.jpg", quality=92, exif=turned)
keep_both("odd_turned.jpg")


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
