#!/bin/bash
# The report that the build made is the one that is kept here, and the archive holds it.
set -euo pipefail

cd "$TEST_SRCDIR/$TEST_WORKSPACE/report"
diff poem_report.golden poem_report.txt
tar --list --file archive.tar | grep --quiet 'report/poem_report.txt$'

scratch="$(mktemp -d "$TEST_TMPDIR/report.XXXXXX")"
tar --extract --file archive.tar --directory "$scratch"
test "$(find "$scratch" -type f | wc -l)" -eq 2
