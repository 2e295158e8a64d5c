# SPDX-License-Identifier: Apache-2.0
"""01 "Cut points": cuts a segment into zero runs and blocks, byte by byte, as the document says."""
import re

ZERO_RUN = 4096
MASK64 = 2**64 - 1


def gear_table(seed=0x7661727665000001):
    """256 outputs of splitmix64."""
    table, state = [], seed
    for _ in range(256):
        state = (state + 0x9e3779b97f4a7c15) & MASK64
        z = state
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK64
        z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK64
        table.append(z ^ z >> 31)
    return table


def top_zero(bits):
    """Mask of so many bits from bit 62 downwards."""
    return ((1 << bits) - 1) << 63 - bits


class Cutter:
    def __init__(self, chunking, average):
        bits = average.bit_length() - 1
        self.content, self.average, self.gear = chunking == "cdc", average, gear_table()
        self.minimum, self.maximum = average >> 2, average << 2
        self.early, self.late = top_zero(bits + 2), top_zero(bits - 2)

    def segment(self, data):
        """[(zero run?, length)]; zero runs that touch are one."""
        pieces, at = [], 0
        while at < len(data):
            zeros = re.compile(rb"\x00*").match(data, at).end() - at
            at_end = at + zeros == len(data)
            if not self.content and not at_end:
                zeros -= zeros % self.average
            if zeros >= ZERO_RUN or (at_end and zeros):
                if pieces and pieces[-1][0]:
                    pieces[-1] = (True, pieces[-1][1] + zeros)
                else:
                    pieces.append((True, zeros))
                at += zeros
                continue
            length = self.block(data, at) if self.content else min(self.average, len(data) - at)
            pieces.append((False, length))
            at += length
        return pieces

    def block(self, data, start):
        """Length of the block that begins at start."""
        end = min(len(data) - start, self.maximum)
        if end <= self.minimum:
            return end
        h, gear = 0, self.gear
        for byte in data[max(start, start + self.minimum + 1 - 63):start + self.minimum]:
            h = 2 * h + gear[byte] & MASK64
        for length in range(self.minimum + 1, end):
            h = 2 * h + gear[data[start + length - 1]] & MASK64
            if not h & (self.early if length <= self.average else self.late):
                return length
        return end
