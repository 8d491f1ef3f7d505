#!/usr/bin/env bash
# Kills a process that writes vectors, tears the end of its log, and damages files of collections, many
# times more than `cargo xtask test` does.
#
# Usage: tests/durability.sh [ROUNDS [MUTATIONS]]
#
#   ROUNDS      rounds of kill -9 and torn tails (1,000): no acknowledged write may be lost, and no
#               deleted record may come back
#   MUTATIONS   damaged segments, logs and snapshots (100,000): typed errors or right answers only
#
# A failure prints the line that repeats it. Takes some minutes after the build.
#
# Examples: tests/durability.sh
#           tests/durability.sh 200 10000
set -euo pipefail

case "${1:-}" in
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit
        ;;
esac
rounds=${1:-1000} mutations=${2:-100000}
for number in "$rounds" "$mutations"; do
    if ! [[ $number =~ ^[1-9][0-9]*$ ]]; then
        echo "$0: '$number' is not a number of rounds or mutations; see --help" >&2
        exit 2
    fi
done
cd "$(dirname "$0")/.."

run() {
    cargo test --release --quiet -p skerry-vector-index --lib "$@" -- --nocapture
}
echo "== $rounds rounds of kill -9"
SKERRY_CRASH_ROUNDS=$rounds run what_was_acknowledged_survives_kill_9
echo "== $mutations damaged files"
SKERRY_MUTATIONS=$mutations run damage_gives_typed_errors_or_right_answers
