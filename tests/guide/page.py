#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""page.py PAGE OUT: prints the bash script that runs the commands of a page of the guide (PAGE.md) or the examples of a man page (PAGE.1.in);
their output goes to OUT/NUMBER.

In order: the blocks ```sh, and what comments say:
  <!-- setup: COMMANDS -->    what the reader has already, or what happens meanwhile (a disk is written, files are lost)
  <!-- not run: REASON -->    above a block that no test can run (systemctl without systemd); it is counted and told
  <!-- expect: REGEX -->      below a block: some line of its output matches (grep -E); several are allowed
  <!-- exit: N -->            below a block: it ends with N
A man page has blocks between .EX and .EE, and these comments behind .\\" .
Blocks of a page share one shell with `set -eu`, as they do for the reader.
"""
import re
import shlex
import sys

TOKEN = re.compile(r'^<!--\s*(setup|not run|expect|exit):\s*(.*?)\s*-->\s*$|^```sh\n(.*?)^```\s*$', re.S | re.M)


def from_roff(text):
    """A man page as TOKEN reads it: each comment, of one line or several, and each block."""
    def comment(found):
        return '<!-- %s -->\n' % re.sub(r'^\.\\" ?', '', found[0].strip(), flags=re.M)

    def block(found):
        return '```sh\n%s```\n' % found[1].replace('\\-', '-').replace('\\e', '\\')

    text = re.sub(r'^\.\\" \w+:(.*\n)((\.\\" (?!\w+:).*\n)*)', comment, text, flags=re.M)
    return re.sub(r'^\.EX\n(.*?)^\.EE\n', block, text, flags=re.S | re.M)


def parse(text):
    blocks, skip = [], None
    for found in TOKEN.finditer(text):
        line = text.count('\n', 0, found.start()) + 1
        kind, value, commands = found.groups()
        if commands is not None:
            blocks.append({'line': line, 'commands': commands, 'skip': skip, 'expect': [], 'exit': 0, 'setup': False})
            skip = None
        elif kind == 'setup':
            blocks.append({'line': line, 'commands': value + '\n', 'skip': None, 'expect': [], 'exit': 0, 'setup': True})
        elif kind == 'not run':
            skip = value
        elif kind == 'expect':
            blocks[-1]['expect'].append(value)
        else:
            blocks[-1]['exit'] = int(value)
    if skip is not None:
        sys.exit('page.py: "not run: %s" is above no block' % skip)
    return blocks


def main():
    text = open(sys.argv[1], encoding='utf-8').read()
    if sys.argv[1].endswith('.in'):
        text = from_roff(text)
    commands = len(re.findall(r'^```sh$', text, re.M))
    blocks = parse(text)
    if commands != sum(not b['setup'] for b in blocks):
        sys.exit('page.py: %s: a block ```sh does not end, or is indented' % sys.argv[1])
    for number, b in enumerate(blocks, 1):
        out = shlex.quote('%s/%d' % (sys.argv[2], number))
        if b['skip']:
            print('skipped %d %s' % (b['line'], shlex.quote(b['skip'])))
            continue
        print('begin %d %s' % (b['line'], out))
        if b['exit']:       # in a shell of its own, which may fail
            print('set +e\n(\nset -e\n%s) >%s 2>&1 </dev/null\nends_with %d $?\nset -e' % (b['commands'], out, b['exit']))
        else:
            print('{\n%s} >%s 2>&1 </dev/null' % (b['commands'], out))
        for regex in b['expect']:
            print('expect %s' % shlex.quote(regex))
        print('end %s' % ('setup' if b['setup'] else 'block'))


main()
