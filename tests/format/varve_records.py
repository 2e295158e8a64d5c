# SPDX-License-Identifier: Apache-2.0
"""Bytes of varve's files -> values, written from docs/format/*.md and not from the C code: a second reader.

Each decoder names the part of the documents that it follows, checks every rule that stands there, and raises Damage.
Nothing here opens a file; varve_format.py does.
"""
import collections
import re
import struct

import xxhash

SEGMENT, PAGE, BLOCK_MAX, FRAME_MAX = 1 << 21, 4096, 65536, 131072
REF_NONE, REF_ZERO, CONTAINER_MAX = 2**64 - 1, 2**64 - 2, 2**40 - 2
ORDINALS = 1 << 24
NO_ID = bytes(16)


class Damage(Exception):
    """Bytes that the format does not allow (EBADMSG)."""


class Newer(Damage):
    """Intact, but of another version (ENOTSUP)."""


def need(condition, what):
    if not condition:
        raise Damage(what)


def checksum(data, seed=0):
    return xxhash.xxh3_64_intdigest(data, seed)


def zero(data, what):
    need(not any(data), f"{what}: bytes that must be zero are not")


def text_field(data, what, pattern=rb"[^\x00]*"):
    need(re.fullmatch(pattern, data, re.DOTALL), f"{what} has characters that it must not have")
    return data


LABEL = rb"[A-Za-z0-9._-]*"


# ---- 01 "Basic types" ----

def container_of(ref):
    return ref >> 24


def ordinal_of(ref):
    return ref & (ORDINALS - 1)


def check_run(ref, count, what):
    """A run of consecutive references never leaves its container."""
    need(container_of(ref) <= CONTAINER_MAX, f"{what}: reserved reference {ref:016x}")
    need(ordinal_of(ref) + count <= ORDINALS, f"{what}: a run leaves its container")


def record(data, magic):
    """01 "Record frame": checks magic, length, checksum, version, in this order."""
    need(len(data) >= 24, "shorter than a record")
    need(data[:8] == magic, f"magic is not {magic.decode()}")
    version, length = struct.unpack_from("<II", data, 8)
    need(length == len(data), "length of the record is not that of the file")
    need(checksum(data[:-8]) == int.from_bytes(data[-8:], "little"), "wrong checksum")
    check_version(version)
    return data


def check_version(version):
    if version > 1:
        raise Newer(f"written by version {version} of the format")
    need(version == 1, "version 0")


def tail_checksum(data, what):
    need(checksum(data[:-8]) == int.from_bytes(data[-8:], "little"), f"{what}: wrong checksum")


# ---- 02 "store.conf" ----

Conf = collections.namedtuple("Conf", "id fingerprint block chunking slots partitions digest_key created")


def power_of_two(text, what):
    need(re.fullmatch(r"[1-9][0-9]*", text), f"{what} is no number")
    value = int(text)
    need(value <= 4096 and value & (value - 1) == 0, f"{what} is not a power of two up to 4096")
    return value


def conf_lines(data):
    """The lines between checksum and [store] as a dictionary: each key once, after the section's name."""
    keys, section = {}, False
    for line in data.decode("latin-1").split("\n")[:-1]:
        line = line.strip(" \t")
        if line == "" or line[0] in "#;":
            continue
        if line == "[store]" and not section:
            section = True
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(" \t"), value.strip(" \t")
        need(section and equals and key not in keys, f"store.conf: line \"{line}\"")
        keys[key] = value
    return keys


