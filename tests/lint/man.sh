#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# man.sh VARVE: each command has a man page, with all its parts, that says of each option that the command takes, and of no other; each key of
# varve.conf is in varve.conf(5); nothing in the pages displeases groff, and `man -k` finds them. tests/guide/run.sh runs their examples.
set -u
varve=$1 bad=0
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
complain() { echo "man.sh: $*"; bad=1; }
# differ WHAT NAME WANTED NAME FOUND: lists of words that are to be the same
differ() {
    local only
    only=$(comm -3 <(tr ' ' '\n' <<<"$3" | sort -u) <(tr ' ' '\n' <<<"$5" | sort -u))
    [ -z "$only" ] || complain "$1: $2 (left) and $4 (right) differ: $only"
}
words() { sort -u | paste -sd' '; }
# text: what a page says as it is read, one paragraph a line.
show() {
    text=$(groff -t -man -rLL=500n -ww -Tascii -P-cbou "$1" 2>"$dir/said")
    [ ! -s "$dir/said" ] || complain "$1: $(cat "$dir/said")"
}
section() { sed -n "/^$2\$/,/^[A-Z]/p" <<<"$1"; }

mapfile -t commands < <("$varve" --help | sed -nE 's/^  ([a-z]+) +.*/\1/p')
[ ${#commands[@]} -ge 10 ] || complain "only ${#commands[@]} commands"
differ "pages" "commands" "$(printf 'varve-%s.1.in ' "${commands[@]}")varve.1.in" "docs/man" \
    "$(cd "$here/docs/man" && echo *.1.in)"
differ "docs/meson.build" "pages" "$(cd "$here/docs/man" && for p in *.1.in; do echo "${p%.1.in}"; done | words)" "installed" \
    "$(grep -oE "'varve(-[a-z]+)?'" "$here/docs/meson.build" | tr -d "'" | words)"

for c in "${commands[@]}"; do
    page=$dir/varve-$c.1
    python3 -B "$here/mount-helpers/manpage.py" "$varve" "$here/docs/man/varve-$c.1.in" >"$page" || complain "$c: cannot be made"
    show "$page"
    parts=$(grep -xE '[A-Z][A-Z ]+' <<<"$text" | grep -vx FILES | paste -sd,)
    [ "$parts" = "NAME,SYNOPSIS,DESCRIPTION,OPTIONS,EXIT STATUS,EXAMPLES,SEE ALSO" ] || complain "varve-$c(1) has these parts: $parts"
    lexgrog "$page" | grep -q "\"varve-$c - " || complain "varve-$c(1): no title for man -k"
    grep -q '^\.EX' "$page" || complain "varve-$c(1): no example"
    # What getopt takes is what the help says, and that is what the page says, each with a text.
    if [ "$c" = init ]; then
        taken=$(sed -nE 's/^.*\{"([a-z-]+)", (no|required)_argument.*/--\1/p' "$here/src/cli/cmd_init.c"
                sed -n '/keys\[\] = {/,/^};/p' "$here/src/format/storeconf.c" | grep -oE '\{"[a-z-]+", "[^"]*", "[^"]*", (true|false)' |
                    sed -E 's/\{"([a-z-]+)".*/--\1/')
    else
        taken=$(grep -oE '\{"[a-z-]+", (no|required)_argument' "$here/src/cli/cmd_$c.c" | sed -E 's/\{"([a-z-]+)".*/--\1/')
    fi
    helped="--help $("$varve" "$c" --help | grep -oE '^  (-[a-z], )?--[a-z-]+' | grep -oE -- '--.*' | words)"
    options=$(section "$text" OPTIONS)
    differ "varve $c" "options" "$(words <<<"$taken")" "--help" "$helped"
    differ "varve-$c(1)" "--help" "$helped" "OPTIONS" "$(grep -oE '^ {5,7}(-[a-z], )?--[a-z-]+' <<<"$options" | grep -oE -- '--.*' | words)"
    # Every option of a synopsis or a text is one.
    while read -r o; do
        [[ " $helped " == *" $o "* ]] || complain "varve-$c(1) speaks of $o"
    done < <(grep -oE '(^|[^a-z-])--[a-z-]+' <<<"$text" | grep -oE -- '--.*' | sort -u)
done

# Mount options: what is taken, varve mount --help, varve-mount(1), varve.conf(5).
taken="ro $(sed -n '/settings\[\] = {/,/^};/s/^ *{"\([a-z_]*\)".*/\1/p' "$here/src/cli/options.c" | words)"
differ "mount options" "options.c" "$taken" "--help" "$("$varve" mount --help | sed -nE 's/^  -o ([a-z_]+).*/\1/p' | words)"
differ "mount options" "options.c" "$taken" "varve-mount(1)" \
    "$(sed -nE '/OPTION\[,|varve.conf\(5\) says more/,/^\.RE/s/^\\fB([a-z_]+)\\fR.*/\1/p' "$dir/varve-mount.1" | words)"
differ "mount options" "options.c" "$taken" "varve.conf(5)" \
    "$(sed -nE '/^\.SS Keys/,/^Options of/s/^\.(BR|B) ([a-z_]+)( .*|)$/\2/p; s/^\.BR config =.*/config/p' "$here/docs/man/varve.conf.5" | words)"

python3 -B "$here/mount-helpers/manpage.py" "$varve" "$here/docs/man/varve.1.in" >"$dir/varve.1"
show "$dir/varve.1"
for c in "${commands[@]}"; do grep -q "varve-$c(1) " <<<"$text" || complain "varve(1) does not name varve-$c"; done
for p in varve.conf.5 mount.varve.8; do
    show "$here/docs/man/$p"
    lexgrog "$here/docs/man/$p" >/dev/null || complain "$p: no title for man -k"
done
exit $bad
