#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""completion.py VARVE bash|zsh|fish: prints the completion of that shell, made from what `varve --help` and the help of each command say.

What stands for a value says what it is: DIR, FILE, DISK and the like are names of files, A|B|C are the values.
"""
import re
import sys

from commands import commands


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


# ---- bash ----

def bash(all_commands):
    print('# bash completion for varve; made from its help.\n_varve() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=')
    print("    COMPREPLY=()\n    if [ \"$COMP_CWORD\" -eq 1 ]; then")
    print('        mapfile -t COMPREPLY < <(compgen -W %s -- "$cur")\n        return\n    fi'
          % quoted(' '.join([c.name for c in all_commands] + ['--help', '--version'])))
    print('    case ${COMP_WORDS[1]}:$prev in')
    for c in all_commands:
        for o in c.options:
            if o.values():
                print('        %s:--%s) words=%s ;;' % (c.name, o.name, quoted(' '.join(o.values()))))
        if c.mount_options:
            words = []
            for o in c.mount_options:
                words += [o.name + '=' + v for v in o.values()] or [o.name + ('=' if o.value else '')]
            print('        %s:-o) words=%s ;;' % (c.name, quoted(' '.join(words))))
    print('    esac\n    if [ -z "$words" ] && [[ $cur == -* ]]; then\n        case ${COMP_WORDS[1]} in')
    for c in all_commands:
        words = ['--' + o.name for o in c.options] + (['-o'] if c.mount_options else [])
        print('            %s) words=%s ;;' % (c.name, quoted(' '.join(words))))
    print('        esac\n    fi')
    print('    if [ -n "$words" ]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur"); else compopt -o default; fi')
    print('    case ${COMPREPLY[0]-} in *=) compopt -o nospace ;; esac\n}\ncomplete -F _varve varve')


# ---- zsh ----

def zsh_text(text):
    return re.sub(r'([\[\]:\\])', r'\\\1', text)


def zsh(all_commands):
    print('#compdef varve\n# zsh completion for varve; made from its help.\nlocal -a commands\ncommands=(')
    for c in all_commands:
        print('    ' + quoted('%s:%s' % (c.name, zsh_text(c.text))))
    print(')\nif (( CURRENT == 2 )); then\n    _describe command commands\n    return\nfi\nlocal command=$words[2]\nshift words\n(( CURRENT-- ))')
    print('case $command in')
    for c in all_commands:
        print('    %s) _arguments \\' % c.name)
        for o in c.options:
            value = ':value:(%s)' % ' '.join(o.values()) if o.values() else ':value:' + '_files' * o.takes_file() if o.value else ''
            print('        ' + quoted('--%s[%s]%s' % (o.name, zsh_text(o.summary()), value)) + ' \\')
        if c.mount_options:
            items = ' '.join('%s\\:%s' % (o.name + ('=' if o.value else ''), quoted(zsh_text(o.summary())).replace(' ', '\\ '))
                             for o in c.mount_options)
            print('        ' + quoted('-o[mount option]:option:((%s))' % items.replace("'", '')) + ' \\')
        print("        '*:file:_files' ;;")
    print('esac')


# ---- fish ----

def fish(all_commands):
    print('# fish completion for varve; made from its help.\ncomplete -c varve -n __fish_use_subcommand -f')
    for c in all_commands:
        print('complete -c varve -n __fish_use_subcommand -a %s -d %s' % (c.name, quoted(c.text)))
        here = "complete -c varve -n '__fish_seen_subcommand_from %s'" % c.name
        for o in c.options:
            value = ' -x -a %s' % quoted(' '.join(o.values())) if o.values() else ' -r' + ' -f' * (not o.takes_file()) if o.value else ''
            short = ' -s ' + o.short if o.short else ''
            print('%s%s -l %s%s -d %s' % (here, short, o.name, value, quoted(o.summary())))
        for o in c.mount_options:
            for v in o.values() or ['']:
                print('%s -s o -x -a %s -d %s' % (here, quoted(o.name + ('=' + v if o.value else '')), quoted(o.summary())))


if __name__ == '__main__':
    {'bash': bash, 'zsh': zsh, 'fish': fish}[sys.argv[2]](commands(sys.argv[1]))
