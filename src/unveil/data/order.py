"""The order in which names are drawn for validation: by a digest of each, so that more files hardly change where the others go.

Digests of 100,000 names take a tenth of a second; a kept manifest has those of the usual seed as a column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from unveil.data.manifest import Manifest

KEPT_SEED = 0
FIELD = pa.field("name_digest", pa.uint64())
"""Of a row: the digest of its name for `KEPT_SEED`."""
_LOOKED_AT = 64


def digests(names: Iterable[str], seed: int) -> np.ndarray:
    """64 bits for each name, uint64 [names]; two names have the same with a probability of 2⁻⁶⁴."""
    prefix = f"{seed}\0".encode()
    # The first half of the 16 bytes: a digest of 8 would be another.
    joined = b"".join([hashlib.blake2b(prefix + name.encode(), digest_size=16).digest() for name in names])
    return np.frombuffer(joined, ">u8")[::2].astype(np.uint64)


def digests_of_rows(manifest: Manifest, seed: int) -> np.ndarray:
    """The digest of each row's relative path, uint64 [rows]: those that the manifest kept, where they are right.

    They are not where rows of several folders are together, where the rows chosen lie in one folder of a larger whole, or
    where another program gave files other names. Some are computed to see it.
    """
    table = manifest.table
    if seed == KEPT_SEED and FIELD.name in table.column_names and not table[FIELD.name].null_count:
        kept = np.asarray(table[FIELD.name], np.uint64)
        some = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _LOOKED_AT)).astype(np.int64))
        if (digests(manifest.relative_paths(some), seed) == kept[some]).all():
            return kept
    return digests(manifest.relative_paths(), seed)
