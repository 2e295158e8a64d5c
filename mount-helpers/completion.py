#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""completion.py VARVE bash|zsh|fish: prints the completion of that shell, made from what `varve --help` and the help of each command say.

What stands for a value says what it is: DIR, FILE, DISK and the like are names of files, A|B|C are the values.
"""
import re
import subprocess
import sys

FILES = re.compile(r'STORE|DIR|FILE|PATH|DISK|SNAPSHOT|MOUNTPOINT|SOURCE|DEST')
OPTION = re.compile(r'^  (?:-(\w), )?(?:--([\w-]+)|-o ([\w]+))(?:[ =]((?! ).+?))?(?:  +(.*))?$')


class Option:
    def __init__(self, short, name, value, text):
        self.short, self.name, self.text = short, name, text
        self.takes, self.file = bool(value), bool(value and FILES.match(value))
        self.values = value.split('|') if value and '|' in value and not re.search('[A-Z]{2}', value) else []


class Command:
    def __init__(self, varve, name, text):
        self.name, self.text, self.options, self.mount_options = name, text, [], []
        usage = ''
        for line in run(varve, name, '--help').splitlines():
            if line.startswith('usage:'):
                usage = line
            found = OPTION.match(line)
            if found and found[3]:
                self.mount_options.append(Option(None, found[3], found[4], found[5] or ''))
            elif found:
                self.options.append(Option(found[1], found[2], found[4], found[5] or ''))
        known = {o.name for o in self.options}
        for name, value in re.findall(r'\[--([\w-]+)(?: ([A-Z|a-z0-9]+))?\]', usage):     # options that need no explanation
            if name not in known:
                self.options.append(Option(None, name, value, 'print JSON' if name == 'json' else ''))
        self.options.append(Option('h', 'help', None, 'how to use it'))


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def commands(varve):
    return [Command(varve, name, text) for name, text in re.findall(r'^  ([a-z]+) {2,}(.*)$', run(varve, '--help'), re.M)]


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
            if o.values:
                print('        %s:--%s) words=%s ;;' % (c.name, o.name, quoted(' '.join(o.values))))
        if c.mount_options:
            words = []
            for o in c.mount_options:
                words += [o.name + '=' + v for v in o.values] or [o.name + ('=' if o.takes else '')]
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
            value = ':value:(%s)' % ' '.join(o.values) if o.values else ':value:' + '_files' * o.file if o.takes else ''
            print('        ' + quoted('--%s[%s]%s' % (o.name, zsh_text(o.text), value)) + ' \\')
        if c.mount_options:
            items = ' '.join('%s\\:%s' % (o.name + ('=' if o.takes else ''), quoted(zsh_text(o.text)).replace(' ', '\\ '))
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
            value = ' -x -a %s' % quoted(' '.join(o.values)) if o.values else ' -r' + ' -f' * (not o.file) if o.takes else ''
            short = ' -s ' + o.short if o.short else ''
            print('%s%s -l %s%s -d %s' % (here, short, o.name, value, quoted(o.text)))
        for o in c.mount_options:
            for v in o.values or ['']:
                print('%s -s o -x -a %s -d %s' % (here, quoted(o.name + ('=' + v if o.takes else '')), quoted(o.text)))


if __name__ == '__main__':
    {'bash': bash, 'zsh': zsh, 'fish': fish}[sys.argv[2]](commands(sys.argv[1]))
