# SPDX-License-Identifier: Apache-2.0
"""any_bytes.py VARVE DIR: every command on a store whose names are made of bytes that programs get wrong."""
import ctypes
import json
import os
import pty
import re
import subprocess
import sys
import time
import unicodedata

VARVE, T = (os.fsencode(a) for a in sys.argv[1:])
ODD = b"o d\n\xe9\x1b[1m\\'"
STORE, STATE, MNT = (os.path.join(T, ODD, n) for n in (b'sto,re', b'state', b'mnt'))
LOG = os.path.join(T, b'daemon.log')
NAMES = [
    b'plain', b'caf\xc3\xa9', b'caf\xe9', b'over\xc0\xaflong', b'sur\xed\xa0\x80', b'cut\xe2\x82', b'beyond\xf5', b'new\nline', b'\n', b'tab\t',
    b'\x1b[31mred\x1b]0;title\x07', b'del\x7f', b'c1\xc2\x9b1m', b'raw\x9b1m', b"it's", b'"quoted"', b"'\"\n", b'back\\slash', b'\\x41\\n',
    b'-rf', b'--json', b' two  blanks ', b'rtl\xe2\x80\xaegmi', b'bidi\xe2\x81\xa6', b'sep\xe2\x80\xa8', b'\xee\xbe\x83own', b'\xf0\x9f\x92\xbe',
    b'$(touch x)`id`', b'a*?[b]', b'#x', b'~', b'%s%n%d', b'\xff\xfe', b'cr\rover', b'form\x0cfeed\x0b',
]
HIDDEN_BY_US = re.compile('[\u061c\u200e\u200f\u2066-\u206f\ufeff\ufff9-\ufffb\uef80-\uefff]')
wrong = []


def check(ok, *what):
    if not ok:
        wrong.append(what)
        print('WRONG', *what)


def run(*args, code=0, tty=False, cwd=None):
    """stdout and stderr; tty: stdout is a terminal."""
    cmd = [VARVE] + list(args)
    if not tty:
        p = subprocess.run(cmd, capture_output=True, timeout=60, cwd=cwd)
        out = p.stdout
    else:
        master, slave = pty.openpty()
        p = subprocess.Popen(cmd, stdout=slave, stderr=subprocess.PIPE, cwd=cwd)
        os.close(slave)
        out = b''
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            out += piece
        p.stderr_text = p.stderr.read()
        p.wait(60)
        os.close(master)
        out = out.replace(b'\r\n', b'\n')
    err = p.stderr_text if tty else p.stderr
    check(p.returncode == code, args, 'exits', p.returncode, 'not', code, err)
    one_line_each(err, args)
    return out, err


def is_visible(c):
    return unicodedata.category(c) not in ('Cc', 'Zl', 'Zp', 'Cs') and not HIDDEN_BY_US.match(c) and not '\u202a' <= c <= '\u202e'


def one_line_each(text, what):
    """Text for people: UTF-8, no control character but newlines."""
    try:
        bad = [c for c in text.decode() if c != '\n' and not is_visible(c)]
    except UnicodeDecodeError as e:
        bad = e
    check(not bad, what, 'prints', bad, 'in', text[-300:])


def decode(text):
    """The bytes of a name in our JSON, as docs/json.md says."""
    return b''.join(bytes([ord(c) - 0xef00]) if '\uef80' <= c <= '\uefff' else c.encode() for c in text)


def from_json(out, what):
    one_line_each(out, what)
    try:
        return json.loads(out)
    except ValueError as e:
        check(False, what, 'prints no JSON:', e, out[:200])
        return []


def shell_reads(words):
    out = subprocess.run(['bash', '-c', 'printf "%s\\0" ' + words], capture_output=True, timeout=60).stdout
    return out.split(b'\0')[:-1]


# ---- the store, and what lies in it ----

def mount():
    with open(LOG, 'ab') as log:
        daemon = subprocess.Popen([VARVE, b'mount', STORE, MNT, b'-f', b'-o', b'host=h\xe9\n,state=' + STATE], stdout=log, stderr=log)
    for _ in range(300):
        if os.path.exists(os.path.join(MNT, b'.varve', b'events')):
            return daemon
        check(daemon.poll() is None, 'the daemon ended while starting') or time.sleep(0.1)
        if daemon.poll() is not None:
            sys.exit(1)
    sys.exit('not usable after 30 s')


def note_of(name):
    return b'note of ' + name


