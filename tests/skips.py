"""Names every test that was skipped, of the result files in a folder; fails where one is not in skips.txt."""
import fnmatch
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
allowed = [line.split()[0] for line in Path(__file__).with_name("skips.txt").read_text().splitlines()
           if line and not line.startswith("#")]
found, unexpected = {}, []
files = sorted(folder.glob("*.json"))
for file in files:
    for suite in json.loads(file.read_text())["testsuites"]:
        for test in suite["testsuite"]:
            if test["result"] != "SKIPPED":
                continue
            name = f"{test['classname']}.{test['name']}"
            why = test.get("skipped", [{}])[0].get("message", "").strip().splitlines()
            line = f"{name}: {why[-1] if why else 'no reason given'}"
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
                found.setdefault(why[-1] if why else "", []).append(name)
            else:
                unexpected.append(line)
for why, names in found.items():
    print(f"skipped, as tests/skips.txt allows: {len(names)} ({why})")
for line in unexpected:
    print(f"SKIPPED: {line}")
if not files:
    sys.exit(f"no results of tests in {folder}")
sys.exit(f"{len(unexpected)} test(s) were skipped that tests/skips.txt does not name" if unexpected else 0)
