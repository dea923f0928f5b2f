# SipHash-1-3 with its 128-bit output, as inline functions: start, then words or slices, then end.
# Source: SipHash, Aumasson and Bernstein 2012, with c = 1, d = 3 and the 128-bit output of its reference.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.wire.hash.places cimport load_tail, load_word

ctypedef struct Sip:
    uint64_t v0, v1, v2, v3


cdef inline void sip_start(Sip* s, const uint64_t* key) noexcept nogil:
    s.v0 = key[0] ^ <uint64_t>0x736F6D6570736575
    s.v1 = key[1] ^ <uint64_t>0x646F72616E646F6D ^ 0xEE
    s.v2 = key[0] ^ <uint64_t>0x6C7967656E657261
    s.v3 = key[1] ^ <uint64_t>0x7465646279746573


cdef inline void sip_word(Sip* s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    sip_round(s)
    s.v0 ^= word


cdef inline const uint8_t* sip_words(Sip* s, const uint8_t* at, Py_ssize_t length) noexcept nogil:
    """Takes in the whole words of a slice; returns the start of the remaining ``length & 7`` bytes."""
    cdef const uint8_t* end = at + (length & ~<Py_ssize_t>7)
    while at < end:
        sip_word(s, load_word(at))
        at += 8
    return at


cdef inline void sip_padded(Sip* s, const uint8_t* at, Py_ssize_t length) noexcept nogil:
    """Takes in a slice followed by zeros up to a whole word."""
    at = sip_words(s, at, length)
    if length & 7:
        sip_word(s, load_tail(at, length & 7))


cdef inline void sip_end(Sip* s, uint64_t last, uint64_t* out) noexcept nogil:
    """Writes the two words of the hash; ``last`` has the remaining bytes and, in its highest byte, the length."""
    sip_word(s, last)
    s.v2 ^= 0xEE
    sip_round(s)
    sip_round(s)
    sip_round(s)
    out[0] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    s.v1 ^= 0xDD
    sip_round(s)
    sip_round(s)
    sip_round(s)
    out[1] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3


cdef inline void sip_round(Sip* s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = rotate(s.v1, 13) ^ s.v0
    s.v3 = rotate(s.v3, 16) ^ s.v2
    s.v0 = rotate(s.v0, 32)
    s.v2 += s.v1
    s.v0 += s.v3
    s.v1 = rotate(s.v1, 17) ^ s.v2
    s.v3 = rotate(s.v3, 21) ^ s.v0
    s.v2 = rotate(s.v2, 32)


cdef inline uint64_t rotate(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))