def make_disks():
    for d in (b'd', b'dir ' + ODD):
        os.mkdir(os.path.join(MNT, d))
        for n in NAMES:
            with open(os.path.join(MNT, d, n + b'.img'), 'wb') as f:
                f.write(b'content' * 1000)
    for n in NAMES:
        os.mkdir(os.path.join(MNT, n))
        os.close(os.open(os.path.join(MNT, n, b'x.img'), os.O_CREAT | os.O_WRONLY))
    run(b'wait', MNT)


PATHS = {d + b'/' + n + b'.img' for d in (b'd', b'dir ' + ODD) for n in NAMES} | {n + b'/x.img' for n in NAMES}
ROOT = os.path.join(MNT, b'd')


# ---- what each command prints ----

def try_snapshot():
    printed = []
    for n in NAMES:
        path = os.path.join(ROOT, n + b'.img')
        out, _ = run(b'snapshot', b'--label', b'raw', b'--note', note_of(n), path)
        want = os.path.join(ROOT, n + b'@raw.img')
        check(out == want + b'\n', 'snapshot prints', out, 'not', want)
        printed.append(out[:-1])
    run(b'wait', MNT)
    for n, snapshot in zip(NAMES, printed):
        path = os.path.join(ROOT, n + b'.img')
        run(b'revert', snapshot)        # what snapshot prints is what revert takes
        out, _ = run(b'snapshot', b'--label', b'shell', path, tty=True)
        one_line_each(out, 'snapshot on a terminal')
        check(shell_reads(out.decode().strip()) == [os.path.join(ROOT, n + b'@shell.img')], 'a shell does not read', out)
        doc = from_json(run(b'snapshot', b'--json', b'--label', b'json', path)[0], 'snapshot --json')
        check(doc and decode(doc[0]['path']) == path and decode(doc[0]['name']) == n + b'@json.img', doc)
        check([decode(x) for x in doc[0]['names']] == [n + b'@json.img'], doc)
    out, _ = run(b'snapshot', b'--label', b'dash', b'--', b'-rf.img', cwd=ROOT)
    check(out == b'./-rf@dash.img\n', 'a name that looks like an option comes as', out)
    doc = from_json(run(b'snapshot', b'--json', b'--label', b'group', ROOT)[0], 'snapshot --json DIR')
    check(sorted(decode(x) for x in doc[0]['names']) == sorted(n + b'@group.img' for n in NAMES), 'the group is', doc)
    out, _ = run(b'snapshot', b'--label', b'lines', ROOT, tty=True)
    check(set(shell_reads(' '.join(out.decode().splitlines()))) == {os.path.join(ROOT, n + b'@lines.img') for n in NAMES}, 'of a directory', out)
    run(b'wait', MNT)


def try_log():
    for n in NAMES:
        out, _ = run(b'log', os.path.join(ROOT, n + b'.img'))
        one_line_each(out, 'log')
        check(out.count(b'\n') >= 4, 'log has too few lines', out)
        doc = from_json(run(b'log', b'--json', os.path.join(ROOT, n + b'.img'))[0], 'log --json')
        check(decode(doc['disk']) == n + b'.img', doc['disk'])
        raw = [s for s in doc['snapshots'] if s['label'] == 'raw']
        check(len(raw) == 1 and decode(raw[0]['name']) == n + b'@raw.img' and decode(raw[0]['note']) == note_of(n), raw)
        check(decode(raw[0]['host']) == b'h\xe9\n', raw)
    docs = from_json(run(b'log', b'--json', ROOT)[0], 'log --json DIR')
    check(sorted(decode(d['disk']) for d in docs) == sorted(n + b'.img' for n in NAMES), 'log DIR:', [d['disk'] for d in docs])
    out, _ = run(b'log', ROOT)
    one_line_each(out, 'log DIR')


def as_ls(names, directory):
    env = dict(os.environ, LC_ALL='C.UTF-8', QUOTING_STYLE='shell-escape')
    out = subprocess.run(['ls', '-d', '--'] + names, capture_output=True, cwd=directory, env=env).stdout.decode()
    return out.splitlines()


def try_list():
    doc = from_json(run(b'list', b'--json', MNT)[0], 'list --json')
    check({decode(d['path']) for d in doc[0]['disks']} == PATHS, 'list --json differs')
    check(decode(doc[0]['mountpoint']) == MNT and decode(doc[0]['store']['path']) == STORE, doc[0]['mountpoint'], doc[0]['store'])
    for tty in (False, True):
        out, _ = run(b'list', MNT, tty=tty)
        one_line_each(out, 'list')
        check(out.count(b'\n') == len(PATHS) + 1, 'list has', out.count(b'\n'), 'lines')
        words = [line.split("'h'$'\\351\\n'", 1)[-1].strip() for line in out.decode().splitlines()[1:]]
        check(set(shell_reads(' '.join(words))) == {os.path.join(MNT, p) for p in PATHS}, 'a shell does not read the paths of list')
    # The same quotes as those of ls, but for marks of direction and the like, which ls lets through.
    names = [n + b'.img' for n in NAMES if not HIDDEN_BY_US.search(n.decode(errors='replace'))]
    names = [n for n in names if not re.search('[\u202a-\u202e]', n.decode(errors='replace'))]
    out = run(b'list', b'--', b'.', cwd=ROOT)[0].decode()
    for quoted in as_ls([os.path.join(MNT, b'd', n) for n in names], b'/'):
        check(quoted + '\n' in out, 'list does not print', quoted)


