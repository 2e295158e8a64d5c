#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""manpage.py VARVE PAGE.1.in: prints a man page. What the help of a command says stands in the page as it stands there, so nothing is
written twice. In PAGE.1.in a line is replaced if it is one of these:

  @HEAD@       title, NAME and SYNOPSIS of the command that the page is called after
  @OPTIONS@    its options
  @COMMANDS@   a table of all commands
  @VERSION@    (anywhere in a line) of the program
"""
import os
import re
import sys

from commands import commands, run

DATE = '2026-11-30'


def roff(text):
    """Text as a line of roff."""
    text = text.replace('\\', '\\e').replace('-', '\\-')
    return '\\&' + text if text[:1] in ".'" else text


def bold(text):
    return '\\fB%s\\fR' % roff(text)


def italic(text):
    return '\\fI%s\\fR' % roff(text)


def words(text):
    """What is written as it stands is bold, what stands for something is italic."""
    return ''.join(italic(w) if re.match(r'[A-Z]|options$', w) else bold(w) if re.match(r'[-\w]', w) else roff(w)
                   for w in re.findall(r'[A-Z][A-Z-]*|-{0,2}\w[\w-]*|[^\w-]+|-', text))


def head(command, version):
    yield '.TH VARVE\\-%s 1 %s "%s" "User commands"' % (command.name.upper(), DATE, version)
    yield '.SH NAME'
    yield 'varve\\-%s \\- %s' % (command.name, roff(command.text))
    yield '.SH SYNOPSIS'
    for n, line in enumerate(command.usage):
        if n and line.startswith('varve '):
            yield '.br'
        found = re.match(r'varve [a-z]+', line)
        yield (bold(found[0]) if found else '') + words(line[found.end() if found else 0:])


def item(left, text):
    yield '.TP'
    yield left
    yield roff(text)


def options(command):
    yield '.SH OPTIONS'
    for o in command.options:
        value = ' ' + words(o.value) if o.value else ''
        yield from item((bold('-' + o.short) + ', ' if o.short else '') + bold('--' + o.name) + value, o.text)
    if command.mount_options:
        yield from item(bold('-o') + ' ' + words('OPTION[,OPTION...]'), 'These, of which varve.conf(5) says more:')
        yield '.RS'
        for o in command.mount_options:
            yield from item(bold(o.name) + ('=' + words(o.value) if o.value else ''), o.text)
        yield '.RE'


def table(all_commands):
    yield '.TS\nl2 l.'
    for c in all_commands:
        yield '%s(1)\t%s' % (bold('varve-' + c.name), roff(c.text))
    yield '.TE'


def main():
    varve, page = sys.argv[1:3]
    version = run(varve, '--version').strip()
    all_commands = commands(varve)
    own = {'varve-%s.1.in' % c.name: c for c in all_commands}.get(os.path.basename(page))
    for line in open(page, encoding='utf-8').read().splitlines():
        if line == '@HEAD@':
            print('\n'.join(head(own, version)))
        elif line == '@OPTIONS@':
            print('\n'.join(options(own)))
        elif line == '@COMMANDS@':
            print('\n'.join(table(all_commands)))
        else:
            print(line.replace('@VERSION@', version))


main()
