# What other kernels may call of the scan: the GIL rule, so that all kernels follow the same one.
cdef enum:
    RELEASE_GIL_BYTES = 262144       # below, letting go of the GIL costs more than it gives (a busy thread takes 5 ms to hand it back)