def try_status_and_health():
    doc = from_json(run(b'status', b'--json', MNT)[0], 'status --json')
    check(decode(doc[0]['mountpoint']) == MNT and decode(doc[0]['host']['state']) == STATE and decode(doc[0]['host']['name']) == b'h\xe9\n', doc[0])
    one_line_each(run(b'status', MNT)[0], 'status')
    for args in ((), (b'--max-age', b'1')):
        time.sleep(1.1 if args else 0)
        out, _ = run(b'health', *args, b'--verify-age', b'0', b'--min-free', b'0', MNT, code=2 if args else 0)
        one_line_each(out, 'health')
        check(out.count(b'\n') == 1, 'health prints', out)
    doc = from_json(run(b'health', b'--json', b'--max-age', b'1', MNT, code=2)[0], 'health --json')
    found = {decode(p['path']) for p in doc['problems']}
    check({os.path.join(MNT, p) for p in PATHS if p.startswith(b'd/')} <= found, 'health --json names', found)


def label_value(text):
    return decode(re.sub(r'\\(.)', lambda m: '\n' if m[1] == 'n' else m[1], text))


def try_control_files():
    one_line_each(open(os.path.join(MNT, b'.varve', b'events'), 'rb').read(), 'events')
    from_json(open(os.path.join(MNT, b'.varve', b'status.json'), 'rb').read(), 'status.json')
    with open(os.path.join(MNT, b'.varve', b'metrics'), 'rb') as f:
        text = f.read().decode()
    found = re.findall(r'^varve_disk_pending_snapshots\{directory="((?:[^"\\\n]|\\[\\"n])*)",disk="((?:[^"\\\n]|\\[\\"n])*)"\} \d+$', text, re.M)
    check({label_value(disk) for _, disk in found} == PATHS | {b'd/sou\nrce\xe9.img'}, 'metrics differ')
    check(all(label_value(d) == os.path.dirname(label_value(disk)) for d, disk in found), 'directories of metrics differ')
    events = open(os.path.join(MNT, b'.varve', b'events')).read()
    stored = shell_reads(' '.join(re.findall(r'^\S+Z (.*): removed', events, re.M)))
    check(b'd/new\nline@raw.img' in stored, 'no event names the snapshot', stored)


def try_errors():
    odd = os.path.join(ROOT, b'no such\n\xe9\x1b[2J')
    outside = os.path.join(T, ODD)
    for args, code in (((b'log', odd), 1), ((b'list', odd), 1), ((b'status', odd), 10), ((b'snapshot', odd), 1), ((b'wait', odd), 1),
                       ((b'revert', odd), 2), ((b'revert', odd + b'@x'), 1), ((b'revert', b'--to', outside + b'/x', ROOT + b'/plain@raw.img'), 1),
                       ((b'backup', outside + b'/no', MNT + b'/y'), 3), ((b'backup', LOG, outside + b'/y'), 10),
                       ((b'backup', LOG, ROOT + b'/a\n@b'), 2), ((b'backup', b'--label', b'a\nb', LOG, ROOT + b'/n'), 2),
                       ((b'verify', odd), 10), ((b'rebuild', odd), 10), ((b'dump', odd), 1), ((b'dump', LOG), 20), ((b'umount', outside), 10),
                       ((b'mount', odd, T), 10), ((b'mount', STORE, odd), 1), ((b'init', STORE), 1), ((b'init', b'--zstd-level\n\x1b', odd), 2),
                       ((b'snapshot', b'--lab\nel\x1b=3', odd), 2), ((b'health', b'--max-age', b'1\n\x1b', MNT), 2),
                       ((b'wait', b'--timeout', b'\xe9\n', MNT), 2), ((b'snapshot', b'--label', b'a\nb', ROOT + b'/plain.img'), 2),
                       ((b'snapshot', b'--label', b'raw', ROOT + b'/\n.img'), 2), ((b'lo\ng\x1b',), 2),
                       ((b'mount', STORE, MNT, b'-o', b'x\n\x1by=1'), 2)):
        _, err = run(*args, code=code)
        check(err.count(b'\n') == 1, args, 'says more than a line:', err)
        if b'log' in args or b'list' in args:
            check(shell_reads(err.decode().split(': ', 1)[1].rsplit(': ', 1)[0]) == [odd], args, 'names another path:', err)
    with open(os.path.join(T, b'conf\n'), 'wb') as f:
        f.write(b'[mount]\nho\x1bst = 3\n[\xe9\x07]\nline\x1b\n')
    _, err = run(b'mount', STORE, MNT, b'-o', b'config=' + f.name, code=2)
    check(err.count(b'\n') == 4, 'the lines of a configuration:', err)


