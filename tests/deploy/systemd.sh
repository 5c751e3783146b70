# The units on a prepared root: none of systemd's own state is touched, and nothing is booted.
# shellcheck shell=bash
: "${work:?is sourced by run}"

units=(crier.target crier-ingest.service crier-worker@1.service crier-reconciler.service crier-migrate.service)

# A root with the units where the package puts them, and the targets that systemd brings.
prepared_root() {
    local root=$1
    mkdir -p "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d" "$root/usr/bin" "$root/etc"
    cp /usr/lib/systemd/system/*.target /usr/lib/systemd/system/*.slice "$root/usr/lib/systemd/system/"
    cp deploy/systemd/*.service deploy/systemd/*.target "$root/usr/lib/systemd/system/"
    cp deploy/systemd/sysusers.conf "$root/usr/lib/sysusers.d/crier.conf"
    cp deploy/systemd/tmpfiles.conf "$root/usr/lib/tmpfiles.d/crier.conf"
    printf '#!/bin/sh\n' >"$root/usr/bin/crier"
    chmod +x "$root/usr/bin/crier"
}

verify() {
    systemd-analyze verify --root="$1" --recursive-errors=yes --man=no "${units[@]}"
}

# One key misspelt, one value that is none, one service that is not there.
broken() {
    local root=$work/broken
    local file=$root/usr/lib/systemd/system/$1
    rm -rf "$root"
    prepared_root "$root"
    sed -i "$2" "$file"
    ! cmp -s "$file" "deploy/systemd/$1" || { echo "$1 was not changed by $2"; return 1; }
    not_silent verify "$root"
}

exposed() {
    systemd-analyze security --root="$1" --offline=true --threshold=15 --no-pager "$2"
}

# Without what confines it, it is over the threshold: the check can fail.
exposed_when_open() {
    local root=$work/open
    rm -rf "$root"
    prepared_root "$root"
    sed -i '/^ProtectSystem=\|^PrivateDevices=\|^CapabilityBoundingSet=/d' "$root/usr/lib/systemd/system/crier-ingest.service"
    ! exposed "$root" crier-ingest.service
}

account_exists() {
    systemd-sysusers --root="$1" || return 1
    grep -q '^crier:' "$1/etc/passwd" || { echo "no user crier"; return 1; }
    grep -q '^crier-drop:.*:crier$' "$1/etc/group" || { echo "crier is not in crier-drop"; cat "$1/etc/group"; return 1; }
}

# The modes and the owners by name, as the root's own passwd and group have them.
folders_exist() {
    local root=$1 user group drop folder
    systemd-tmpfiles --root="$root" --create crier.conf || return 1
    user=$(sed -n 's/^crier:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
    drop=$(sed -n 's/^crier-drop:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
    for folder in . inbox processing "done" refused; do
        group=$(stat -c '%a %u %g' "$root/var/spool/crier/$folder")
        [ "$group" = "2770 $user $drop" ] || { echo "$folder is $group, not 2770 $user $drop"; return 1; }
    done
    [ "$(stat -c '%a %u %g' "$root/etc/crier/credentials")" = "700 0 0" ]
}

# Each service gets each secret that it names, by LoadCredential, and names no file elsewhere.
credentials_are_loaded() {
    local file loaded named
    for file in deploy/systemd/*.service; do
        loaded=$(sed -n 's/^LoadCredential=\([^:]*\):.*/\1/p' "$file" | sort)
        named=$(sed -n 's/^Environment=CRIER_[A-Z_]*_FILE=%d\/\(.*\)/\1/p' "$file" | sort)
        [ -n "$loaded" ] || { echo "$file gets no secret"; return 1; }
        [ "$loaded" = "$named" ] || { echo "$file: $loaded / $named"; return 1; }
        [ "$(grep -c '_FILE=' "$file")" = "$(grep -c '_FILE=%d/' "$file")" ] || { echo "$file names another place"; return 1; }
    done
    # What reads people's files can't send.
    ! grep -n 'gateway' deploy/systemd/crier-ingest.service deploy/systemd/crier-migrate.service | grep -v '#'
}

