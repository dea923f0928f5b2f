# When a kernel releases the GIL. Below this much input, releasing it costs more than it gains: a busy Python thread
# takes 5 ms to hand it back.
cdef enum:
    RELEASE_GIL_BYTES = 262144
    RELEASE_GIL_ROWS = 8192     # for kernels whose rows refer to about 32 bytes each
