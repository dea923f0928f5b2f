# The hash that decides the place of a value in an open-addressing table: multiplications with a secret of four words,
# which each module draws for its tables. It is fast and hard to steer, but no identity: tables compare the values.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t tailrace_fold_multiply(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t fold_multiply "tailrace_fold_multiply"(uint64_t a, uint64_t b) noexcept nogil


cdef inline uint64_t slice_hash(const uint64_t* secret, const uint8_t* at, Py_ssize_t length) noexcept nogil:
    """The hash of a slice, with one multiplication per 16 bytes."""
    cdef uint64_t state = secret[0] ^ (<uint64_t>length * <uint64_t>0x9E3779B97F4A7C15)
    cdef uint64_t low, high
    while length > 16:
        state = fold_multiply(load_word(at) ^ secret[1], load_word(at + 8) ^ state)
        at += 16
        length -= 16
    if length >= 8:
        low = load_word(at)
        high = load_word(at + length - 8)
    else:
        low = load_tail(at, length)
        high = 0
    state = fold_multiply(low ^ secret[1], high ^ state)
    return fold_multiply(state ^ secret[2], secret[3] | 1)


cdef inline uint64_t pair_hash(const uint64_t* secret, uint64_t a, uint64_t b) noexcept nogil:
    """The hash of two words."""
    return fold_multiply(fold_multiply(a ^ secret[0], b ^ secret[1]) ^ a, secret[3] | 1)


cdef inline uint64_t load_word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline uint64_t load_tail(const uint8_t* at, Py_ssize_t length) noexcept nogil:
    """The ``length`` (0 to 7) bytes at ``at`` as a little-endian word, with zeros above."""
    cdef uint64_t word = 0
    cdef uint32_t low, high
    if length >= 4:
        memcpy(&low, at, 4)
        memcpy(&high, at + length - 4, 4)
        word = low | (<uint64_t>high << (8 * (length - 4)))
    elif length > 0:
        word = at[0]
        word |= <uint64_t>at[length >> 1] << (8 * (length >> 1))
        word |= <uint64_t>at[length - 1] << (8 * (length - 1))
    return word
