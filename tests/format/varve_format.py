#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A second, independent reader of varve stores, written from docs/format/*.md (quoted below as 01 to 09).

    varve_format.py verify STORE                      checks every byte that the documents speak about; exit 20: damage,
                                                      21: only the index is wrong (it is a hint)
    varve_format.py list STORE                        disk, sequence number, snapshot, bytes, name; with tabs between
    varve_format.py extract STORE DISKID SEQ OUTFILE  the bytes of a snapshot, as a sparse file
    varve_format.py cuts STORE                        cuts all segments again, as 01 "Cut points" says (slow)

The store must be at rest. Needs python3-zstandard and python3-xxhash; libcrypto for the digests of segments.
"""
import collections
import ctypes
import functools
import hashlib
import os
import re
import stat
import sys
import time

import zstandard

import varve_records as fmt
from varve_records import Damage, need

HEX32, HEX16 = "([0-9a-f]{32})", "([0-9a-f]{16})"
SNAP_NAME = re.compile(f"{HEX16}-{HEX32}\\.(rcp|attr)")
TRASH_NAME = re.compile(f"{HEX32}-([sa])-{HEX16}-({SNAP_NAME.pattern})")


# ---- digests ----

class Gmac:
    """01 "digest": AES-256-GMAC with a nonce of 12 zero bytes: AES-GCM over nothing, the data as associated data."""

    def __init__(self, key):
        self.crypto, self.key = ctypes.CDLL("libcrypto.so.3"), key
        self.crypto.EVP_CIPHER_CTX_new.restype = self.crypto.EVP_aes_256_gcm.restype = ctypes.c_void_p

    def digest(self, data):
        crypto, out, n = self.crypto, ctypes.create_string_buffer(16), ctypes.c_int()
        ctx = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
        try:
            ok = crypto.EVP_EncryptInit_ex(ctx, ctypes.c_void_p(crypto.EVP_aes_256_gcm()), None, self.key, bytes(12))
            ok &= crypto.EVP_EncryptUpdate(ctx, None, ctypes.byref(n), data, len(data))
            ok &= crypto.EVP_EncryptFinal_ex(ctx, out, ctypes.byref(n))
            ok &= crypto.EVP_CIPHER_CTX_ctrl(ctx, 0x10, 16, out)     # EVP_CTRL_AEAD_GET_TAG
        finally:
            crypto.EVP_CIPHER_CTX_free(ctx)
        if ok != 1:
            raise OSError("libcrypto: AES-256-GCM failed")
        return out.raw


def fingerprint(kind, data):
    """01 "fingerprint"."""
    return hashlib.sha256(data).digest() if kind == "sha256" else hashlib.sha1(data).digest() + bytes(12)


# ---- containers ----

class Container:
    """04 "Container": one file with its sealed sections and their entries. Damage is collected in .problems."""

    def __init__(self, path, store_id, number):
        self.file, self.size = open(path, "rb", buffering=0), os.path.getsize(path)
        self.number, self.store_id, self.header = number, store_id, None
        self.trailers, self.entries, self.problems = [], {}, []
        self.sealed_end = 0
        if self.read_header():
            self.find_sections()
        for t in self.trailers:
            self.read_footer(t)

    def close(self):
        self.file.close()

    def at(self, offset, length):
        return os.pread(self.file.fileno(), length, offset)

    def exact(self, offset, length):
        data = self.at(offset, length)
        need(len(data) == length, f"file ends inside of what begins at {offset}")
        return data

    def read_header(self):
        """False: there are no sections to look for."""
        data = self.at(0, fmt.HEADER)
        if len(data) < fmt.HEADER or not any(data):
            if self.later_trailer(0, any_version=True):
                self.problems.append("header is gone, but a section is there")
            return False
        try:
            self.header = fmt.container_header(data)
            need((self.header.store, self.header.container) == (self.store_id, self.number), "header of another store or container")
        except Damage as e:
            self.problems.append(f"header: {e}")
            self.header = None
        self.sealed_end = fmt.HEADER
        return self.header is not None

    def ours(self, r, any_version=False):
        same = any_version or r.version_id == self.header.version_id
        return same and (r.store, r.container) == (self.store_id, self.number)

    def trailer_at(self, offset, any_version=False):
        """The trailer at offset if one that counts is there, else None."""
        try:
            t = fmt.container_trailer(self.exact(offset, fmt.TRAILER))
        except Damage:
            return None
        return t if self.ours(t, any_version) and fmt.trailer_place(t) == offset else None

    def later_trailer(self, begin, any_version=False):
        data = self.at(begin, self.size - begin)
        return any(self.trailer_at(begin + m.start(), any_version) for m in re.finditer(rb"(?=varveTRL)", data))

    def find_sections(self):
        """04 "Which sections are sealed": from the end if the chain is whole, else from the front."""
        if self.chain():
            self.sealed_end = self.size
            return
        self.trailers = []
        while self.forward():
            pass
        if self.later_trailer(self.sealed_end):
            self.problems.append(f"a section after {self.sealed_end} is damaged: there are sealed ones behind it")

    def chain(self):
        offset, chain = self.size - fmt.TRAILER, []
        while True:
            t = self.trailer_at(offset) if offset >= fmt.HEADER else None
            if t is None or (chain and (t.section + 1, t.first + t.entries) != (chain[-1].section, chain[-1].first)):
                return False
            chain.append(t)
            if t.section == 0:
                break
            offset = t.prev
        self.trailers = chain[::-1]
        return chain[-1].first == 0

    def forward(self):
        """Takes one more section from the front; False when there is none."""
        first = self.trailers[-1].first + self.trailers[-1].entries if self.trailers else 0
        offset, ordinal = self.sealed_end, first
        try:
            while self.at(offset, 8) == b"varveFRM":
                f = fmt.container_frame(self.exact(offset, fmt.FRAME))
                need(self.ours(f) and f.first == ordinal, "frame of another place")
                ordinal, offset = ordinal + f.blocks, offset + fmt.FRAME + f.stored
        except Damage:
            return False
        place = offset + fmt.PAGE * fmt.footer_pages(ordinal - first)
        t = self.trailer_at(place)
        if t is None or (t.section_off, t.footer_off, t.first, t.entries) != (self.sealed_end, offset, first, ordinal - first):
            return False
        self.trailers.append(t)
        self.sealed_end = place + fmt.TRAILER
        return True

    def read_footer(self, t):
        """04 "Footer page": self.entries[ordinal] of one section."""
        for page in range(fmt.footer_pages(t.entries)):
            first = t.first + page * fmt.FOOTER_ENTRIES
            try:
                entries = fmt.footer_page(self.exact(t.footer_off + page * fmt.PAGE, fmt.PAGE), self.header, first)
                need(len(entries) == min(fmt.FOOTER_ENTRIES, t.first + t.entries - first), "entries of a footer page")
                need(all(e.length == 0 or t.section_off <= e.frame_off < t.footer_off for e in entries), "an entry leaves its section")
                self.entries.update(enumerate(entries, first))
            except Damage as e:
                self.problems.append(f"footer of ordinals from {first} on: {e}")

    @functools.lru_cache(maxsize=16)
    def frame(self, offset):
        """04 "Frame": (header, decoded bytes)."""
        f = fmt.container_frame(self.exact(offset, fmt.FRAME))
        need(self.ours(f), f"frame at {offset} is of another file")
        payload = self.exact(offset + fmt.FRAME, f.stored)
        need(fmt.checksum(payload, f.sum) == f.data_sum, f"frame at {offset}: wrong checksum of the payload")
        if f.codec == 0:
            return f, payload
        try:
            raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=f.raw)
        except zstandard.ZstdError as e:
            raise Damage(f"frame at {offset}: {e}") from e
        need(len(raw) == f.raw, f"frame at {offset}: decodes to another length")
        return f, raw

    def entry(self, ordinal):
        need(ordinal in self.entries, f"no sealed section has ordinal {ordinal}")
        need(self.entries[ordinal].length, f"ordinal {ordinal} is dead")
        return self.entries[ordinal]

    def block(self, ordinal):
        e = self.entry(ordinal)
        f, raw = self.frame(e.frame_off)
        need(f.first <= ordinal < f.first + f.blocks and e.in_frame + e.length <= f.raw, f"block {ordinal} is not in its frame")
        return raw[e.in_frame:e.in_frame + e.length]

    def check_frames(self, t):
        """Frames fill the section without gap and their blocks follow each other; a dead ordinal may leave a gap."""
        offset, ordinal = t.section_off, t.first
        while offset < t.footer_off:
            f, _ = self.frame(offset)
            need(f.first >= ordinal and f.first + f.blocks <= t.first + t.entries, f"frame at {offset}: ordinals")
            need(not any(self.entries[i].length for i in range(ordinal, f.first)), f"frame at {offset}: live ordinals before it")
            entries = [self.entries[i] for i in range(f.first, f.first + f.blocks)]
            need(all(e.frame_off == offset for e in entries if e.length), f"frame at {offset}: its blocks are elsewhere")
            end, dead = 0, any(e.length == 0 for e in entries)
            for e in entries:
                need(e.length == 0 or (e.in_frame >= end if dead else e.in_frame == end), f"frame at {offset}: order of its blocks")
                end = e.in_frame + e.length if e.length else end
            need(end <= f.raw if dead else end == f.raw, f"frame at {offset}: length of its blocks")
            ordinal, offset = f.first + f.blocks, offset + fmt.FRAME + f.stored
        need(offset == t.footer_off, "the last frame of a section reaches into its footer")
        need(not any(self.entries[i].length for i in range(ordinal, t.first + t.entries)), "live ordinals without a frame")

    def scrub(self, kind):
        """Every frame and every fingerprint. Returns the number of blocks."""
        for ordinal, e in self.entries.items():
            try:
                if e.length:
                    need(fingerprint(kind, self.block(ordinal)) == e.fp, f"block {ordinal} does not have its fingerprint")
            except Damage as bad:
                self.problems.append(str(bad))
        if not self.problems:
            try:
                for t in self.trailers:
                    self.check_frames(t)
            except Damage as bad:
                self.problems.append(str(bad))
        return len(self.entries)


# ---- the store ----

class Store:
    """09 "Store directory": the names; finds things by reference, id and sequence number."""

    def __init__(self, path):
        self.path = path
        self.conf = fmt.store_conf(self.load("store.conf"))
        self.gmac = Gmac(self.conf.digest_key)
        self.opened = {}

    def load(self, *names):
        path = os.path.join(self.path, *names)
        need(stat.S_ISREG(os.lstat(path).st_mode), f"{'/'.join(names)} is not a regular file")
        with open(path, "rb") as f:
            return f.read()

    def names(self, *directory):
        return sorted(n for n in os.listdir(os.path.join(self.path, *directory)) if not n.startswith(".tmp-"))

    def containers(self, stray=lambda file: None):
        for claim in self.names("containers"):
            if not re.fullmatch("[0-9a-f]{6}", claim) or not os.path.isdir(os.path.join(self.path, "containers", claim)):
                stray(f"containers/{claim}")
                continue
            for name in self.names("containers", claim):
                if re.fullmatch(r"[0-9a-f]{4}\.vc", name):
                    yield int(claim, 16) << 16 | int(name[:4], 16)
                else:
                    stray(f"containers/{claim}/{name}")

    def container(self, number):
        if number not in self.opened:
            if len(self.opened) >= 200:
                self.opened.pop(next(iter(self.opened))).close()
            path = os.path.join(self.path, "containers", f"{number >> 16:06x}", f"{number & 0xffff:04x}.vc")
            need(os.path.exists(path), f"container {number:x} is missing")
            self.opened[number] = Container(path, self.conf.id, number)
        return self.opened[number]

    def recipe(self, place):
        """05 "Segment recipe" of a place."""
        c = self.container(fmt.container_of(place))
        need(c.header and c.header.type == fmt.RECIPES, f"place {place:016x} is not in a recipe container")
        return fmt.segment_recipe(c.block(fmt.ordinal_of(place)))

    def pieces(self, recipe):
        """(reference or REF_ZERO, bytes) of a segment; length and prefix of each block are those of the footer."""
        for ref, length, prefix in fmt.recipe_pieces(recipe):
            if ref == fmt.REF_ZERO:
                yield ref, bytes(length)
                continue
            c = self.container(fmt.container_of(ref))
            need(c.header and c.header.type == fmt.BLOCKS, f"reference {ref:016x} is not in a block container")
            e = c.entry(fmt.ordinal_of(ref))
            need(e.length == length and e.fp[:4] == prefix, f"block {ref:016x}: length or fingerprint is not that of the footer")
            yield ref, c.block(fmt.ordinal_of(ref))

    def segment(self, place, length):
        """The bytes of a segment; 05 "Length": what a recipe lacks is zero, and so is what is behind the disk's end."""
        recipe = self.recipe(place)
        data = b"".join(piece for _, piece in self.pieces(recipe))
        need(self.gmac.digest(data) == recipe.digest, f"segment {place:016x} does not have its digest")
        need(not any(data[length:]), f"segment {place:016x} has data behind the end of the disk")
        return data[:length].ljust(length, b"\0")

    def disks(self, where="snapshots"):
        return [n for n in self.names(where) if re.fullmatch(HEX32, n)]

    def snapshot_files(self, disk, suffix, where="snapshots"):
        for name in self.names(where, disk):
            m = SNAP_NAME.fullmatch(name)
            if m and m[3] == suffix:
                yield int(m[1], 16), m[2], name

    def snapshot(self, where, disk, seq, snap, name):
        """06 "Snapshot recipe": (header, runs), all of the file checked. In anchors/ the disk may be another one."""
        return self.recipe_file(self.load(where, disk, name), None if where == "anchors" else disk, seq, snap)

    def recipe_file(self, data, disk, seq, snap):
        """The same of a file's bytes; disk None: of any."""
        s = fmt.snapshot_header(data[:fmt.PAGE])
        need((s.store, s.id.hex(), s.seq) == (self.conf.id, snap, seq), "recipe of another store, snapshot or number")
        need(disk is None or s.disk.hex() == disk, "recipe of another disk")
        pages = -(-s.nruns // fmt.RUNS)
        need(len(data) == fmt.PAGE * (1 + pages), "length of the file is not that of its runs")
        runs, digests = [], b""
        for i in range(1, pages + 1):
            page = data[i * fmt.PAGE:(i + 1) * fmt.PAGE]
            found = fmt.snapshot_page(page, s.id, i)
            need(len(found) == min(fmt.RUNS, s.nruns - len(runs)), f"page {i}: number of runs")
            digests += hashlib.sha256(page[16:16 + 16 * len(found)]).digest()
            runs += found
        need(hashlib.sha256(digests).digest() == s.runs_digest, "digest of the runs")
        check_order(runs, fmt.segments_of(s.size))
        return s, runs

    def side(self, disk, name, snap):
        a = fmt.side_file(self.load("snapshots", disk, name))
        need(a.id.hex() == snap, "side file of another snapshot")
        return a

    def nodes(self, stray=lambda file: None):
        """{id: node}, and {id: damage} of those that cannot be read."""
        good, bad = {}, {}
        for name in self.names("nodes"):
            if not re.fullmatch(HEX32, name):
                stray(f"nodes/{name}")
                continue
            try:
                good[name] = fmt.node(self.load("nodes", name))
                need(good[name].id.hex() == name, "record of another node")
            except Damage as e:
                good.pop(name, None)
                bad[name] = e
        return good, bad


def check_order(runs, segments):
    """06: runs follow each other from segment 0 to the end of the disk; none leaves its container."""
    at = 0
    for first, count, place in runs:
        need(first == at and count >= 1, f"runs: gap or overlap at segment {at}")
        if place != fmt.REF_ZERO:
            fmt.check_run(place, count, "runs")
        at += count
    need(at == segments, "runs do not end with the disk")


def places(snapshot, runs):
    """(segment, place or REF_ZERO, length) of each segment."""
    for first, count, place in runs:
        for i in range(count):
            length = min(fmt.SEGMENT, snapshot.size - (first + i) * fmt.SEGMENT)
            yield first + i, place if place == fmt.REF_ZERO else place + i, length


# ---- verify ----

class Verify:
    """All checks of a store. .problems: (severity, file, text); severity: damage, index (a hint only), notice."""

    def __init__(self, store):
        self.store, self.problems, self.counts = store, [], collections.Counter()
        self.segments_seen = set()
        self.containers()
        self.snapshots()
        self.tree()
        self.trash()
        self.generations()
        IndexCheck(self).run()

    def told(self, severity, file, what):
        self.problems.append((severity, file, str(what)))

    def stray(self, file):
        self.told("notice", file, "not a file of varve's")

    def check(self, file, function, *arguments, severity="damage"):
        """What the function returns; None when it raises Damage, which is told."""
        try:
            return function(*arguments)
        except (Damage, FileNotFoundError) as e:
            self.told(severity, file, e)
            return None

    def containers(self):
        for number in self.store.containers(self.stray):
            file = f"containers/{number >> 16:06x}/{number & 0xffff:04x}.vc"
            c = self.check(file, self.store.container, number)
            self.counts["blocks"] += c.scrub(self.store.conf.fingerprint)
            self.counts["containers"] += 1
            for p in c.problems:
                self.told("damage", file, p)
            if c.size > c.sealed_end and not c.problems:
                self.told("notice", file, f"torn tail of {c.size - c.sealed_end} bytes")

    def snapshots(self):
        for where in "snapshots", "anchors":
            for disk in self.store.disks(where):
                for seq, snap, name in self.store.snapshot_files(disk, "rcp", where):
                    self.check(f"{where}/{disk}/{name}", self.one_snapshot, where, disk, seq, snap, name)
                    self.counts[where] += 1

    def one_snapshot(self, *arguments):
        s, runs = self.store.snapshot(*arguments)
        for number, place, length in places(s, runs):
            if place == fmt.REF_ZERO or (place, length) in self.segments_seen:
                continue
            self.segments_seen.add((place, length))     # told once, for the first snapshot that it hits
            self.counts["segments"] += 1
            self.check("/".join(map(str, arguments[:2])) + f" snapshot {s.seq} segment {number}", self.store.segment, place, length)

    def tree(self):
        """03 "Node record", 06 "Side file of a snapshot": who belongs to whom."""
        nodes, bad = self.store.nodes(self.stray)
        for name, why in bad.items():
            self.told("damage", f"nodes/{name}", why)
        roots = [n for n in nodes.values() if n.parent == fmt.NO_ID]
        if len(roots) != 1 and not bad:
            self.told("damage", "nodes", f"{len(roots)} roots")
        for name, n in nodes.items():
            if n.parent != fmt.NO_ID and n.parent.hex() not in bad:
                self.check(f"nodes/{name}", self.parent, nodes, n)
        for disk in self.store.disks():
            recipes = {snap for _, snap, _ in self.store.snapshot_files(disk, "rcp")}
            if recipes and disk not in nodes and disk not in bad:
                self.told("damage", f"snapshots/{disk}", "its disk has no record")
            for _, snap, name in self.store.snapshot_files(disk, "attr"):
                if snap in recipes:
                    self.check(f"snapshots/{disk}/{name}", self.store.side, disk, name, snap)
                else:
                    self.told("notice", f"snapshots/{disk}/{name}", "side file without its snapshot")
        self.counts["nodes"] = len(nodes)

    @staticmethod
    def parent(nodes, n):
        above = nodes.get(n.parent.hex())
        need(above is not None and above.kind == fmt.DIRECTORY, "its directory has no record")
        seen = set()
        while above is not None and above.parent != fmt.NO_ID:
            need(above.id not in seen, "it is below itself")
            seen.add(above.id)
            above = nodes.get(above.parent.hex())

    def trash(self):
        """09: recipes and side files on their way out. No snapshot needs them: nothing here is damage."""
        for name in self.store.names("trash"):
            m = TRASH_NAME.fullmatch(name)
            if m is None or (m[2] == "a" and m[7] == "attr"):
                self.stray(f"trash/{name}")
            else:
                self.check(f"trash/{name}", self.one_of_trash, m, severity="notice")

    def one_of_trash(self, m):
        data = self.store.load("trash", m[0])
        if m[7] == "rcp":
            self.store.recipe_file(data, m[1] if m[2] == "s" else None, int(m[5], 16), m[6])
        else:
            need(fmt.side_file(data).id.hex() == m[6], "side file of another snapshot")
        self.counts["in trash"] += 1

    def generations(self):
        """09: deletion logs, leases, owners."""
        store = self.store
        generations = store.names("generations")
        if not generations:
            self.told("damage", "generations", "there is none")
        for g in generations:
            self.check(f"generations/{g}", self.deletions, g)
            if os.path.isdir(os.path.join(store.path, "generations", g, "leases")):
                for lease in store.names("generations", g, "leases"):
                    self.told("notice", f"generations/{g}/leases/{lease}", "a lease")
        for name in store.names("owners"):
            if re.match(HEX32, name):
                self.check(f"owners/{name}", self.owner, name)
            else:
                self.stray(f"owners/{name}")

    def deletions(self, g):
        need(re.fullmatch(HEX16, g) and int(g, 16), "name of a generation")
        fmt.deletion_log(self.store.load("generations", g, "deletions"), self.store.conf.id, int(g, 16))

    def owner(self, name):
        m = re.fullmatch(f"{HEX32}\\.{HEX16}", name)
        need(m and int(m[2], 16), "name of an owner record")
        fmt.owner_record(self.store.load("owners", name), self.store.conf.id, bytes.fromhex(m[1]), int(m[2], 16))
        self.counts["owners"] += 1


class IndexCheck:
    """07 "Index": every file by itself, then every live entry against the containers."""

    def __init__(self, verify):
        self.verify, self.store = verify, verify.store
        conf = self.store.conf
        self.bits = (conf.slots * conf.partitions).bit_length() - 1

    def run(self):
        for slot in self.store.names("index"):
            if not re.fullmatch(r"\d{4}", slot) or int(slot) >= self.store.conf.slots:
                self.verify.stray(f"index/{slot}")
                continue
            bases, deltas = {}, []
            for name in self.store.names("index", slot):
                found = self.verify.check(f"index/{slot}/{name}", self.file, int(slot), name, severity="index")
                if found is not None and found[0].partition == fmt.DELTA:
                    deltas.append(found)
                elif found is not None:
                    base = bases.setdefault(found[0].partition, found)
                    bases[found[0].partition] = max(base, found, key=lambda f: f[0].number)
            self.live_entries(int(slot), bases, deltas)

    def file(self, slot, name):
        """(header, entries) of one file."""
        conf = self.store.conf
        need(re.fullmatch(r"base-\d{4}-[1-9]\d*|delta-[1-9]\d*", name), "name of an index file")
        data = self.store.load("index", f"{slot:04d}", name)
        h = fmt.index_header(data[:fmt.PAGE])
        wanted = f"delta-{h.number}" if h.partition == fmt.DELTA else f"base-{h.partition:04d}-{h.number}"
        need((h.slot, h.partitions, h.bits, wanted) == (slot, conf.partitions, self.bits, name), "index file of another place")
        fences = -(-h.pages // fmt.INDEX_FENCES)
        need(len(data) == fmt.PAGE * (1 + h.pages + fences), "size of the file is not that of its entries")
        entries = list(self.items(data, 1, 1, h.pages, h.entries, h.seed, fmt.INDEX_ENTRIES))
        fence = list(self.items(data, 2, 1 + h.pages, fences, h.pages, h.seed, fmt.INDEX_FENCES))
        self.check_keys(h, entries, fence)
        self.verify.counts["index files"] += 1
        return h, entries

    @staticmethod
    def items(data, kind, first_page, pages, total, seed, per_page):
        for i in range(pages):
            page = data[(first_page + i) * fmt.PAGE:(first_page + i + 1) * fmt.PAGE]
            yield from fmt.index_page(page, kind, i, min(per_page, total - i * per_page), seed)

    def check_keys(self, h, entries, fence):
        """Order, partition, references, fences, and which partitions the header of a delta names."""
        keys = [key for key, _ in entries]
        need(all(a < b for a, b in zip(keys, keys[1:])), "keys do not ascend")
        partitions = {fmt.first_bits(key, self.bits) - h.slot * h.partitions for key in keys}
        allowed = range(h.partitions) if h.partition == fmt.DELTA else [h.partition]
        need(partitions <= set(allowed), "a key is of another partition")
        if h.partition == fmt.DELTA:
            named = {p for p in range(4096) if h.present[p // 8] >> p % 8 & 1}
            need(named == partitions, "the header names other partitions than there are")
        for _, ref in entries:
            need(fmt.container_of(ref) <= fmt.CONTAINER_MAX or (ref == fmt.REF_NONE and h.partition == fmt.DELTA), "reference")
        shared = self.bits - (h.partitions.bit_length() - 1) if h.partition == fmt.DELTA else self.bits
        need(fence == [fmt.first_bits(key, 32, shared) for key in keys[::fmt.INDEX_ENTRIES]], "fences are not the first keys")

    def live_entries(self, slot, bases, deltas):
        """07 "What counts": newest first."""
        live = {}
        for h, entries in sorted(deltas, key=lambda f: -f[0].number) + list(bases.values()):
            for key, ref in entries:
                part = fmt.first_bits(key, self.bits) - slot * h.partitions
                if h.partition != fmt.DELTA or part not in bases or h.number > bases[part][0].merged_through:
                    live.setdefault(key, ref)
        for key, ref in live.items():
            if ref != fmt.REF_NONE:
                self.verify.counts["index entries"] += 1
                self.verify.check(f"index/{slot:04d} {key.hex()}", self.one_entry, key, ref, severity="index")

    def one_entry(self, key, ref):
        c = self.store.container(fmt.container_of(ref))
        need(c.header and c.header.type == fmt.BLOCKS and c.header.flags & fmt.SHARED, f"{ref:016x} is not in a shared container")
        need(c.entry(fmt.ordinal_of(ref)).fp[:24] == key, f"{ref:016x} has another fingerprint")


# ---- commands ----

def cmd_verify(store):
    v = Verify(store)
    for severity, file, what in v.problems:
        print(f"{severity}: {file}: {what}")
    print(", ".join(f"{n} {what}" for what, n in sorted(v.counts.items())))
    severities = {p[0] for p in v.problems}
    return 20 if "damage" in severities else 21 if "index" in severities else 0


def snapshot_name(nodes, s, label):
    """Path of a snapshot in a mount: NAME@LABEL.EXT or NAME@TIME.EXT; EXT begins at the last dot."""
    disk, path = nodes.get(s.disk.hex()), ""
    if disk is None:
        return "?"
    stem, dot, ext = disk.name.rpartition(b".")
    if not stem:
        stem, dot, ext = disk.name, b"", b""
    tag = label.decode() or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(s.name_s))
    above = nodes.get(disk.parent.hex())
    while above is not None and above.parent != fmt.NO_ID:
        path, above = os.fsdecode(above.name) + "/" + path, nodes.get(above.parent.hex())
    return f"{path}{os.fsdecode(stem)}@{tag}{os.fsdecode(dot + ext)}"


def cmd_list(store):
    nodes, _ = store.nodes()
    for disk in store.disks():
        sides = {snap: name for _, snap, name in store.snapshot_files(disk, "attr")}
        for seq, snap, name in store.snapshot_files(disk, "rcp"):
            s, _ = store.snapshot("snapshots", disk, seq, snap, name)
            label = store.side(disk, sides[snap], snap).label if snap in sides else s.label
            print(disk, seq, snap, s.size, snapshot_name(nodes, s, label), sep="\t")
    return 0


def cmd_extract(store, disk, seq, outfile):
    found = [f for f in store.snapshot_files(disk, "rcp") if f[0] == int(seq)]
    need(len(found) == 1, f"disk {disk} has {len(found)} snapshots with sequence number {seq}")
    s, runs = store.snapshot("snapshots", disk, *found[0])
    with open(outfile, "wb") as out:
        for number, place, length in places(s, runs):
            if place == fmt.REF_ZERO:
                continue
            data = store.segment(place, length)
            for at in range(0, length, fmt.PAGE):
                if any(data[at:at + fmt.PAGE]):
                    out.seek(number * fmt.SEGMENT + at)
                    out.write(data[at:at + fmt.PAGE])
        out.truncate(s.size)
    return 0


def cmd_cuts(store):
    import varve_cuts
    cut = varve_cuts.Cutter(store.conf.chunking, store.conf.block)
    seen, wrong = set(), 0
    for disk in store.disks():
        for found in store.snapshot_files(disk, "rcp"):
            s, runs = store.snapshot("snapshots", disk, *found)
            for number, place, length in places(s, runs):
                if place == fmt.REF_ZERO or place in seen:
                    continue
                seen.add(place)
                recipe = store.recipe(place)
                stored = [(ref == fmt.REF_ZERO, n) for ref, n, _ in fmt.recipe_pieces(recipe)]
                if stored != cut.segment(store.segment(place, recipe.bytes)):
                    wrong += 1
                    print(f"damage: {disk} snapshot {s.seq} segment {number}: cut in another way")
    print(f"{len(seen)} segments cut again, {wrong} in another way")
    return 20 if wrong else 0


COMMANDS = {"verify": (cmd_verify, 1), "list": (cmd_list, 1), "extract": (cmd_extract, 4), "cuts": (cmd_cuts, 1)}


def main(arguments):
    command, count = COMMANDS.get(arguments[0] if arguments else "", (None, 0))
    if command is None or len(arguments) != 1 + count:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return command(Store(arguments[1]), *arguments[2:])
    except Damage as e:
        print(f"damage: {e}")
        return 20


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
