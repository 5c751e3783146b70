# The image: what its recipe says, and whether what it will hold is enough to run.
# shellcheck shell=bash
: "${work:?is sourced by run}" "${light?}"

# What the last stage of deploy/Dockerfile holds: the program, the libraries that it names, certificates, time zones, one user.
image_root() {
    local root=$1 library
    mkdir -p "$root/usr/bin" "$root/usr/share" "$root/etc/ssl/certs" "$root/tmp"
    cp "$CRIER_BIN" "$root/usr/bin/crier"
    ldd "$CRIER_BIN" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp -r /usr/share/zoneinfo "$root/usr/share/"
    echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$root/etc/passwd"
}

# within ROOT COMMAND…   as the image's user, with the root mounted read-only and an empty /tmp; nothing else is there.
within() {
    local root=$1
    shift
    # shellcheck disable=SC2016
    unshare --mount -- sh -ec '
        root=$1
        shift
        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        exec env -i TMPDIR=/tmp unshare --root="$root" --wd=/tmp --setgid=65532 --setuid=65532 /usr/bin/crier "$@"
    ' sh "$root" "$@"
}

demo_balances() {
    within "$work/image" demo >"$work/demo" 2>&1 || { cat "$work/demo"; return 1; }
    grep 'the rows balance' "$work/demo"
}

# A ledger is made where the image may be written, and not elsewhere.
root_is_read_only() {
    within "$work/image" migrate --set ledger.url=sqlite:///tmp/ledger.db || return 1
    ! within "$work/image" migrate --set ledger.url=sqlite:///usr/ledger.db
}

# Time zones are no part of the program: the check of the root can fail.
zones_are_needed() {
    mv "$work/image/usr/share/zoneinfo" "$work/zoneinfo"
    local said status=0
    said=$(within "$work/image" config 2>&1) || status=$?
    mv "$work/zoneinfo" "$work/image/usr/share/zoneinfo"
    [ "$status" -eq 4 ] && printf '%s\n' "$said" | grep ingest.zone
}

# The recipe's compiler is the one that the workspace asks for, and its health check is a command that there is.
recipe_is_current() {
    local wanted
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
    grep "^FROM rust:$wanted-bookworm AS chef" deploy/Dockerfile || { echo "not Rust $wanted"; return 1; }
    grep '"/usr/bin/crier", "doctor", "--live"' deploy/Dockerfile
    "$CRIER_BIN" doctor --help | grep -e '--live' || { echo "crier doctor has no --live"; return 1; }
}

if [ -n "$light" ]; then
    check "hadolint finds nothing" silent "$light/hadolint" deploy/Dockerfile
    printf 'FROM debian:latest\nRUN cd /tmp && sudo apt-get install curl\n' >"$work/Dockerfile"
    check "hadolint finds what is bad" not_silent "$light/hadolint" "$work/Dockerfile"
else
    cannot "the Dockerfile's lint" "hadolint can't be had"
fi
check "the recipe is current" recipe_is_current
if unshare --mount true 2>/dev/null; then
    image_root "$work/image"
    check "crier runs in the image's root, read-only, as another user" within "$work/image" --version
    check "its settings are read there" within "$work/image" config
    check "a campaign is sent and balances there" demo_balances
    check "that root can't be written" root_is_read_only
    check "time zones belong to it" zones_are_needed
else
    cannot "the image's root" "mounts can't be made here"
fi