def store_conf(data):
    """02 "store.conf": the checksum line first, then version, then the keys."""
    need(len(data) <= 4095, "store.conf is too long")
    last = re.search(rb"# checksum: ([0-9a-f]{16})\n\Z", data)
    need(last and (last.start() == 0 or data[last.start() - 1] == 10), "store.conf has no checksum line at its end")
    need(checksum(data[:last.start()]) == int(last[1], 16), "store.conf: wrong checksum")
    keys = conf_lines(data[:last.start()])
    need(re.fullmatch("[1-9][0-9]*", keys.get("version", "")), "store.conf: no version")
    check_version(int(keys.pop("version")))
    wanted = {"id", "fingerprint", "block", "chunking", "slots", "partitions", "digest-key", "created"}
    need(set(keys) == wanted, f"store.conf: keys {sorted(set(keys) ^ wanted)}")
    need(re.fullmatch("[0-9a-f]{32}", keys["id"]) and int(keys["id"], 16), "store.conf: id")
    need(keys["fingerprint"] in ("sha256", "sha1"), "store.conf: fingerprint")
    need(keys["block"] in ("4096", "8192", "16384"), "store.conf: block")
    need(keys["chunking"] in ("cdc", "fixed"), "store.conf: chunking")
    need(re.fullmatch("[0-9a-f]{64}", keys["digest-key"]), "store.conf: digest-key")
    need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|-?(0|[1-9]\d*)", keys["created"]), "store.conf: created")
    return Conf(bytes.fromhex(keys["id"]), keys["fingerprint"], int(keys["block"]), keys["chunking"],
                power_of_two(keys["slots"], "slots"), power_of_two(keys["partitions"], "partitions"),
                bytes.fromhex(keys["digest-key"]), keys["created"])


# ---- 03 "Node record" ----

Node = collections.namedtuple("Node", "id parent replaces version kind flags mode uid gid length atime mtime ctime btime name")
DIRECTORY, DISK = 1, 2


def node(data):
    """03 "Node record"."""
    record(data, b"VARVNODE")
    need(136 <= len(data) <= 391, "length out of range")
    fields = struct.unpack_from("<16s16s16sQIIIIIIqqqq", data, 16)
    n = Node(*fields, data[128:-8])
    need(n.id != NO_ID and n.id not in (n.parent, n.replaces), "ids")
    need(n.version >= 1 and n.kind in (DIRECTORY, DISK), "version or kind")
    need(n.flags & ~(1 if n.kind == DISK else 2) == 0, "flags")
    need(n.parent != NO_ID or n.kind == DIRECTORY, "a disk without a directory")
    need(n.mode <= (0o777 if n.kind == DISK else 0o7777), "permission bits")
    need(n.length == len(n.name) <= 255, "length of the name")
    need(n.length > 0 or n.parent == NO_ID, "empty name")
    need(not re.search(rb"[/\x00]", n.name) and n.name not in (b".", b".."), "name")
    return n


# ---- 04 "Container" ----

Header = collections.namedtuple("Header", "type store container version_id flags")
Frame = collections.namedtuple("Frame", "codec store container version_id first blocks raw stored sum data_sum")
Entry = collections.namedtuple("Entry", "fp frame_off in_frame length")
Trailer = collections.namedtuple("Trailer", "section store container version_id first entries section_off footer_off prev")
HEADER, FRAME, TRAILER, FOOTER_ENTRIES = 128, 96, 128, 85
BLOCKS, RECIPES = 1, 2
SHARED = 1


def begin(data, magic, sum_at):
    """What header, frame and trailer have in common: (word, store, container, version id)."""
    need(data[:8] == magic, f"magic is not {magic.decode()}")
    need(checksum(data[:sum_at]) == struct.unpack_from("<Q", data, sum_at)[0], f"{magic.decode()}: wrong checksum")
    version, word, store, container, version_id = struct.unpack_from("<II16sQ16s", data, 8)
    check_version(version)
    need(container <= CONTAINER_MAX, "container number out of range")
    return word, store, container, version_id


def container_header(data):
    """04 "Header"."""
    h = Header(*begin(data, b"varveCON", 120), struct.unpack_from("<I", data, 56)[0])
    need(h.type in (BLOCKS, RECIPES) and h.flags & ~7 == 0 and h.flags & 3 != 3, "header: type or flags")
    zero(data[60:120], "header")
    return h


