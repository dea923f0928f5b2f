# libnghttp2's ABI (libnghttp2.so.14), as far as it is used: no header of it is needed to build, no library to import.
# Source: nghttp2/nghttp2.h. The names are the library's without their prefix.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

# Only pointers to these are passed around.
ctypedef void nghttp2_session
ctypedef void nghttp2_callbacks
ctypedef void nghttp2_option

ctypedef struct Nv:
    uint8_t *name
    uint8_t *value
    size_t name_size
    size_t value_size
    uint8_t flags

ctypedef struct Setting:
    int32_t id
    uint32_t value

ctypedef struct FrameHeader:
    size_t length
    int32_t stream_id
    uint8_t type
    uint8_t flags
    uint8_t reserved

ctypedef struct Priority:
    int32_t stream_id
    int32_t weight
    uint8_t exclusive

ctypedef struct Headers:
    FrameHeader hd
    size_t padding
    Priority priority
    Nv *nva
    size_t nvlen
    int category

ctypedef struct RstStream:
    FrameHeader hd
    uint32_t error_code

ctypedef struct Settings:
    FrameHeader hd
    size_t count
    Setting *entries

ctypedef struct Ping:
    FrameHeader hd
    uint8_t opaque_data[8]

ctypedef struct GoAway:
    FrameHeader hd
    int32_t last_stream_id
    uint32_t error_code
    uint8_t *debug_data
    size_t debug_size
    uint8_t reserved

ctypedef union Frame:
    FrameHeader hd
    Headers headers
    RstStream rst_stream
    Settings settings
    Ping ping
    GoAway goaway

ctypedef union Source:
    int fd
    void *ptr

ctypedef Py_ssize_t (*ReadBody)(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t size, uint32_t *flags, Source *source,
    void *user
) noexcept

ctypedef struct Provider:
    Source source
    ReadBody read

