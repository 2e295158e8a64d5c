#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""json_doc.py DOC TABLE [--lines] <OUTPUT: is what a command printed what its table in docs/json.md says? --lines: a value on each line.

Every field must be in the table, with its type; a field without `?` must be there where the object around it is.
"""
import json
import re
import sys

TYPES = {'text': str, 'number': (int, float), 'true or false': bool}


def table(doc, name):
    with open(doc) as f:
        text = f.read().split('<!-- json: %s -->' % name)[1].split('\n\n')[0]
    return {path: (kind.rstrip('?'), kind.endswith('?')) for path, kind in re.findall(r'^\| `(.+?)` \| (.+?) \|', text, re.M)}


def fits(value, kind):
    if kind == 'number':
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


class Check:
    def __init__(self, fields):
        self.fields, self.wrong = fields, set()

    def object(self, value, at):
        for key, member in value.items():
            self.value(member, at + key)
        for path, (_, optional) in self.fields.items():
            rest = path[len(at):]
            if not optional and path.startswith(at) and re.split(r'[.\[]', rest)[0] not in value:
                self.wrong.add('%s is missing' % path)

    def value(self, value, path):
        kind, optional = self.fields.get(path, (None, False))
        below = [p for p in self.fields if p.startswith((path + '.', path + '[]'))]
        if value is None:
            if not optional and not all(self.fields[p][1] for p in below) or (kind is None and not below):
                self.wrong.add('%s is null' % path)
        elif isinstance(value, dict) and below:
            self.object(value, path + '.')
        elif isinstance(value, list) and below:
            for v in value:
                self.value(v, path + '[]')
        elif kind is None:
            self.wrong.add('%s is not in the table' % path)
        elif not fits(value, kind):
            self.wrong.add('%s is %r, not %s' % (path, value, kind))


def main():
    text = sys.stdin.read()
    docs = [json.loads(line) for line in text.splitlines()] if '--lines' in sys.argv else json.loads(text)
    docs = docs if isinstance(docs, list) else [docs]
    check = Check(table(sys.argv[1], sys.argv[2]))
    for d in docs:
        check.object(d, '')
        if d.get('schema') != 1:
            check.wrong.add('schema is not 1')
    for w in sorted(check.wrong):
        print('%s: %s' % (sys.argv[2], w))
    if not docs:
        sys.exit('%s: nothing was printed' % sys.argv[2])
    sys.exit(1 if check.wrong else 0)


main()
