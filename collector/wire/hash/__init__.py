"""Hashes and dictionaries of bytes, attributes and keys.

There are two kinds of hashes, each where measurements showed it to be the right one:

- *Identities* (series keys, attribute sets, texts) are SipHash-1-3-128, a keyed function that nobody without the key
  can steer. Two identities are considered equal if their hashes are.
- *Places* in the open-addressing tables are computed by 64x64 to 128 bit multiplications with a secret of the process.
  Equality is decided by comparing the values themselves, so a collision costs time only.

``dictionary``  codes of equal slices and of equal pairs of words
``identity``    keyed hashes of slices, attributes and keys
``fnv``         FNV-1a, to agree with others who use it
``slots``       the table from 128-bit keys to slots
``siphash``     SipHash itself; ``places`` the hash of the tables

``collector.model.series`` decides what makes up an identity; ``collector.model.keytable`` adds columns to the slots.
"""

from collector.wire.hash.dictionary import dictionary, find_slice, pair_codes
from collector.wire.hash.fnv import fnv1a_32
from collector.wire.hash.identity import (
    combine,
    continue_process_key,
    hash_attributes,
    hash_slices,
    process_key,
    sum_by_owner,
)
from collector.wire.hash.slots import SlotTable, clear_rows

__all__ = [
    "SlotTable",
    "clear_rows",
    "combine",
    "continue_process_key",
    "dictionary",
    "find_slice",
    "fnv1a_32",
    "hash_attributes",
    "hash_slices",
    "pair_codes",
    "process_key",
    "sum_by_owner",
]
