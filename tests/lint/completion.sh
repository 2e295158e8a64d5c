#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# completion.sh VARVE: the completion of bash, zsh and fish is right for the shell, and offers every command and option.
set -u
varve=$1 bad=0
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
complain() { echo "completion.sh: $*"; bad=1; }
for shell in bash zsh fish; do
    python3 -B "$here/mount-helpers/completion.py" "$varve" $shell >"$dir/$shell" || complain "$shell: cannot be made"
    $shell -n "$dir/$shell" || complain "$shell: refuses it"
done
shellcheck -s bash "$dir/bash" || complain "bash: shellcheck objects"

# offers_bash WORD...: what bash offers for the last word
offers_bash() {
    bash -c '. "$1"; shift; compopt() { :; }; COMP_WORDS=(varve "$@"); COMP_CWORD=$#; _varve; printf "%s\n" "${COMPREPLY[@]}"' - "$dir/bash" "$@"
}
offers_fish() { HOME=$dir fish -c "source $dir/fish; complete -C 'varve $*'" | cut -f1; }
expects() { # WHERE OFFERED WANTED...
    local where=$1 offered=$2 w; shift 2
    for w; do grep -qxF -- "$w" <<<"$offered" || complain "$where does not offer $w"; done
}

mapfile -t commands < <("$varve" --help | sed -nE 's/^  ([a-z]+) +.*/\1/p')
[ ${#commands[@]} -ge 10 ] || complain "only ${#commands[@]} commands"
expects bash "$(offers_bash '')" "${commands[@]}"
expects fish "$(offers_fish '')" "${commands[@]}"
for c in "${commands[@]}"; do
    grep -q "^    $c) _arguments" "$dir/zsh" || complain "zsh does not know $c"
    mapfile -t options < <("$varve" "$c" --help | grep -oE -- '(^ {2,}|, |\[)--[a-z-]+' | grep -oE -- '--.*' | sort -u)
    expects "bash: $c" "$(offers_bash "$c" --)" "${options[@]}" --help
    expects "fish: $c" "$(offers_fish "$c" --)" "${options[@]}" --help
    for o in "${options[@]}"; do grep -qF -- "'${o}[" "$dir/zsh" || complain "zsh: $c does not offer $o"; done
done
mapfile -t options < <("$varve" mount --help | sed -nE 's/^  -o ([a-z_]+)(=.*)?  .*/\1/p')
expects "bash: mount -o" "$(offers_bash mount -o '' | sed 's/=.*//')" "${options[@]}"
expects "fish: mount -o" "$(offers_fish mount -o ' ' | sed 's/=.*//')" "${options[@]}"
expects "bash: init --fingerprint" "$(offers_bash init --fingerprint '')" sha256 sha1
exit $bad