def try_backup():
    source = os.path.join(T, b'sou\nrce\xe9.img')
    with open(source, 'wb') as f:
        f.write(b'backup' * 100000)
    out, _ = run(b'backup', b'--label', b'b1', source, ROOT)
    check(out == os.path.join(ROOT, b'sou\nrce\xe9@b1.img') + b'\n', 'backup prints', out)
    out, _ = run(b'backup', b'--label', b'b2', source, ROOT, tty=True)
    check(shell_reads(out.decode().strip()) == [os.path.join(ROOT, b'sou\nrce\xe9@b2.img')], 'a shell does not read', out)
    doc = from_json(run(b'backup', b'--json', b'--label', b'b3', source, ROOT)[0], 'backup --json')['backups'][0]
    check(decode(doc['source']) == source and decode(doc['disk']) == os.path.join(ROOT, b'sou\nrce\xe9.img'), doc)
    check(decode(doc['snapshot']) == os.path.join(ROOT, b'sou\nrce\xe9@b3.img') and doc['ok'], doc)
    os.unlink(os.path.join(ROOT, b'new\nline@raw.img'))


def try_umount(daemon):
    with open(os.path.join(ROOT, b'plain.img'), 'rb'):
        _, err = run(b'umount', MNT, code=11)
        check(err.count(b'\n') == 1, 'umount says', err)
    run(b'umount', MNT)
    check(daemon.wait(60) == 0, 'the daemon ends with', daemon.returncode)


def try_the_store():
    one_line_each(run(b'verify', b'--state', STATE, STORE)[0], 'verify')
    records = subprocess.run(['find', STORE + b'/nodes', '-type', 'f', '!', '-name', '.*', '-print0'], capture_output=True).stdout.split(b'\0')[:-1]
    names = set()
    for at in range(0, len(records), 50):
        one_line_each(run(b'dump', *records[at:at + 50])[0], 'dump')
        text = run(b'dump', b'--json', *records[at:at + 50])[0].decode()
        one_line_each(text.encode(), 'dump --json')
        while text.strip():
            doc, end = json.JSONDecoder().raw_decode(text.lstrip())
            text = text.lstrip()[end:]
            names.add(decode(doc.get('name', '')))
            check(decode(doc['file']) in records, 'dump names the file', doc['file'])
    check({n + b'.img' for n in NAMES} <= names, 'dump does not give the names', names)
    one_line_each(run(b'rebuild', b'--state', STATE, STORE)[0], 'rebuild')
    containers = subprocess.run(['find', STORE + b'/containers', '-name', '*.vc', '-print0'], capture_output=True).stdout.split(b'\0')[:-1]
    for c in containers:
        with open(c, 'r+b') as f:
            f.seek(5000)
            f.write(b'XXXXXXXX')
    out, _ = run(b'verify', b'--state', STATE, STORE, code=20)
    one_line_each(out, 'verify of damage')
    doc = from_json(run(b'verify', b'--json', b'--state', STATE, STORE, code=20)[0], 'verify --json')
    hit = {decode(s) for p in doc['problems'] for s in p['snapshots']}
    check(hit and all(b'@' in h for h in hit), 'verify --json names', hit)
    one_line_each(run(b'rebuild', b'--state', STATE, STORE, code=20)[0], 'rebuild of damage')


def main():
    os.makedirs(os.path.join(T, ODD))
    os.mkdir(MNT)
    run(b'init', STORE)
    daemon = mount()
    try:
        make_disks()
        for step in (try_snapshot, try_log, try_list, try_backup, try_status_and_health, try_control_files, try_errors):
            step()
        try_umount(daemon)
    finally:
        ctypes.CDLL(None).umount2(MNT, 3)
    one_line_each(open(LOG, 'rb').read(), 'the log')
    check(all(re.match(rb'20\S+Z (INFO|WARN|DEBUG) ', line) for line in open(LOG, 'rb').read().splitlines()), 'lines of the log')
    try_the_store()
    sys.exit(1 if wrong else 0)


main()
