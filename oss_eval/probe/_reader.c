/* Reads many sockets at a time: what `reads.py` and `poller.py` do for streams in Python, without its cost for each read.

   A Reader has an epoll instance and a buffer of reads. A socket that carries a chunked response is handed to it with
   `stream`; from then on `poll` receives whatever has arrived there, with the kernel's timestamp of each read, and
   follows the chunked coding (RFC 9112, section 7.1) to the end of the response. Other sockets, and what Python has
   to act on, are reported.

   A read that holds nothing but whole token events of a known shape (`learn`, `known_events.py`) is passed on as a
   timestamp for each event, without its bytes.

   Limited API of Python 3.11, Linux only. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_TIMESTAMPNS
#define SO_TIMESTAMPNS 35
#endif

#define READ_BYTES 65536
#define EVENTS 512

/* What poll reports of a socket, as in reads.py. READABLE: not a stream, Python has to read it. */
enum { READABLE, COMPLETE, EXTRA, ENDED, FAILED, MALFORMED, TOO_LARGE };

enum { SIZE_BEGIN, SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER_BEGIN, TRAILER, TRAILER_LF, LAST_LF };

/* The parts of a shape, as in known_events.py. COUNT: a number that is passed on. */
enum { LITERAL, STRING, NUMBER, COUNT, TEXT };

#define SHAPES 16
#define COLUMNS 5

typedef struct {
    uint8_t kind;
    Py_ssize_t length;
    char *bytes;
} Part;

typedef struct {
    int n_parts;
    Part *parts;
} Shape;

typedef struct {
    int64_t tag;
    int64_t seen_ns;
    int64_t left;      /* bytes that the response may still have */
    int64_t remaining; /* bytes of the chunk that are still to come */
    uint8_t state;
    uint8_t active;
    char tail[2];   /* the last bytes of the body */
    uint32_t passed; /* shapes of which one event was passed on with its bytes */
} Stream;

typedef struct {
    PyObject_HEAD
    int epoll;
    Stream *streams; /* by file descriptor */
    int n_streams;
    Shape shapes[SHAPES];
    int n_shapes;
    int64_t *rows; /* of each read: tag, kernel_ns, seen_ns, length or -1 - shape of a known event, its count or -1 */
    Py_ssize_t n_rows, room_rows;
    char *data;
    Py_ssize_t n_data, room_data;
} Reader;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void keep_tail(Stream *s, const char *p, Py_ssize_t n) {
    if (n >= 2)
        memcpy(s->tail, p + n - 2, 2);
    else if (n == 1) {
        s->tail[0] = s->tail[1];
        s->tail[1] = p[0];
    }
}

/* Follow the chunked coding. 0: goes on, 1: ends here, 2: ended before the last byte, -1: malformed. */
static int follow(Stream *s, const char *p, Py_ssize_t n) {
    const char *end = p + n;
    while (p < end) {
        char c = *p;
        switch (s->state) {
        case SIZE_BEGIN:
        case SIZE: {
            int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
            if (digit >= 0) {
                if (s->state == SIZE_BEGIN) s->remaining = 0;
                if (s->remaining > (INT64_MAX >> 5)) return -1;
                s->remaining = s->remaining * 16 + digit;
                s->state = SIZE;
            } else if (s->state == SIZE_BEGIN)
                return -1;
            else if (c == '\r')
                s->state = SIZE_LF;
            else if (c == ';' || c == ' ' || c == '\t')
                s->state = EXTENSION;
            else
                return -1;
            p++;
            break;
        }
        case EXTENSION:
            if (c == '\r') s->state = SIZE_LF;
            else if (c == '\n') return -1;
            p++;
            break;
        case SIZE_LF:
            if (c != '\n') return -1;
            s->state = s->remaining ? DATA : TRAILER_BEGIN;
            p++;
            break;
        case DATA:
            if (end - p < s->remaining) {
                s->remaining -= end - p;
                keep_tail(s, p, end - p);
                return 0;
            }
            keep_tail(s, p, s->remaining);
            p += s->remaining;
            s->remaining = 0;
            s->state = DATA_CR;
            break;
        case DATA_CR:
            if (c != '\r') return -1;
            s->state = DATA_LF;
            p++;
            break;
        case DATA_LF:
            if (c != '\n') return -1;
            s->state = SIZE_BEGIN;
            p++;
            break;
        case TRAILER_BEGIN:
            s->state = c == '\r' ? LAST_LF : TRAILER;
            p++;
            break;
        case TRAILER:
            if (c == '\r') s->state = TRAILER_LF;
            p++;
            break;
        case TRAILER_LF:
            if (c != '\n') return -1;
            s->state = TRAILER_BEGIN;
            p++;
            break;
        default: /* LAST_LF */
            if (c != '\n') return -1;
            return p + 1 == end ? 1 : 2;
        }
    }
    return 0;
}

