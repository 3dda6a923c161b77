#!/usr/bin/env bash
# libpng's simplified API (png_image_finish_read) gives wrong pixels for interlaced PNGs of 16 bits a sample that are read to
# 8 bits, since 1.6.51, and returns success without a warning: half of the rows hold those of another interlacing pass. Seen
# with 1.6.53 and 1.6.58, as wheels of Pillow carry them (1.6.50 is right), and with Debian's 1.6.39-2+deb12u4, which has the
# change too. Pillow itself reads by png_read_rows and is right with both.
# Why it matters: scans, depth maps and microscopy come in 16 bits. A loader on this API trains on pixels that no other tool
# sees, and an upgrade within a distribution changes them.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
cat > see.py <<'P'
import ctypes, glob, struct, sys, zlib
import PIL
from PIL import Image

class PngImage(ctypes.Structure):  # png_image of png.h
    _fields_ = [("opaque", ctypes.c_void_p)] + [(name, ctypes.c_uint32) for name in (
        "version", "width", "height", "format", "flags", "colormap_entries", "warning_or_error")] + [("message", ctypes.c_char * 64)]

png = ctypes.CDLL(glob.glob(PIL.__path__[0] + "/../pillow.libs/libpng16*")[0])
png.png_get_libpng_ver.restype = ctypes.c_char_p
png.png_image_finish_read.argtypes = [ctypes.POINTER(PngImage)] + [ctypes.c_void_p] * 2 + [ctypes.c_int32, ctypes.c_void_p]

def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
right = []
for name, passes in ("plain", [(0, 0, 1, 1)]), ("interlaced", ADAM7):
    # 8 x 8 grey samples 257 * k, which are k in 8 bits
    rows = b"".join(b"\0" + b"".join(struct.pack(">H", 257 * (8 * y + x)) for x in range(left, 8, dx))
                    for top, left, dy, dx in passes for y in range(top, 8, dy))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 0, 0, 0, name == "interlaced")
    with open(name + ".png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    image, pixels = PngImage(version=1), (ctypes.c_ubyte * 64)()
    png.png_image_begin_read_from_file(ctypes.byref(image), (name + ".png").encode())
    image.flags |= 4  # PNG_IMAGE_FLAG_16BIT_sRGB: samples as they are, no linear light
    image.format = 0  # PNG_FORMAT_GRAY
    success = png.png_image_finish_read(ctypes.byref(image), None, pixels, 0, None)
    right.append(sum(pixels[k] == k for k in range(64)))
    pillow = Image.open(name + ".png")
    pillow = sum(pillow.getpixel((k % 8, k // 8)) == 257 * k for k in range(64))
    print(f"libpng {png.png_get_libpng_ver(None).decode()}, {name}: returns {success}, message {image.message.decode()!r}, {right[-1]} of "
          f"64 pixels right, first row {list(pixels[:8])}; Pillow {PIL.__version__}: {pillow} of 64")
sys.exit(right != [64, int(sys.argv[1])])
P
for case in 12.0.0:64 13.0.0:32; do
  python3 -m venv "v${case%:*}" && "v${case%:*}/bin/pip" install -q --disable-pip-version-check "pillow==${case%:*}"
  "v${case%:*}/bin/python" see.py "${case#*:}" || { echo "changed: ${case#*:} right ones were expected of the interlaced file"; exit 1; }
done
