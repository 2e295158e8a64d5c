# SPDX-License-Identifier: Apache-2.0
"""What a disk holds, for comparing: an image of up to a few MiB in pieces that copies share."""

PIECE = 64 << 10
ZERO = bytes(PIECE)
PAGE = 4096


class Content:
    def __init__(self, other=None):
        self.size = other.size if other else 0
        self.pieces = dict(other.pieces) if other else {}     # number -> PIECE bytes; none: zeros

    def write(self, off, data):
        """The content with data at off."""
        new = Content(self)
        new.size = max(self.size, off + len(data))
        at = 0
        while at < len(data):
            number, skip = divmod(off + at, PIECE)
            n = min(len(data) - at, PIECE - skip)
            old = new.pieces.get(number, ZERO)
            new.pieces[number] = old[:skip] + data[at:at + n] + old[skip + n:]
            at += n
        return new

    def zero(self, off, length):
        """The content with a hole; the size stays."""
        length = max(0, min(length, self.size - off))
        new = self.write(off, bytes(length)) if length else Content(self)
        return new

    def truncate(self, size):
        new = Content(self)
        if size < self.size:
            new = self.zero(size, self.size - size)
            new.pieces = {k: v for k, v in new.pieces.items() if k * PIECE < size}
        new.size = size
        return new

    def read(self, off, length):
        length = max(0, min(length, self.size - off))
        first, skip = divmod(off, PIECE)
        last = (off + length + PIECE - 1) // PIECE
        return b''.join(self.pieces.get(i, ZERO) for i in range(first, last))[skip:skip + length]

    def bytes(self):
        return self.read(0, self.size)

    def is_zero(self):
        return not any(any(p) for p in self.pieces.values())


def of_bytes(data):
    return Content().write(0, data)


def first_difference(a, b):
    if len(a) != len(b):
        return f'{len(a)} bytes instead of {len(b)}'
    for at in range(0, len(a), PAGE):
        if a[at:at + PAGE] != b[at:at + PAGE]:
            i = next(i for i in range(at, len(a)) if a[i] != b[i])
            return f'first at byte {i}: {a[i]:#x} instead of {b[i]:#x}'
    return None


def is_mixture(data, contents):
    """Is each page as one of the contents has it, and the size between theirs?"""
    sizes = [c.size for c in contents]
    if not min(sizes) <= len(data) <= max(sizes):
        return f'{len(data)} bytes, not between {min(sizes)} and {max(sizes)}'
    texts = [c.bytes()[:len(data)].ljust(len(data), b'\0') for c in contents]
    for at in range(0, len(data), PAGE):
        if not any(data[at:at + PAGE] == t[at:at + PAGE] for t in texts):
            return f'the page at {at} is none that was written'
    return None