/* Room for one more read of n bytes; 0 or -1 with MemoryError. */
static int reserve(Reader *self, Py_ssize_t n) {
    if (self->n_rows == self->room_rows) {
        Py_ssize_t room = self->room_rows ? 2 * self->room_rows : 1024;
        int64_t *rows = realloc(self->rows, room * COLUMNS * sizeof(int64_t));
        if (!rows) goto failed;
        self->rows = rows;
        self->room_rows = room;
    }
    if (self->room_data - self->n_data < n) {
        Py_ssize_t room = self->room_data ? 2 * self->room_data : 1 << 20;
        while (room - self->n_data < n) room *= 2;
        char *data = realloc(self->data, room);
        if (!data) goto failed;
        self->data = data;
        self->room_data = room;
    }
    return 0;
failed:
    PyErr_NoMemory();
    return -1;
}

static void add_row(Reader *self, int64_t tag, int64_t kernel_ns, int64_t seen_ns, int64_t length, int64_t count) {
    int64_t *row = self->rows + COLUMNS * self->n_rows++;
    row[0] = tag;
    row[1] = kernel_ns;
    row[2] = seen_ns;
    row[3] = length;
    row[4] = count;
}

/* Whether the bytes are UTF-8 (RFC 3629, section 4). */
static int is_utf8(const unsigned char *p, const unsigned char *end) {
    while (p < end) {
        unsigned char c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
        if (!more || end - p < more) return 0;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (*p < low || *p > high) return 0;
        for (int i = 1; i < more; i++)
            if ((p[i] & 0xC0) != 0x80) return 0;
        p += more;
    }
    return 1;
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static int is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* The inside of a JSON string up to its closing quote, or NULL. */
static const char *skip_text(const char *p, const char *end) {
    for (; p < end && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p != '\\') continue;
        if (++p >= end) return NULL;
        if (*p == 'u') {
            if (end - p < 5 || !is_hex(p[1]) || !is_hex(p[2]) || !is_hex(p[3]) || !is_hex(p[4])) return NULL;
            if ((p[1] | 32) == 'd' && p[2] > '7') return NULL; /* half a surrogate pair */
            p += 4;
        } else if (!memchr("\"\\/bfnrt", *p, 8))
            return NULL;
    }
    return p < end ? p : NULL;
}

/* A JSON number, or NULL. */
static const char *skip_number(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p >= end || !is_digit(*p)) return NULL;
    if (*p == '0') p++;
    else
        while (p < end && is_digit(*p)) p++;
    if (p < end && *p == '.') {
        if (++p >= end || !is_digit(*p)) return NULL;
        while (p < end && is_digit(*p)) p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (p >= end || !is_digit(*p)) return NULL;
        while (p < end && is_digit(*p)) p++;
    }
    return p;
}

/* The end of a chunk that is one event of the shape, or NULL. */
static const char *match_chunk(const Shape *shape, const char *p, const char *end, int64_t *count) {
    int64_t size = 0;
    int digits = 0;
    for (; p < end && is_hex(*p); p++, digits++) {
        if (digits == 8) return NULL;
        size = size * 16 + (is_digit(*p) ? *p - '0' : (*p | 32) - 'a' + 10);
    }
    if (!digits || end - p < 2 || p[0] != '\r' || p[1] != '\n') return NULL;
    const char *begin = p += 2;
    *count = -1;
    for (int i = 0; i < shape->n_parts; i++) {
        const Part *part = &shape->parts[i];
        const char *from = p;
        switch (part->kind) {
        case LITERAL:
            if (end - p < part->length || memcmp(p, part->bytes, part->length)) return NULL;
            p += part->length;
            break;
        case STRING:
            if (p >= end || *p != '"' || !(p = skip_text(p + 1, end))) return NULL;
            p++;
            break;
        case TEXT:
            if (!(p = skip_text(p, end)) || p == from) return NULL;
            break;
        default:
            if (!(p = skip_number(p, end))) return NULL;
            if (part->kind != COUNT) break;
            *count = 0;
            if (p - from > 9) return NULL;
            for (; from < p; from++) {
                if (!is_digit(*from)) return NULL;
                *count = *count * 10 + *from - '0';
            }
        }
    }
    if (p - begin != size || end - p < 2 || p[0] != '\r' || p[1] != '\n') return NULL;
    return is_utf8((const unsigned char *)begin, (const unsigned char *)p) ? p + 2 : NULL;
}