ctypedef int (*OnFrame)(nghttp2_session *session, const Frame *frame, void *user) noexcept
ctypedef int (*OnBeginFrame)(nghttp2_session *session, const FrameHeader *header, void *user) noexcept
ctypedef int (*OnFrameNotSent)(nghttp2_session *session, const Frame *frame, int error, void *user) noexcept
ctypedef int (*OnHeader)(
    nghttp2_session *session, const Frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept
ctypedef int (*OnData)(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *user
) noexcept
ctypedef int (*OnClose)(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user) noexcept
ctypedef int (*SendBody)(
    nghttp2_session *session, Frame *frame, const uint8_t *header, size_t size, Source *source, void *user
) noexcept
ctypedef Py_ssize_t (*BodySize)(
    nghttp2_session *session, uint8_t type, int32_t stream_id, int32_t connection_window, int32_t stream_window,
    uint32_t max_frame_size, void *user
) noexcept
ctypedef void (*Random)(uint8_t *buffer, size_t size) noexcept

cdef enum:
    ERR_WOULDBLOCK = -504
    ERR_DEFERRED = -508
    ERR_STREAM_CLOSED = -510
    ERR_STREAM_CLOSING = -511
    ERR_STREAM_SHUT_WR = -512
    ERR_TEMPORAL_CALLBACK_FAILURE = -521
    ERR_SESSION_CLOSING = -530
    ERR_NOMEM = -901
    ERR_CALLBACK_FAILURE = -902
    ERR_FLOODED = -904
    ERR_TOO_MANY_CONTINUATIONS = -905

cdef enum:
    FRAME_DATA = 0
    FRAME_HEADERS = 1
    FRAME_PRIORITY = 2
    FRAME_SETTINGS = 4
    FRAME_PING = 6
    FRAME_GOAWAY = 7

cdef enum:
    FLAG_END_STREAM = 1
    FLAG_ACK = 1

cdef enum:
    DATA_FLAG_EOF = 1
    DATA_FLAG_NO_END_STREAM = 2
    DATA_FLAG_NO_COPY = 4

cdef enum:
    CATEGORY_REQUEST = 0

cdef struct Library:
    # What is NULL where the library is too old to have it is marked; all else is there.
    int (*callbacks_new)(nghttp2_callbacks **) noexcept
    void (*callbacks_set_on_begin_frame_callback)(nghttp2_callbacks *, OnBeginFrame) noexcept
    void (*callbacks_set_on_begin_headers_callback)(nghttp2_callbacks *, OnFrame) noexcept
    void (*callbacks_set_on_header_callback)(nghttp2_callbacks *, OnHeader) noexcept
    void (*callbacks_set_on_invalid_header_callback)(nghttp2_callbacks *, OnHeader) noexcept
    void (*callbacks_set_on_data_chunk_recv_callback)(nghttp2_callbacks *, OnData) noexcept
    void (*callbacks_set_on_frame_recv_callback)(nghttp2_callbacks *, OnFrame) noexcept
    void (*callbacks_set_on_stream_close_callback)(nghttp2_callbacks *, OnClose) noexcept
    void (*callbacks_set_on_frame_send_callback)(nghttp2_callbacks *, OnFrame) noexcept
    void (*callbacks_set_on_frame_not_send_callback)(nghttp2_callbacks *, OnFrameNotSent) noexcept
    void (*callbacks_set_send_data_callback)(nghttp2_callbacks *, SendBody) noexcept
    void (*callbacks_set_data_source_read_length_callback)(nghttp2_callbacks *, BodySize) noexcept
    void (*callbacks_set_rand_callback)(nghttp2_callbacks *, Random) noexcept  # may be NULL
    int (*option_new)(nghttp2_option **) noexcept
    void (*option_del)(nghttp2_option *) noexcept
    void (*option_set_max_reserved_remote_streams)(nghttp2_option *, uint32_t) noexcept
    void (*option_set_max_send_header_block_length)(nghttp2_option *, size_t) noexcept
    void (*option_set_max_outbound_ack)(nghttp2_option *, size_t) noexcept
    void (*option_set_max_settings)(nghttp2_option *, size_t) noexcept
    void (*option_set_stream_reset_rate_limit)(nghttp2_option *, uint64_t, uint64_t) noexcept  # may be NULL
    void (*option_set_max_continuations)(nghttp2_option *, size_t) noexcept  # may be NULL
    void (*option_set_glitch_rate_limit)(nghttp2_option *, uint64_t, uint64_t) noexcept  # may be NULL
    int (*client_new)(nghttp2_session **, const nghttp2_callbacks *, void *, const nghttp2_option *) noexcept
    int (*server_new)(nghttp2_session **, const nghttp2_callbacks *, void *, const nghttp2_option *) noexcept
    void (*session_del)(nghttp2_session *) noexcept
    Py_ssize_t (*mem_recv)(nghttp2_session *, const uint8_t *, size_t) noexcept
    Py_ssize_t (*mem_send)(nghttp2_session *, const uint8_t **) noexcept
    int (*want_read)(nghttp2_session *) noexcept
    int (*want_write)(nghttp2_session *) noexcept
    int (*resume_data)(nghttp2_session *, int32_t) noexcept
    int (*set_local_window_size)(nghttp2_session *, uint8_t, int32_t, int32_t) noexcept
    int (*submit_settings)(nghttp2_session *, uint8_t, const Setting *, size_t) noexcept
    int32_t (*submit_request)(
        nghttp2_session *, const Priority *, const Nv *, size_t, const Provider *, void *
    ) noexcept
    int (*submit_response)(nghttp2_session *, int32_t, const Nv *, size_t, const Provider *) noexcept
    int32_t (*submit_headers)(
        nghttp2_session *, uint8_t, int32_t, const Priority *, const Nv *, size_t, void *
    ) noexcept
    int (*submit_trailer)(nghttp2_session *, int32_t, const Nv *, size_t) noexcept
    int (*submit_rst_stream)(nghttp2_session *, uint8_t, int32_t, uint32_t) noexcept
    int (*submit_ping)(nghttp2_session *, uint8_t, const uint8_t *) noexcept
    int (*submit_goaway)(nghttp2_session *, uint8_t, int32_t, uint32_t, const uint8_t *, size_t) noexcept
    int (*submit_shutdown_notice)(nghttp2_session *) noexcept
    int (*terminate_session)(nghttp2_session *, uint32_t) noexcept
    int32_t (*get_last_proc_stream_id)(nghttp2_session *) noexcept
    const char *(*strerror)(int) noexcept

cdef Library *library() except NULL
