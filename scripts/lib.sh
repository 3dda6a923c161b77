# Sourced by the other scripts: where things are, and how they speak.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=$root/.deps/venv
say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# what a stamp file says was done last equals what would be done now
done_already() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