def container_frame(data):
    """04 "Frame": the first 96 bytes."""
    f = Frame(*begin(data, b"varveFRM", 80), *struct.unpack_from("<IIII8xQQ", data, 56))
    zero(data[72:80], "frame")
    need(1 <= f.raw <= FRAME_MAX, "frame: decoded length")
    need(f.codec in (0, 1) and (f.stored == f.raw if f.codec == 0 else 1 <= f.stored < f.raw), "frame: codec and payload")
    need(1 <= f.blocks <= f.raw and f.first + f.blocks <= ORDINALS, "frame: number of blocks")
    return f


def footer_page(data, header, first):
    """04 "Footer page": entries; first is the ordinal of the first one."""
    need(data[:4] == b"VFTP", "magic of a footer page")
    where = header.store + header.version_id + struct.pack("<QI", header.container, first) + data[:8]
    count, total = struct.unpack_from("<IQ", data, 4)
    need(checksum(data[16:], checksum(where)) == total, "wrong checksum of a footer page")
    need(1 <= count <= FOOTER_ENTRIES and first + count <= ORDINALS, "entries of a footer page")
    zero(data[16 + 48 * count:], "footer page")
    entries = []
    for fp, frame_off, in_frame, length, rest in struct.iter_unpack("<32sIIII", data[16:16 + 48 * count]):
        need(rest == 0 and length <= BLOCK_MAX and in_frame + length <= FRAME_MAX, "footer entry")
        need(frame_off >= HEADER if length else frame_off == in_frame == 0, "frame of a footer entry")
        entries.append(Entry(fp, frame_off, in_frame, length))
    return entries


