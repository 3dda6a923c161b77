"""Who includes whom: every #include of ours against the rooms that its folder's CMakeLists.txt names under USES.

CMake's targets cannot say it, since all rooms share one include path. Also what headers must not include.
"""
import re
import sys
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
ROOT = ROOT if ROOT.is_dir() else ROOT.parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)


def folder_of(room_file):
    parts = room_file.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "engine" else parts[0]


# folder -> folders that it may include; a room is named by its target, a folder may hold several
homes, uses = {}, {}
for cmake in [*ROOT.glob("engine/*/CMakeLists.txt"), ROOT / "models/CMakeLists.txt", ROOT / "kernels/CMakeLists.txt"]:
    for call in re.findall(r"lehr_room\((.*?)\)", cmake.read_text(), re.S):
        words = call.split()
        room = words[words.index("NAME") + 1]
        homes[room] = folder_of(cmake)
        named = words[words.index("USES") + 1:] if "USES" in words else []
        for i, word in enumerate(named):
            if word.isupper():
                named = named[:i]
                break
        uses.setdefault(homes[room], set()).update(named)
may = {folder: {homes[room] for room in rooms} | {folder} for folder, rooms in uses.items()}
may["engine/cuda"] = {"engine/cuda", "engine/base", "kernels"}  # a library of its own
may["kernels"] = {"kernels"}
everything = set(may) - {"engine/cuda"}

problems = []
for path in sorted([*ROOT.glob("engine/**/*"), *ROOT.glob("models/**/*"), *ROOT.glob("kernels/**/*")]):
    if path.suffix not in (".cpp", ".h", ".cu", ".inc", ".cuh"):
        continue
    folder = folder_of(path)
    allowed = everything if folder.startswith("engine/main") else may.get(folder)
    if allowed is None:
        problems.append(f"{path.relative_to(ROOT)}: its folder declares no room")
        continue
    for match in INCLUDE.finditer(path.read_text()):
        kind, name = match.groups()
        where = f"{path.relative_to(ROOT)}:{path.read_text()[:match.start()].count(chr(10)) + 1}"
        if kind == '"':
            if not (ROOT / name).exists():
                problems.append(f'{where}: "{name}" is no path from the top of the tree')
            elif folder_of(ROOT / name) not in allowed:
                problems.append(f"{where}: {folder} may not include {name}")
        elif name in ("torch/torch.h", "torch/extension.h") and path.suffix != ".cpp":
            problems.append(f"{where}: <{name}> costs half a minute wherever a header brings it")
        elif path.suffix == ".cu" and name.startswith(("torch/", "ATen/", "c10/")):
            problems.append(f"{where}: a .cu file sees no LibTorch")

print("\n".join(problems) or f"{len(may)} folders include whom they may")
sys.exit(bool(problems))
