#!/bin/sh
# Prints the users of Redis, for --aclfile: sh users.sh users.acl [more.acl] > FILE
#
# A user's password is in the variable UPRES_{USER}_PASSWORD; Redis gets its SHA-256. When one is missing or empty, nothing
# is printed: for Redis an empty password is a password like any other, and without any user everybody has all rights.
set -eu

fail() {
    echo "users.sh: $1" >&2
    exit 1
}

sha256() {
    if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-64
}

with_hashes() {
    while read -r user name on rules; do
        case $rules in
        '#${UPRES_'*'_PASSWORD_SHA256} '*)
            variable=${rules#'#${'}
            variable=${variable%%_SHA256\}*}
            eval "password=\${$variable-}"
            [ -n "$password" ] || fail "$variable is empty; set it to the password of the user $name"
            hash=$(printf %s "$password" | sha256)
            rules="#$hash ${rules#* }"
            ;;
        esac
        printf '%s\n' "$user $name $on${rules:+ $rules}"
    done
}

[ $# -gt 0 ] || fail "give the files with the users"
lines=$(sed -n '/^user /p' "$@") || fail "cannot read $*"
case $lines in *'user default off'*) ;; *) fail "no line in $* turns the user default off" ;; esac
users=$(printf '%s\n' "$lines" | with_hashes)
printf '%s\n' "$users"
