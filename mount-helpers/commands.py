# SPDX-License-Identifier: Apache-2.0
"""commands: what `varve --help` and the help of each command say, for completion.py and manpage.py.

In the help of a command each form of it is a line behind "usage:", and an option is a line of two blanks, the option, two blanks or more,
and its text, which may go on below itself.
"""
import re
import subprocess

OPTION = re.compile(r'^  (?:-(\w), )?(?:--([\w-]+)|-o ([\w]+))(?:([ =])((?! ).+?))?(?:  +(.*))?$')
FILES = re.compile(r'STORE|DIR|FILE|PATH|DISK|SNAPSHOT|MOUNTPOINT|SOURCE|DEST')


class Option:
    """short, name: -f, --foreground. value: what stands for its value, behind the separator; '' if it takes none."""

    def __init__(self, short, name, separator, value, text):
        self.short, self.name, self.separator, self.value, self.text = short, name, separator, value or '', text or ''

    def values(self):
        """The values it takes, if they are few: A|B|C."""
        return self.value.split('|') if '|' in self.value and not re.search('[A-Z]{2}', self.value) else []

    def takes_file(self):
        return bool(FILES.match(self.value))

    def summary(self):
        """The text without what is in parentheses."""
        return re.sub(r'\s*\([^)]*\)', '', self.text).strip()


class Command:
    """options: of the command; mount_options: those behind -o. usage: lines."""

    def __init__(self, varve, name, text):
        self.name, self.text, self.usage, self.options, self.mount_options = name, text, [], [], []
        last = None
        for line in run(varve, name, '--help').splitlines():
            found = OPTION.match(line)
            if found:
                last = Option(found[1], found[2] or found[3], found[4], found[5], found[6])
                (self.mount_options if found[3] else self.options).append(last)
            elif last and line.startswith(' ' * 10):
                last.text = (last.text + ' ' + line.strip()).strip()
            elif not self.options and re.match(r'usage: varve|(  +)?varve |  +\[', line) and not line.startswith('varve %s:' % name):
                self.usage.append(line.replace('usage:', '').strip())
            else:
                last = None
        self.options.append(Option('h', 'help', None, None, 'how to use it'))


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def commands(varve):
    return [Command(varve, name, text) for name, text in re.findall(r'^  ([a-z]+) {2,}(.*)$', run(varve, '--help'), re.M)]
