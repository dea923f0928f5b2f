# When a kernel lets go of the GIL: one rule for all of them.
cdef enum:
    RELEASE_GIL_BYTES = 262144       # below this much input, letting go costs more than it gives: a busy thread takes 5 ms to hand it back
