# SPDX-License-Identifier: Apache-2.0
"""Samples of enumerated points."""
import re


def kind_of(path):
    """What a file of STORE or STATE is: its path without what differs from run to run."""
    return re.sub(r'\d[0-9a-f]*', 'N', re.sub(r'[0-9a-f]{16,}', 'ID', path.rpartition('/case/')[2]))


def spread(points, want, rng, family=None):
    """All points, or about `want` of them at a fixed stride that begins somewhere. With `family`, a function of a point: at a stride
    through one family after the other, so that each has its share, and besides one point of each family that the stride stepped over."""
    stride = len(points) // want if want else 1
    if stride <= 1:
        return points
    if family is None:
        return points[rng.randrange(stride)::stride]
    families = {}
    for i, p in enumerate(points):
        families.setdefault(family(p), []).append(i)
    order = [i for f in sorted(families) for i in families[f]]
    chosen = set(order[rng.randrange(stride)::stride])
    chosen |= {rng.choice(f) for f in families.values() if not chosen & set(f)}
    return [points[i] for i in sorted(chosen)]
