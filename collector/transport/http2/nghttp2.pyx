"""Opens libnghttp2 when it is first needed: the library inside the ``ngh2`` package, or else the system's.

Functions that an older library may lack (limits against floods) are looked up symbol by symbol.
"""

import glob
import importlib.util
import os

from libc.string cimport memset

__all__ = ["MissingLibraryError", "version"]

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)
    int RTLD_NOW
    int RTLD_LOCAL

ctypedef struct Info:
    int age
    int number
    const char *version
    const char *protocol
    int since_1_2

cdef Library _library
cdef bint _is_open = False
cdef str _version = ""

_SYSTEM = ("libnghttp2.so.14", "libnghttp2.14.dylib", "libnghttp2.so")


class MissingLibraryError(OSError):
    """libnghttp2 is not installed."""


cdef Library *library() except NULL:
    """Return the library's functions.

    Raises:
        MissingLibraryError: no library provides them.
    """
    global _is_open
    if not _is_open:
        _open()
        _is_open = True
    return &_library


def version() -> str:
    """Return the library's version, for example ``1.52.0``; empty if it does not report one."""
    library()
    return _version


def _candidates():
    spec = importlib.util.find_spec("ngh2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from glob.glob(os.path.join(folder, "_core*.so"))
    yield from _SYSTEM


cdef int _open() except -1:
    cdef void *handle
    cdef const char *c_path
    for path in _candidates():
        encoded = os.fsencode(path)
        c_path = encoded
        handle = dlopen(c_path, RTLD_NOW | RTLD_LOCAL)
        if handle != NULL and _bind(handle):
            return 0
    raise MissingLibraryError(
        "libnghttp2 is not installed: install the Python package ngh2 or the system's library (Debian: libnghttp2-14)"
    )


cdef bint _bind(void *handle) except -1:
    """Look up the functions; return False if a required one is missing."""
    global _version
    cdef Library *lib = &_library
    cdef Info *(*about)(int) noexcept
    cdef bint is_whole = True
    memset(lib, 0, sizeof(Library))
    about = <Info *(*)(int) noexcept>dlsym(handle, b"nghttp2_version")
    _version = about(0).version.decode() if about != NULL else ""
    is_whole &= _find(handle, <void **>&lib.callbacks_new, b"nghttp2_session_callbacks_new")
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_begin_frame_callback,
        b"nghttp2_session_callbacks_set_on_begin_frame_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_begin_headers_callback,
        b"nghttp2_session_callbacks_set_on_begin_headers_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_header_callback,
        b"nghttp2_session_callbacks_set_on_header_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_invalid_header_callback,
        b"nghttp2_session_callbacks_set_on_invalid_header_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_data_chunk_recv_callback,
        b"nghttp2_session_callbacks_set_on_data_chunk_recv_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_frame_recv_callback,
        b"nghttp2_session_callbacks_set_on_frame_recv_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_stream_close_callback,
        b"nghttp2_session_callbacks_set_on_stream_close_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_frame_send_callback,
        b"nghttp2_session_callbacks_set_on_frame_send_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_on_frame_not_send_callback,
        b"nghttp2_session_callbacks_set_on_frame_not_send_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_send_data_callback,
        b"nghttp2_session_callbacks_set_send_data_callback",
    )
    is_whole &= _find(
        handle, <void **>&lib.callbacks_set_data_source_read_length_callback,
        b"nghttp2_session_callbacks_set_data_source_read_length_callback2",
        b"nghttp2_session_callbacks_set_data_source_read_length_callback",
    )
    is_whole &= _find(handle, <void **>&lib.option_new, b"nghttp2_option_new")
    is_whole &= _find(handle, <void **>&lib.option_del, b"nghttp2_option_del")
    is_whole &= _find(
        handle, <void **>&lib.option_set_max_reserved_remote_streams,
        b"nghttp2_option_set_max_reserved_remote_streams",
    )
    is_whole &= _find(
        handle, <void **>&lib.option_set_max_send_header_block_length,
        b"nghttp2_option_set_max_send_header_block_length",
    )
    is_whole &= _find(handle, <void **>&lib.option_set_max_outbound_ack, b"nghttp2_option_set_max_outbound_ack")
    is_whole &= _find(handle, <void **>&lib.option_set_max_settings, b"nghttp2_option_set_max_settings")
    is_whole &= _find(handle, <void **>&lib.client_new, b"nghttp2_session_client_new2")
    is_whole &= _find(handle, <void **>&lib.server_new, b"nghttp2_session_server_new2")
    is_whole &= _find(handle, <void **>&lib.session_del, b"nghttp2_session_del")
    is_whole &= _find(handle, <void **>&lib.mem_recv, b"nghttp2_session_mem_recv2", b"nghttp2_session_mem_recv")
    is_whole &= _find(handle, <void **>&lib.mem_send, b"nghttp2_session_mem_send2", b"nghttp2_session_mem_send")
    is_whole &= _find(handle, <void **>&lib.want_read, b"nghttp2_session_want_read")
    is_whole &= _find(handle, <void **>&lib.want_write, b"nghttp2_session_want_write")
    is_whole &= _find(handle, <void **>&lib.resume_data, b"nghttp2_session_resume_data")
    is_whole &= _find(handle, <void **>&lib.set_local_window_size, b"nghttp2_session_set_local_window_size")
    is_whole &= _find(handle, <void **>&lib.submit_settings, b"nghttp2_submit_settings")
    is_whole &= _find(handle, <void **>&lib.submit_request, b"nghttp2_submit_request2", b"nghttp2_submit_request")
    is_whole &= _find(handle, <void **>&lib.submit_response, b"nghttp2_submit_response2", b"nghttp2_submit_response")
    is_whole &= _find(handle, <void **>&lib.submit_headers, b"nghttp2_submit_headers")
    is_whole &= _find(handle, <void **>&lib.submit_trailer, b"nghttp2_submit_trailer")
    is_whole &= _find(handle, <void **>&lib.submit_rst_stream, b"nghttp2_submit_rst_stream")
    is_whole &= _find(handle, <void **>&lib.submit_ping, b"nghttp2_submit_ping")
    is_whole &= _find(handle, <void **>&lib.submit_goaway, b"nghttp2_submit_goaway")
    is_whole &= _find(handle, <void **>&lib.submit_shutdown_notice, b"nghttp2_submit_shutdown_notice")
    is_whole &= _find(handle, <void **>&lib.terminate_session, b"nghttp2_session_terminate_session")
    is_whole &= _find(handle, <void **>&lib.get_last_proc_stream_id, b"nghttp2_session_get_last_proc_stream_id")
    is_whole &= _find(handle, <void **>&lib.strerror, b"nghttp2_strerror")
    # Added over time in response to attacks; distributions backport them to older versions.
    _find(handle, <void **>&lib.callbacks_set_rand_callback, b"nghttp2_session_callbacks_set_rand_callback")
    _find(handle, <void **>&lib.option_set_stream_reset_rate_limit, b"nghttp2_option_set_stream_reset_rate_limit")
    _find(handle, <void **>&lib.option_set_max_continuations, b"nghttp2_option_set_max_continuations")
    _find(handle, <void **>&lib.option_set_glitch_rate_limit, b"nghttp2_option_set_glitch_rate_limit")
    return is_whole


cdef bint _find(void *handle, void **target, const char *name, const char *older=b"") noexcept:
    """Look up ``name``, or ``older``: its name before 1.61, with sizes of another type but the same representation."""
    target[0] = dlsym(handle, name)
    if target[0] == NULL and older[0] != 0:
        target[0] = dlsym(handle, older)
    return target[0] != NULL
