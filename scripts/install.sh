#!/bin/sh
# Downloads a released binary of mmchat, verifies its SHA-256 checksum and installs it.
#
#   MMCHAT_VERSION        version to install, such as v0.1.0; default: the latest release
#   MMCHAT_INSTALL_DIR    directory of the binary; default: ~/.local/bin
#   MMCHAT_RELEASES_URL   base URL of the releases, for a mirror
#
# Needs curl or wget, tar with gzip, and one of sha256sum, shasum and openssl. Does not use sudo.
set -eu

REPOSITORY=https://github.com/mmchat/mmchat
RELEASES=${MMCHAT_RELEASES_URL:-$REPOSITORY/releases}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $1"
    if [ $# -gt 1 ]; then
        say "  hint: $2"
    fi
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# download URL FILE
download() {
    # A redirect must not lead from https to plain http.
    case $1 in
        https://*) protocols='=https' ;;
        *) protocols='=http,https' ;;
    esac
    if has curl; then
        curl --proto "$protocols" --fail --silent --show-error --location --retry 3 --output "$2" "$1"
    elif has wget; then
        wget -q -O "$2" "$1"
    else
        fail "cannot download: neither curl nor wget is installed"
    fi
}

# sha256 FILE: prints the checksum in hexadecimal.
sha256() {
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    elif has shasum; then
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    elif has openssl; then
        openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1
    else
        fail "cannot verify the checksum: none of sha256sum, shasum and openssl is installed"
    fi
}

# Prints the target triple of this machine.
detect_target() {
    os=$(uname -s)
    arch=$(uname -m)
    case $os in
        Linux)
            os=unknown-linux-gnu
            # The ldd of musl names it in its usage text; a system without ldd passes, and the test run below decides.
            if ldd --version 2>&1 | grep -qi musl; then
                fail "no binary for musl Linux is released" "build it: cargo install --git $REPOSITORY"
            fi
            ;;
        Darwin)
            os=apple-darwin
            # A shell under Rosetta reports x86_64 on Apple silicon.
            if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || true)" = 1 ]; then
                arch=arm64
            fi
            ;;
        MINGW* | MSYS* | CYGWIN*)
            fail "this script does not install on Windows" "download the .zip archive: $RELEASES"
            ;;
        *) fail "no binary for $os is released" "build it: cargo install --git $REPOSITORY" ;;
    esac
    case $arch in
        x86_64 | amd64) arch=x86_64 ;;
        aarch64 | arm64) arch=aarch64 ;;
        *) fail "no binary for $arch is released" "build it: cargo install --git $REPOSITORY" ;;
    esac
    printf '%s-%s\n' "$arch" "$os"
}

cleanup() {
    if [ -n "${work:-}" ]; then
        rm -rf "$work"
    fi
    if [ -n "${staged:-}" ]; then
        rm -f "$staged"
    fi
}

main() {
    target=$(detect_target)
    install_dir=${MMCHAT_INSTALL_DIR:-}
    if [ -z "$install_dir" ]; then
        [ -n "${HOME:-}" ] || fail "HOME is not set" "set MMCHAT_INSTALL_DIR"
        install_dir=$HOME/.local/bin
    fi

    version=${MMCHAT_VERSION:-}
    if [ -z "$version" ]; then
        sums_url=$RELEASES/latest/download/SHA256SUMS
    else
        # Tags begin with a v.
        version=v${version#v}
        sums_url=$RELEASES/download/$version/SHA256SUMS
    fi

    work=$(mktemp -d)
    staged=
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM

    download "$sums_url" "$work/SHA256SUMS" ||
        fail "cannot download $sums_url" "check MMCHAT_VERSION and the network connection"

    # The list of checksums also names the archive, and with it the version. A line is: checksum, two spaces, file name.
    line=$(grep -E "^[0-9a-f]{64}  mmchat-v[0-9A-Za-z.+-]+-$target\.tar\.gz\$" "$work/SHA256SUMS" || true)
    [ -n "$line" ] || fail "the release has no archive for $target" "see $RELEASES"
    [ "$(printf '%s\n' "$line" | wc -l)" -eq 1 ] || fail "the release has several archives for $target"
    expected=${line%% *}
    archive=${line##* }
    name=${archive%.tar.gz}
    version=${name#mmchat-}
    version=${version%-"$target"}

    say "downloading mmchat $version for $target"
    download "$RELEASES/download/$version/$archive" "$work/$archive" ||
        fail "cannot download $RELEASES/download/$version/$archive"

    actual=$(sha256 "$work/$archive")
    if [ "$actual" != "$expected" ]; then
        fail "checksum mismatch of $archive: expected $expected, got $actual" "nothing was installed; try again later"
    fi

    tar -xzf "$work/$archive" -C "$work"
    binary=$work/$name/mmchat
    [ -f "$binary" ] || fail "$archive does not contain $name/mmchat"

    mkdir -p "$install_dir" || fail "cannot create $install_dir" "set MMCHAT_INSTALL_DIR"
    # Staged beside the destination, so that the final move is atomic.
    staged=$install_dir/.mmchat.$$
    cp "$binary" "$staged" || fail "cannot write to $install_dir" "set MMCHAT_INSTALL_DIR"
    chmod 755 "$staged"
    # A system too old for the binary keeps its installed version.
    "$staged" --version >/dev/null ||
        fail "the binary does not run on this system" "build it: cargo install --git $REPOSITORY"
    mv -f "$staged" "$install_dir/mmchat"
    staged=

    say "installed $install_dir/mmchat"
    case :${PATH:-}: in
        *:"$install_dir":*) ;;
        *) say "warning: $install_dir is not in PATH" ;;
    esac
    say "next: \"mmchat init\" writes a config, \"mmchat demo\" needs none, \"mmchat completions SHELL\" prints completions"
}

# Called in the last line, so that a truncated download of this script runs nothing.
main
