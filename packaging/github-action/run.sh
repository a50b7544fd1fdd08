# The action's one step: runs INPUT_COMMAND with a server of its own, as the runner's user.
# Inputs are variables and never parts of a script, so that no input is executed but the command.
set -euo pipefail

# Ubuntu from 24.04 lets only programs with a profile make user namespaces that have rights. Hosted runners
# have sudo without a password; on other runners an administrator installs the package, which has a profile.
switch=${ACTIOND_TEST_APPARMOR_SWITCH-/proc/sys/kernel/apparmor_restrict_unprivileged_userns}
if [ "$(id -u)" != 0 ] && [ "$(cat "$switch" 2> /dev/null)" = 1 ]; then
    echo "actiond: AppArmor restricts user namespaces on this runner; allowing them until it ends"
    sudo --non-interactive sysctl --quiet kernel.apparmor_restrict_unprivileged_userns=0 ||
        echo "::warning::user namespaces stay restricted: install actiond's package, whose profile allows them"
fi

flags=()
while IFS= read -r flag; do
    [ -z "$flag" ] || flags+=("$flag")
done <<< "$INPUT_FLAGS"
[ -z "$INPUT_ROOT" ] || flags+=("--root=$INPUT_ROOT")

export ACTIOND_BAZELRC="$RUNNER_TEMP/actiond.bazelrc"
summary=$RUNNER_TEMP/actiond.stderr
status=0
"$INPUT_ACTIOND" run "${flags[@]}" --bazelrc-out="$ACTIOND_BAZELRC" -- bash -euo pipefail -c "$INPUT_COMMAND" \
    2> >(tee "$summary" >&2) || status=$?

# The last line tells how many actions ran, and how many results came from the cache. It passes through tee,
# which may be a moment behind, and which a process that the command left behind may keep from ending.
if [ -n "${GITHUB_STEP_SUMMARY-}" ]; then
    for _ in {1..50}; do
        line=$(grep '^linux-actiond: .*exit status' "$summary" | tail --lines=1) || true
        [ -z "$line" ] || break
        sleep 0.1
    done
    echo "$line" >> "$GITHUB_STEP_SUMMARY"
fi
exit "$status"
