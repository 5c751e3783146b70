# The package, of the program that is tried here: what is in it, and what Debian's own checker says.
# shellcheck shell=bash
: "${work:?is sourced by run}" "${CRIER_BIN:?}" "${tools:?}"

cargo_deb=$(command -v cargo-deb || true)
[ -n "$cargo_deb" ] || [ ! -x "$tools/cargo-deb/bin/cargo-deb" ] || cargo_deb=$tools/cargo-deb/bin/cargo-deb
if [ -z "$cargo_deb" ] && [ "${CRIER_DEB:-}" = install ]; then
    cargo install --locked --quiet --root "$tools/cargo-deb" cargo-deb && cargo_deb=$tools/cargo-deb/bin/cargo-deb
fi

package_is_built() {
    mkdir -p "$work/built/release"
    strip --output-file="$work/built/release/crier" "$CRIER_BIN" || return 1
    CARGO_TARGET_DIR=$work/built "$cargo_deb" --package crier --no-build --no-strip --fast --quiet || return 1
    mv "$work"/built/debian/crier_*.deb "$work/crier.deb"
}

# Modes and paths, as `dpkg-deb -c` prints them; a unit that is added to deploy/systemd must be in the package.
package_holds() {
    local wanted found unit
    wanted='-rwxr-xr-x ./usr/bin/crier
-rwxr-xr-x ./usr/sbin/crier-admin
-rw-r--r-- ./etc/crier/crier.toml
-rw-r--r-- ./usr/lib/sysusers.d/crier.conf
-rw-r--r-- ./usr/lib/tmpfiles.d/crier.conf
-rw-r--r-- ./usr/share/doc/crier/copyright'
    for unit in deploy/systemd/*.service deploy/systemd/*.target; do
        wanted="$wanted
-rw-r--r-- ./usr/lib/systemd/system/$(basename "$unit")"
    done
    found=$(dpkg-deb -c "$work/crier.deb" | awk '{print $1, $6}')
    diff <(printf '%s\n' "$wanted" | sort) <(printf '%s\n' "$found" | sort) | grep '^<' && return 1
    # Nothing of it is a secret's or a person's: those folders are made empty when it is installed.
    ! printf '%s\n' "$found" | grep 'credentials\|spool'
}

# What the package puts there is what systemd accepts, and what runs.
package_is_sound() {
    local root=$work/unpacked
    dpkg-deb -x "$work/crier.deb" "$root" || return 1
    "$root/usr/bin/crier" --version || return 1
    cp /usr/lib/systemd/system/*.target /usr/lib/systemd/system/*.slice "$root/usr/lib/systemd/system/"
    silent verify "$root"
}

if [ -z "$cargo_deb" ]; then
    cannot "the Debian package" "cargo-deb is not here (CRIER_DEB=install gets it)"
elif ! have dpkg-deb || ! have strip; then
    cannot "the Debian package" "dpkg-deb or strip is not here"
else
    check "the package is built" package_is_built
    check "it holds the program, the units and the settings" package_holds
    check "its units are accepted and its program runs" package_is_sound
    if have lintian; then
        check "lintian finds nothing" lintian --fail-on error,warning "$work/crier.deb"
    else
        cannot "lintian" "it is not here"
    fi
fi
