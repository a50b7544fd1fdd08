# Starts a program as an ordinary user, given in a mount namespace of its own:
#   unshare --mount --propagation private env --default-signal=INT,QUIT,HUP \
#       bash -c "$(cat start-as.sh)" start-as WAY USER PROGRAM ARGUMENTS…
#
# WAY  user             with one id
#      subordinate-ids  with subordinate ids, for which /etc/subuid, /etc/subgid and /etc/passwd are covered
#      container        in a bubblewrap container that allows user namespaces, as its PID 1
#
# No account needs to have the user. The program is started by a descriptor, for the user may not be able to
# reach it by its path. It is killed when the process that started this one ends.
set -euo pipefail
way=$1 user=$2
exec 9< "$3"
shift 3
program=/proc/self/fd/9
# Not the home of the user who runs the tests.
export HOME=/nonexistent
unset XDG_CACHE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR
as_user=(setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all --pdeathsig KILL)

# Covers a file with one that has another line at its end, and is gone with the mount namespace.
add_line() {
    local copy
    copy=$(mktemp)
    { cat "$1"; echo "$2"; } > "$copy"
    chmod 644 "$copy"
    mount --bind "$copy" "$1"
    rm "$copy"
}

# Starts a container, passes signals on to its PID 1, and ends with its exit status.
contain() {
    local state=${ACTIOND_TEST_STATE_DIR-/tmp}
    "${as_user[@]}" bwrap --unshare-user --unshare-pid --unshare-ipc --as-pid-1 --die-with-parent \
        --ro-bind / / --dev /dev --proc /proc --bind "$state" "$state" "$program" "$@" <&0 &
    local bwrap=$! status=0 told=
    for signal in TERM INT HUP QUIT; do
        # shellcheck disable=SC2064 # the process is known now
        trap "told=1; kill -$signal \$(cat /proc/$bwrap/task/$bwrap/children) 2> /dev/null || true" $signal
    done
    while :; do
        told= status=0
        wait "$bwrap" || status=$?
        [ -n "$told" ] || break
    done
    exit "$status"
}

case $way in
user) exec "${as_user[@]}" "$program" "$@" ;;
subordinate-ids)
    add_line /etc/passwd "actiond-test:x:$user:$user::/nonexistent:/usr/sbin/nologin"
    add_line /etc/subuid "$user:2000000:1000"
    add_line /etc/subgid "$user:2000000:1000"
    exec "${as_user[@]}" "$program" "$@"
    ;;
container) contain "$@" ;;
*) echo "start-as: no way $way" >&2; exit 2 ;;
esac