/* Add a row for each event, if a read holds nothing but whole events of one known shape. 1: so it is; -1: MemoryError. */
static int known(Reader *self, Stream *s, int64_t kernel_ns, const char *data, Py_ssize_t n) {
    if (!self->n_shapes || !kernel_ns || s->state != SIZE_BEGIN || s->tail[1] != '\n') return 0;
    const char *end = data + n;
    for (int i = 0; i < self->n_shapes; i++) {
        const char *p = data;
        int64_t count;
        Py_ssize_t before = self->n_rows;
        const Part *last = &self->shapes[i].parts[self->shapes[i].n_parts - 1];
        int blank_line = last->length >= 2 && last->bytes[last->length - 2] == '\n';
        if (blank_line && s->tail[0] != '\n') continue; /* an event is incomplete */
        while (p < end && (p = match_chunk(&self->shapes[i], p, end, &count))) {
            if (reserve(self, 0) < 0) return -1;
            add_row(self, s->tag, kernel_ns, s->seen_ns, -1 - i, count);
        }
        if (p && s->passed >> i & 1) return 1;
        self->n_rows = before;
        if (p) { /* the first one with its bytes: Python looks at the text */
            s->passed |= 1u << i;
            return 0;
        }
    }
    return 0;
}

static int64_t kernel_stamp(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    return 0;
}

/* Add (descriptor, what, error number) to the list. */
static int report(PyObject *list, int fd, int what, int error) {
    PyObject *item = Py_BuildValue("(iii)", fd, what, error);
    if (!item) return -1;
    int failed = PyList_Append(list, item);
    Py_DECREF(item);
    return failed;
}

/* Streams are watched for edges: the kernel looks at a socket once for each arrival, not twice. */
static void watch(Reader *self, int fd, uint32_t wanted) {
    struct epoll_event event = {.events = wanted, .data.fd = fd};
    epoll_ctl(self->epoll, EPOLL_CTL_MOD, fd, &event);
}

/* One read of a stream. What it means for Python: a kind of report, or -1 for nothing; -2 with an exception. */
static int receive_once(Reader *self, int fd, Stream *s, int *error, Py_ssize_t *got) {
    union {
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr align;
    } control;
    if (reserve(self, READ_BYTES) < 0) return -2;
    struct iovec piece = {self->data + self->n_data, READ_BYTES};
    struct msghdr message = {0};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return -1;
        *error = errno;
        return FAILED;
    }
    if (n == 0) return ENDED;
    *got = n;
    s->seen_ns = now_ns();
    s->left -= n;
    int64_t kernel_ns = kernel_stamp(&message);
    int is_known = s->left < 0 ? 0 : known(self, s, kernel_ns, self->data + self->n_data, n);
    if (is_known) return is_known < 0 ? -2 : -1;
    add_row(self, s->tag, kernel_ns, s->seen_ns, n, -1);
    self->n_data += n;
    if (s->left < 0) return TOO_LARGE;
    int followed = follow(s, self->data + self->n_data - n, n);
    return followed == 0 ? -1 : followed == 1 ? COMPLETE : followed == 2 ? EXTRA : MALFORMED;
}

/* One read of a stream; where the connection was closed, all of them, as its end comes after the data and is reported
   by no edge of its own. A read that fills its buffer may leave something: then the next poll reports the socket again,
   so that a flood on one stream keeps neither the others nor the caller waiting. */