def footer_pages(entries):
    return -(-entries // FOOTER_ENTRIES)


def container_trailer(data):
    """04 "Trailer"."""
    t = Trailer(*begin(data, b"varveTRL", 120), *struct.unpack_from("<IIQQQ", data, 56))
    need(t.entries >= 1 and t.first + t.entries <= ORDINALS, "trailer: entries")
    need(max(t.section_off, t.footer_off, t.prev) < 2**32, "trailer: offsets")
    need((t.section == 0) == (t.prev == 0), "trailer: the one before it")
    need(t.section_off == (t.prev + TRAILER if t.section else HEADER) and t.footer_off >= t.section_off, "trailer: offsets")
    zero(data[88:120], "trailer")
    return t


def trailer_place(t):
    """Where a trailer must lie, by its own fields."""
    return t.footer_off + PAGE * footer_pages(t.entries)


# ---- 05 "Segment recipe" ----

Recipe = collections.namedtuple("Recipe", "digest bytes nruns nblocks data_pages runs lengths prefixes")


def segment_recipe(data):
    """05 "Segment recipe"."""
    record(data, b"VARVSEGR")
    need(len(data) >= 56, "shorter than a segment recipe")
    digest, size, r, b, pages = struct.unpack_from("<16sIIII", data, 16)
    need(1 <= size <= SEGMENT and 1 <= r <= 4097 and b <= 2048, "segment recipe: field out of range")
    need(len(data) == 48 + 12 * r + 6 * b + 8, "segment recipe: length")
    runs = list(struct.iter_unpack("<QI", data[48:48 + 12 * r]))
    lengths = [n + 1 for n in struct.unpack_from(f"<{b}H", data, 48 + 12 * r)]
    prefixes = [data[i:i + 4] for i in range(48 + 12 * r + 2 * b, len(data) - 8, 4)]
    recipe = Recipe(digest, size, r, b, pages, runs, lengths, prefixes)
    pieces = list(recipe_pieces(recipe))
    need(sum(length for _, length, _ in pieces) == size, "segment recipe: lengths do not add up")
    need(data_pages(pieces) == pages, "segment recipe: data pages")
    return recipe


def recipe_pieces(recipe):
    """(reference or REF_ZERO, length, prefix) of each block and zero run, in order of the segment's bytes."""
    block = 0
    for ref, count in recipe.runs:
        need(count >= 1, "segment recipe: empty run")
        if ref == REF_ZERO:
            yield REF_ZERO, count, None
            continue
        check_run(ref, count, "segment recipe")
        need(block + count <= recipe.nblocks, "segment recipe: runs have more blocks than it says")
        for i in range(count):
            yield ref + i, recipe.lengths[block + i], recipe.prefixes[block + i]
        block += count
    need(block == recipe.nblocks, "segment recipe: runs have fewer blocks than it says")


def data_pages(pieces):
    """Number of 4 KiB pages that a block touches."""
    at, pages, next_page = 0, 0, 0
    for ref, length, _ in pieces:
        if ref != REF_ZERO:
            first, end = max(at // PAGE, next_page), (at + length - 1) // PAGE + 1
            pages += max(0, end - first)
            next_page = max(next_page, end)
        at += length
    return pages


# ---- 06 "Snapshot recipe", "Side file of a snapshot" ----

Snapshot = collections.namedtuple("Snapshot", "store disk vm id parent host group seq epoch flags members size alloc freeze name_s "
                                  "levels nruns runs_digest mode uid gid dirty label note")
Side = collections.namedtuple("Side", "id version set_flags clear_flags mode uid gid protected owner_set verified label note")
RUNS = 255


def segments_of(size):
    return -(-size // SEGMENT)


def snapshot_header(data):
    """06 "Header"."""
    need(len(data) == PAGE, "shorter than its header")
    record(data, b"VARVSNAP")
    page, full, *f = struct.unpack_from("<II16s16s16s16s16s16s16sQQIIQQqq9QQ32sHH64s1024sIIIQ", data, 16)
    label_len, note_len, label, note = f[26:30]
    s = Snapshot(*f[:15], tuple(f[15:24]), f[24], f[25], *f[30:], label[:label_len], note[:note_len])
    need(page == PAGE and full == RUNS, "header: sizes of a page")
    need(NO_ID not in (s.store, s.disk, s.id) and s.parent != s.id, "header: ids")
    need(s.seq >= 1 and 0 <= s.name_s <= 253402300799, "header: sequence number or time of the name")
    need(s.flags & ~3 == 0 and s.size <= 2**53 and s.alloc <= segments_of(s.size) * SEGMENT, "header: flags or sizes")
    need(label_len <= 64 and note_len <= 1024, "header: length of label or note")
    text_field(s.label, "label", LABEL)
    text_field(s.note, "note")
    zero(label[label_len:] + note[note_len:] + data[1416:4088], "header")
    need(s.mode & ~0o555 == 0 and s.dirty <= segments_of(s.size), "header: permission bits or written segments")
    need(s.nruns <= segments_of(s.size) and (s.nruns > 0) == (s.size > 0), "header: number of runs")
    return s


def snapshot_page(data, snapshot_id, number):
    """06 "Page of runs": [(first segment, count, place)]."""
    need(len(data) == PAGE and data[:4] == b"VRUN", "page of runs: magic")
    seed = checksum(snapshot_id + struct.pack("<Q", number) + data[:8])
    version, n, total = struct.unpack_from("<HHQ", data, 4)
    need(checksum(data[16:], seed) == total, f"page {number}: wrong checksum")
    check_version(version)
    need(1 <= n <= RUNS, f"page {number}: number of runs")
    zero(data[16 + 16 * n:], f"page {number}")
    return list(struct.iter_unpack("<IIQ", data[16:16 + 16 * n]))


def side_file(data):
    """06 "Side file of a snapshot"."""
    record(data, b"VARVATTR")
    need(84 <= len(data) <= 1172, "length out of range")
    f = struct.unpack_from("<16sQIIIIIBBHqH", data, 16)
    zero(data[74:76], "side file")
    k, m = f[9], f[11]
    need(k <= 64 and m <= 1024 and len(data) == 84 + k + m, "length of label or note")
    s = Side(*f[:9], f[10], text_field(data[76:76 + k], "label", LABEL), text_field(data[76 + k:76 + k + m], "note"))
    need(s.id != NO_ID and (s.set_flags | s.clear_flags) & ~3 == 0 and s.mode <= 0o777, "id, flags or permission bits")
    need(s.protected <= 1 and s.owner_set <= 1, "protected or owner set is neither 0 nor 1")
    need(s.version >= 1 and s.verified >= 0, "version or time of the verification")
    need(s.owner_set or s.mode == s.uid == s.gid == 0, "owner without the mark that it counts")
    return s


# ---- 07 "Index" ----

IndexHeader = collections.namedtuple("IndexHeader", "slot partition partitions bits number merged_through entries pages fences seed "
                                     "present")
DELTA = 2**32 - 1
INDEX_ENTRIES, INDEX_FENCES = 127, 1020


def index_header(data):
    """07 "Header"."""
    need(len(data) == PAGE and data[:8] == b"VARVEIDX", "magic is not VARVEIDX")
    tail_checksum(data, "index header")
    check_version(struct.unpack_from("<I", data, 8)[0])
    h = IndexHeader(*struct.unpack_from("<IIII4xQQQQQQ", data, 12), data[128:640])
    zero(data[28:32] + data[80:128] + data[640:4088], "index header")
    need(h.number >= 1 and h.bits <= 24, "index header: number or bits")
    need(h.partitions in {1 << i for i in range(13)}, "index header: partitions")
    need(h.partition == DELTA or h.partition < h.partitions, "index header: partition")
    need(h.slot < 4096 and h.partitions <= 1 << h.bits, "index header: slot or bits")
    need(h.pages == -(-h.entries // INDEX_ENTRIES) and h.fences == PAGE * (1 + h.pages), "index header: places")
    if h.partition == DELTA:
        need(h.merged_through == 0, "index header: a delta that was merged")
        present = [p for p in range(4096) if h.present[p // 8] >> p % 8 & 1]
        need(len(present) <= h.entries and bool(present) == bool(h.entries), "index header: partitions and entries")
        need(all(p < h.partitions for p in present), "index header: a partition that the slot does not have")
    else:
        zero(h.present, "index header of a base")
    return h


def index_page(data, kind, number, want, seed):
    """07 "Data and fence pages": the items as [(key, reference)] or [fence]."""
    count, its_kind, its_number = struct.unpack_from("<HHI", data, 8)
    need(checksum(data[8:], seed) == struct.unpack_from("<Q", data)[0], "wrong checksum of a page")
    need((count, its_kind, its_number) == (want, kind, number), "head of a page")
    used = 16 + count * (32 if kind == 1 else 4)
    zero(data[used:], "page")
    if kind == 1:
        return list(struct.iter_unpack("<24sQ", data[16:used]))
    return [fence for fence, in struct.iter_unpack("<I", data[16:used])]


def first_bits(key, bits, skip=0):
    """The `bits` bits of a key that follow its first `skip` ones, read big-endian."""
    return int.from_bytes(key[:8], "big") >> 64 - skip - bits & (1 << bits) - 1


# ---- 09 "Deletion log", "Owner record" ----

def deletion_log(data, store, generation):
    """09 "Deletion log": the references."""
    need(len(data) >= 56 and data[:8] == b"varveDEL", "no deletion log")
    tail_checksum(data, "deletion log")
    version, rest, its_store, its_generation, n = struct.unpack_from("<II16sQQ", data, 8)
    check_version(version)
    need(rest == 0 and its_store == store and its_generation == generation, "deletion log of another store or generation")
    need(len(data) == 56 + 8 * n, "deletion log: length")
    refs = struct.unpack_from(f"<{n}Q", data, 48)
    need(all(a < b for a, b in zip(refs, refs[1:])), "deletion log: order")
    need(not refs or container_of(refs[-1]) <= CONTAINER_MAX, "deletion log: reserved reference")
    return refs


def owner_record(data, store, vm, epoch):
    """09 "Owner record": the host."""
    need(len(data) == 88 and data[:8] == b"varveOWN", "no owner record")
    tail_checksum(data, "owner record")
    version, rest, its_store, its_vm, host, its_epoch, more = struct.unpack_from("<II16s16s16sQQ", data, 8)
    check_version(version)
    need(rest == more == 0, "owner record: bytes that must be zero are not")
    need(host != NO_ID, "owner record: no host")
    need((its_store, its_vm, its_epoch) == (store, vm, epoch), "owner record of another store, VM or epoch")
    return host