# What the three services have in common is said in each of them, in the same words.
confined_alike() {
    local file first
    first=$(sed -n '/^# Nothing of this/,/^$/p' deploy/systemd/crier-ingest.service)
    for file in deploy/systemd/*.service; do
        [ "$(sed -n '/^# Nothing of this/,/^$/p' "$file")" = "$first" ] || { echo "$file is confined otherwise"; return 1; }
    done
}

if have systemd-analyze; then
    prepared_root "$work/root"
    check "systemd-analyze verify prints nothing" silent verify "$work/root"
    check "a misspelt key is found" broken crier-ingest.service 's/^WatchdogSec/WachdogSec/'
    check "a wrong value is found" broken crier-worker@.service 's/^Type=notify/Type=notified/'
    check "a wrong program is found" broken crier-reconciler.service 's,^ExecStart=/usr/bin,ExecStart=/nowhere,'
    for unit in "${units[@]:1}"; do
        check "the exposure of $unit is at most 1.5" exposed "$work/root" "$unit"
    done
    check "an unconfined service is over that" exposed_when_open
else
    cannot "the units" "systemd-analyze is not here"
fi
check "the services are confined alike" confined_alike
check "each secret comes by LoadCredential" credentials_are_loaded
if [ "$(id -u)" -ne 0 ]; then
    cannot "sysusers and tmpfiles" "only root can give files away, on a prepared root too"
elif have systemd-sysusers && have systemd-tmpfiles; then
    check "systemd-sysusers makes the user and the group" account_exists "$work/root"
    check "systemd-tmpfiles makes the drop folder 2770" folders_exist "$work/root"
else
    cannot "sysusers and tmpfiles" "systemd is not here"
fi

# A request in flight may take gateway.send_timeout and 30 s more before its outcome is recorded.
stop_is_waited_for() {
    local send stop file
    send=$(env -i HOME="$work" "$CRIER_BIN" config | sed -n 's/^gateway\.send_timeout\t\([0-9]*\)s\t.*/\1/p')
    [ -n "$send" ] || { echo "crier config does not tell gateway.send_timeout"; return 1; }
    for file in deploy/systemd/crier-worker@.service deploy/systemd/crier-reconciler.service deploy/systemd/crier-ingest.service; do
        stop=$(sed -n 's/^TimeoutStopSec=//p' "$file")
        [ "$stop" -gt $((send + 30)) ] || { echo "$file: $stop s for $send s and 30 s"; return 1; }
    done
}
check "the end of what is in flight is waited for" stop_is_waited_for

# expand SET…   the calls of these sets of systemd's, and of the sets in them.
expand() {
    local call
    systemd-analyze --no-pager syscall-filter "$@" | sed -n 's/^    \([@a-z].*\)/\1/p' | while read -r call; do
        case $call in
            @*) expand "$call" ;;
            *) echo "$call" ;;
        esac
    done
}

# Every system call of a whole campaign, made as another user, is one that the units let through.
calls_are_let_through() {
    local place=$work/traced allowed denied
    read -ra allowed < <(sed -n 's/^SystemCallFilter=\([^~]\)/\1/p' deploy/systemd/crier-worker@.service)
    read -ra denied < <(sed -n 's/^SystemCallFilter=~//p' deploy/systemd/crier-worker@.service)
    mkdir "$place"
    cp "$CRIER_BIN" "$place/crier"
    chmod -R a+rwX "$work/traced" && chmod a+x "$work"
    (cd "$place" && env -i PATH="$PATH" HOME="$place" setpriv --reuid=65532 --regid=65532 --clear-groups \
        strace -f -qq -o "$place/calls" ./crier demo >"$place/said" 2>&1) || { cat "$place/said"; return 1; }
    sed -E 's/^[0-9]+ +//' "$place/calls" | grep -oE '^[a-z_0-9]+\(' | tr -d '(' | sort -u >"$place/used"
    comm -23 <(expand "${allowed[@]}" | sort -u) <(expand "${denied[@]}" | sort -u) >"$place/allowed"
    [ "$(wc -l <"$place/used")" -gt 40 ] || { echo "few calls were seen"; cat "$place/used"; return 1; }
    silent comm -13 "$place/allowed" "$place/used"
}
if ! have systemd-analyze || ! have strace; then
    cannot "the filter of system calls" "systemd-analyze or strace is not here"
elif [ "$(id -u)" -ne 0 ] || ! strace -qq -o /dev/null true 2>/dev/null; then
    cannot "the filter of system calls" "no other user's program can be traced here"
else
    check "a campaign's system calls are let through" calls_are_let_through
fi

# settings_of FILE PLACE   the variables that a unit or crier-admin sets, with the credentials in PLACE.
settings_of() {
    sed -n -e 's/^Environment=//p' -e 's/^export //p' "$1" | tr -d '"' | sed "s,%d\|\$credentials,$2,; s,%i,1,"
}

# crier reads the example settings with each unit's variables, and finds every credential that it is given.
settings_are_read() {
    local place=$work/credentials file settings
    mkdir -p "$place"
    printf 'postgres://crier@db/crier' >"$place/ledger-url"
    printf 'redis://redis:6379' >"$place/queue-url"
    for file in client-id client-secret username password; do printf secret >"$place/gateway-$file"; done
    for file in deploy/systemd/*.service deploy/systemd/crier-admin; do
        mapfile -t settings < <(settings_of "$file" "$place")
        env -i "${settings[@]}" "$CRIER_BIN" --config "$1" config >"$work/config" || { echo "$file: refused"; return 1; }
        grep -qP '^ledger.url\tpostgres:' "$work/config" || { echo "$file: no ledger"; cat "$work/config"; return 1; }
    done
    # What the tops say in comments is true: each line that can be put in force is a setting.
    sed 's/^# \([a-z_]* = \)/\1/' "$1" >"$work/all.toml"
    env -i "$CRIER_BIN" --config "$work/all.toml" config >/dev/null
}
misspelt_setting_is_found() {
    sed 's/^# concurrency/# concurency/' deploy/systemd/crier.toml >"$work/misspelt.toml"
    ! settings_are_read "$work/misspelt.toml"
}
check "crier reads the settings of each unit" settings_are_read deploy/systemd/crier.toml
check "a misspelt setting is found" misspelt_setting_is_found