static int receive(Reader *self, int fd, Stream *s, int closed, int *error) {
    int what;
    Py_ssize_t got;
    do {
        got = 0;
        what = receive_once(self, fd, s, error, &got);
    } while (what == -1 && closed && got);
    if (what == -1 && got == READ_BYTES) watch(self, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
    return what;
}

static PyObject *reader_poll(Reader *self, PyObject *args) {
    Py_ssize_t most_reads;
    struct epoll_event events[EVENTS];
    if (!PyArg_ParseTuple(args, "n", &most_reads)) return NULL;
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    int most = most_reads < EVENTS ? (int)most_reads : EVENTS;
    int ready = epoll_wait(self->epoll, events, most < 1 ? 1 : most, 0);
    for (int i = 0; i < ready; i++) {
        int fd = events[i].data.fd, what = READABLE, error = 0;
        if (fd < self->n_streams && self->streams[fd].active) {
            int closed = events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
            what = receive(self, fd, &self->streams[fd], closed, &error);
            if (what == -2) goto failed;
            if (what == -1) continue;
            self->streams[fd].active = 0;
            watch(self, fd, EPOLLIN);
        }
        if (report(list, fd, what, error) < 0) goto failed;
    }
    return Py_BuildValue("(iN)", ready < 0 ? 0 : ready, list);
failed:
    Py_DECREF(list);
    return NULL;
}

static PyObject *reader_register(Reader *self, PyObject *args) {
    int fd;
    unsigned int wanted;
    struct epoll_event event = {0};
    if (!PyArg_ParseTuple(args, "iI", &fd, &wanted)) return NULL;
    event.events = wanted;
    event.data.fd = fd;
    if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *reader_unregister(Reader *self, PyObject *args) {
    int fd;
    struct epoll_event event = {0};
    if (!PyArg_ParseTuple(args, "i", &fd)) return NULL;
    if (fd >= 0 && fd < self->n_streams) self->streams[fd].active = 0;
    if (epoll_ctl(self->epoll, EPOLL_CTL_DEL, fd, &event) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static void forget(Shape *shape) {
    for (int i = 0; i < shape->n_parts; i++) free(shape->parts[i].bytes);
    free(shape->parts);
    *shape = (Shape){0, NULL};
}

static PyObject *reader_stream(Reader *self, PyObject *args) {
    int fd;
    long long tag, left, seen_ns;
    Py_buffer body;
    if (!PyArg_ParseTuple(args, "iLLLy*", &fd, &tag, &left, &seen_ns, &body)) return NULL;
    if (fd < 0) {
        PyBuffer_Release(&body);
        PyErr_SetString(PyExc_ValueError, "a descriptor is not negative");
        return NULL;
    }
    if (fd >= self->n_streams) {
        int room = fd + 64;
        Stream *streams = realloc(self->streams, room * sizeof(Stream));
        if (!streams) {
            PyBuffer_Release(&body);
            return PyErr_NoMemory();
        }
        memset(streams + self->n_streams, 0, (room - self->n_streams) * sizeof(Stream));
        self->streams = streams;
        self->n_streams = room;
    }
    Stream *s = &self->streams[fd];
    *s = (Stream){.tag = tag, .left = left, .seen_ns = seen_ns, .state = SIZE_BEGIN};
    int followed = follow(s, body.buf, body.len);
    PyBuffer_Release(&body);
    s->active = followed == 0;
    if (s->active) watch(self, fd, EPOLLIN | EPOLLRDHUP | EPOLLET); /* reports what is there already */
    return PyBool_FromLong(followed == 0);
}

static PyObject *reader_learn(Reader *self, PyObject *args) {
    PyObject *list;
    if (!PyArg_ParseTuple(args, "O", &list)) return NULL;
    Py_ssize_t n = PySequence_Size(list);
    if (n < 0) return NULL;
    if (n == 0) {
        PyErr_SetString(PyExc_ValueError, "a shape without parts");
        return NULL;
    }
    if (self->n_shapes == SHAPES) return PyBool_FromLong(0);
    Part *parts = calloc(n ? n : 1, sizeof(Part));
    if (!parts) return PyErr_NoMemory();
    Shape *shape = &self->shapes[self->n_shapes];
    *shape = (Shape){0, parts};
    for (Py_ssize_t i = 0; i < n; i++) {
        int kind;
        const char *bytes;
        Py_ssize_t length;
        PyObject *item = PySequence_GetItem(list, i);
        if (!item) goto failed;
        int ok = PyArg_ParseTuple(item, "iy#", &kind, &bytes, &length);
        if (ok && (parts[i].bytes = malloc(length ? length : 1))) {
            memcpy(parts[i].bytes, bytes, length);
            parts[i].kind = kind;
            parts[i].length = length;
            shape->n_parts++;
        } else if (ok)
            PyErr_NoMemory();
        Py_DECREF(item);
        if (PyErr_Occurred()) goto failed;
    }
    self->n_shapes++;
    return PyBool_FromLong(1);
failed:
    forget(shape);
    return NULL;
}

static PyObject *reader_seen(Reader *self, PyObject *args) {
    int fd;
    if (!PyArg_ParseTuple(args, "i", &fd)) return NULL;
    return PyLong_FromLongLong(fd >= 0 && fd < self->n_streams ? self->streams[fd].seen_ns : 0);
}

static PyObject *reader_append(Reader *self, PyObject *args) {
    long long tag, kernel_ns, seen_ns;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "LLLy*", &tag, &kernel_ns, &seen_ns, &data)) return NULL;
    if (reserve(self, data.len) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    memcpy(self->data + self->n_data, data.buf, data.len);
    self->n_data += data.len;
    add_row(self, tag, kernel_ns, seen_ns, data.len, -1);
    PyBuffer_Release(&data);
    Py_RETURN_NONE;
}

static PyObject *reader_take(Reader *self, PyObject *unused) {
    PyObject *rows = PyBytes_FromStringAndSize((char *)self->rows, self->n_rows * COLUMNS * (Py_ssize_t)sizeof(int64_t));
    PyObject *data = rows ? PyBytes_FromStringAndSize(self->data, self->n_data) : NULL;
    if (!data) {
        Py_XDECREF(rows);
        return NULL;
    }
    self->n_rows = self->n_data = 0;
    return Py_BuildValue("(NN)", rows, data);
}

static PyObject *reader_held(Reader *self, PyObject *unused) {
    return Py_BuildValue("(nn)", self->n_rows, self->n_data);
}

static PyObject *reader_fileno(Reader *self, PyObject *unused) { return PyLong_FromLong(self->epoll); }

static PyObject *reader_close(Reader *self, PyObject *unused) {
    if (self->epoll >= 0) close(self->epoll);
    self->epoll = -1;
    Py_RETURN_NONE;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Reader *self = (Reader *)allocate(type, 0);
    if (!self) return NULL;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void reader_dealloc(Reader *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->epoll >= 0) close(self->epoll);
    for (int i = 0; i < self->n_shapes; i++) forget(&self->shapes[i]);
    free(self->streams);
    free(self->rows);
    free(self->data);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"poll", (PyCFunction)reader_poll, METH_VARARGS,
     "poll(most_reads) -> (ready sockets, [(descriptor, what, errno), ...]). Never blocks; reads at most so many of the "
     "streams that are ready."},
    {"register", (PyCFunction)reader_register, METH_VARARGS, "register(descriptor, events): watch it, as select.epoll does. Raises OSError."},
    {"unregister", (PyCFunction)reader_unregister, METH_VARARGS, "unregister(descriptor): stop. Raises OSError."},
    {"stream", (PyCFunction)reader_stream, METH_VARARGS,
     "stream(descriptor, tag, left, seen_ns, body) -> bool: read the rest of a chunked body of at most `left` bytes, of "
     "which `body` has been read. False: it does not go on, or is malformed."},
    {"learn", (PyCFunction)reader_learn, METH_VARARGS,
     "learn(parts) -> bool: the next shape of token events, as (kind, bytes) of each part. False: there are too many."},
    {"seen", (PyCFunction)reader_seen, METH_VARARGS, "seen(descriptor) -> time of the latest read of a stream."},
    {"append", (PyCFunction)reader_append, METH_VARARGS, "append(tag, kernel_ns, seen_ns, data): add a read."},
    {"take", (PyCFunction)reader_take, METH_NOARGS,
     "take() -> (rows, data): the buffer, which is empty then. A row is five int64: tag, kernel_ns, seen_ns, "
     "length or -1 - shape of a known event, and the event's count or -1."},
    {"held", (PyCFunction)reader_held, METH_NOARGS, "held() -> (reads, bytes) in the buffer."},
    {"fileno", (PyCFunction)reader_fileno, METH_NOARGS, "fileno() -> the descriptor of the epoll instance."},
    {"close", (PyCFunction)reader_close, METH_NOARGS, "close() the epoll instance."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Many sockets, read into one buffer."},
    {0, NULL},
};

static PyType_Spec spec = {"oss_eval.probe._reader.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_reader", "Reads many sockets at a time.", -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__reader(void) {
    PyObject *made = PyModule_Create(&module);
    if (!made) return NULL;
    PyObject *type = PyType_FromSpec(&spec);
    if (!type || PyModule_AddObjectRef(made, "Reader", type) < 0) {
        Py_XDECREF(type);
        Py_DECREF(made);
        return NULL;
    }
    Py_DECREF(type);
    return made;
}
