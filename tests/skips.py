"""What the result files of a folder say was skipped, by reason. With --gate: fails where skips.txt does not name one.

The files are GoogleTest's, one for each ctest entry, and ctest's own (--output-junit)."""
import fnmatch
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

folder, gate = Path(sys.argv[1]), "--gate" in sys.argv
allowed = [line.split(None, 1) for line in Path(__file__).with_name("skips.txt").read_text().splitlines()
           if line and not line.startswith("#")]
ran, by_reason, unexpected = 0, {}, []
for file in sorted(folder.glob("*.xml")):
    for case in xml.parse(file).iter("testcase"):
        ran += 1
        skipped = case.find("skipped")
        if skipped is None and case.get("status") in ("run", "fail"):
            continue
        suite, name = case.get("classname"), case.get("name")
        name = name if suite == name else f"{suite}.{name}"
        said = case.findtext("system-out") or (skipped.get("message") if skipped is not None else "disabled")
        why = said.strip().splitlines()[-1]
        by_reason.setdefault(why, []).append(name)
        if not any(fnmatch.fnmatchcase(name, pattern) and words in why for pattern, words in allowed):
            unexpected.append(f"{name}: {why}")
count = sum(map(len, by_reason.values()))
if not gate:
    for why, names in sorted(by_reason.items()):
        print(f"skipped: {len(names)} ({why})")
    print(f"{count} of {ran} tests were skipped")
    sys.exit()
for line in unexpected:
    print(f"skipped, but not named in tests/skips.txt: {line}")
if not ran:
    sys.exit(f"no results of tests in {folder}")
if unexpected:
    sys.exit(f"{len(unexpected)} tests were skipped that must run here")
print(f"{count} of {ran} tests were skipped, each as tests/skips.txt says")
