#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""words.py VARVE GUIDE: links of the guide lead to files, the index names each page, and `varve COMMAND --option` in running text exists."""
import pathlib
import re
import subprocess
import sys

varve, guide = sys.argv[1], pathlib.Path(sys.argv[2])
bad = []


def shown(*command):
    return subprocess.run([varve, *command, '--help'], stdout=subprocess.PIPE, text=True, check=True).stdout


helps = {name: shown(name) for name in re.findall(r'^  ([a-z]+) {2,}', shown(), re.M)}
index = (guide / 'README.md').read_text(encoding='utf-8')
for page in sorted(guide.glob('*.md')):
    text = page.read_text(encoding='utf-8')
    if page.name != 'README.md' and '(%s)' % page.name not in index:
        bad.append('%s: not in the index' % page.name)
    for target in re.findall(r'\]\(([^)#:]+)[^):]*\)', text):
        if not (page.parent / target).exists():
            bad.append('%s: link to %s' % (page.name, target))
    plain = re.sub(r'^```.*?^```', '', re.sub(r'<!--.*?-->', '', text, flags=re.S), flags=re.S | re.M)
    for command in re.findall(r'`varve ([a-z]+[^`]*)`', plain):
        name, *words = command.split()
        options = [w.split('=')[0] for w in words if w.startswith('--')]
        if name not in helps or any(o not in helps[name] + ' --help' for o in options):
            bad.append('%s: no such command: varve %s' % (page.name, command))
for line in bad:
    print('FAILED  ' + line)
sys.exit(bool(bad))
