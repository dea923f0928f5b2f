cdef bytes repaired(bytes body)
