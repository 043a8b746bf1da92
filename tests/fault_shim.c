/* Faults at the writes of a process: preloaded, it counts every call that changes a file below one folder, and at the one it is
   told to, kills the process, writes half and kills it, or fails as a full or broken disk does.
   cc -shared -fPIC -O1 -o fault_shim.so fault_shim.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, TORN, FULL, BROKEN };
enum kind { DATA, SYNC, NAME, REMOVE };

static char root[4096];
static size_t root_size;
static int mode = OFF, trace_fd = -1;
static long at;
static atomic_long count;

void fault_arm(const char *folder, int how, long when, int trace) {
    strncpy(root, folder, sizeof root - 1);
    root_size = strlen(root);
    at = when;
    trace_fd = trace;
    atomic_store(&count, 0);
    mode = how;
}
long fault_count(void) { return atomic_load(&count); }

static ssize_t (*real_write)(int, const void *, size_t);
#define REAL(name) do { if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name); } while (0)

static int path_below(const char *path) {
    return mode != OFF && path && strncmp(path, root, root_size) == 0 && (path[root_size] == '/' || !path[root_size]);
}
static int fd_path(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, size - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return 1;
}
static int fd_below(int fd, char *path) { return mode != OFF && fd_path(fd, path, 4096) && path_below(path); }
static int at_below(int dir, const char *name, char *path) {
    if (mode == OFF || !name) return 0;
    if (name[0] == '/') { snprintf(path, 4096, "%s", name); return path_below(path); }
    if (dir == AT_FDCWD) return 0;
    if (!fd_path(dir, path, 3000)) return 0;
    size_t n = strlen(path);
    snprintf(path + n, 4096 - n, "/%s", name);
    return path_below(path);
}

/* What becomes of a call: 0 it goes on, 1 it fails with errno set, 2 half of it is written and the process dies. */
static int meet(enum kind kind, const char *what, const char *path) {
    long n = atomic_fetch_add(&count, 1) + 1;
    if (trace_fd >= 0) {
        char line[4200];
        int size = snprintf(line, sizeof line, "%s %s\n", what, path);
        REAL(write);
        if (real_write(trace_fd, line, (size_t)size) < 0) return 0;
    }
    if (mode == KILL && n == at) kill(getpid(), SIGKILL);
    if (mode == TORN && n == at) { if (kind == DATA) return 2; kill(getpid(), SIGKILL); }
    if (mode == FULL && n >= at && (kind == DATA || kind == NAME)) { errno = ENOSPC; return 1; }
    if (mode == BROKEN && n == at) { errno = EIO; return 1; }
    return 0;
}
#define DIE() do { kill(getpid(), SIGKILL); for (;;) pause(); } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    char path[4096];
    REAL(write);
    if (fd_below(fd, path)) switch (meet(DATA, "write", path)) {
        case 1: return -1;
        case 2: if (real_write(fd, data, size / 2) >= 0) DIE();
    }
    return real_write(fd, data, size);
}
#define PWRITE(name) \
static ssize_t (*real_##name)(int, const void *, size_t, off_t); \
ssize_t name(int fd, const void *data, size_t size, off_t offset) { \
    char path[4096]; \
    REAL(name); \
    if (fd_below(fd, path)) switch (meet(DATA, "pwrite", path)) { \
        case 1: return -1; \
        case 2: if (real_##name(fd, data, size / 2, offset) >= 0) DIE(); \
    } \
    return real_##name(fd, data, size, offset); \
}
PWRITE(pwrite)
PWRITE(pwrite64)
static ssize_t (*real_writev)(int, const struct iovec *, int);
ssize_t writev(int fd, const struct iovec *parts, int n) {
    char path[4096];
    REAL(writev);
    if (fd_below(fd, path)) switch (meet(DATA, "writev", path)) { case 1: return -1; case 2: DIE(); }
    return real_writev(fd, parts, n);
}
#define SENDFILE(name) \
static ssize_t (*real_##name)(int, int, off_t *, size_t); \
ssize_t name(int out, int in, off_t *offset, size_t size) { \
    char path[4096]; \
    REAL(name); \
    if (fd_below(out, path)) switch (meet(DATA, "sendfile", path)) { \
        case 1: return -1; \
        case 2: if (real_##name(out, in, offset, size / 2) >= 0) DIE(); \
    } \
    return real_##name(out, in, offset, size); \
}
SENDFILE(sendfile)
SENDFILE(sendfile64)
static ssize_t (*real_copy_file_range)(int, off64_t *, int, off64_t *, size_t, unsigned);
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    char path[4096];
    REAL(copy_file_range);
    if (fd_below(out, path)) switch (meet(DATA, "copy_file_range", path)) { case 1: return -1; case 2: DIE(); }
    return real_copy_file_range(in, from, out, to, size, flags);
}
#define ON_FD(name, kind, what) \
static int (*real_##name)(int); \
int name(int fd) { \
    char path[4096]; \
    REAL(name); \
    if (fd_below(fd, path) && meet(kind, what, path) == 1) return -1; \
    return real_##name(fd); \
}
ON_FD(fsync, SYNC, "fsync")
ON_FD(fdatasync, SYNC, "fdatasync")
#define TRUNCATE(name) \
static int (*real_##name)(int, off_t); \
int name(int fd, off_t size) { \
    char path[4096]; \
    REAL(name); \
    if (fd_below(fd, path) && meet(DATA, "ftruncate", path)) return -1; \
    return real_##name(fd, size); \
}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)
static int (*real_rename)(const char *, const char *);
int rename(const char *from, const char *to) {
    REAL(rename);
    if (path_below(to) && meet(NAME, "rename", to) == 1) return -1;
    return real_rename(from, to);
}
static int (*real_renameat)(int, const char *, int, const char *);
int renameat(int a, const char *from, int b, const char *to) {
    char path[4096];
    REAL(renameat);
    if (at_below(b, to, path) && meet(NAME, "rename", path) == 1) return -1;
    return real_renameat(a, from, b, to);
}
#define ON_PATH(name, kind, what) \
static int (*real_##name)(const char *); \
int name(const char *path) { \
    REAL(name); \
    if (path_below(path) && meet(kind, what, path) == 1) return -1; \
    return real_##name(path); \
}
ON_PATH(unlink, REMOVE, "unlink")
ON_PATH(rmdir, REMOVE, "rmdir")
static int (*real_unlinkat)(int, const char *, int);
int unlinkat(int dir, const char *name, int flags) {
    char path[4096];
    REAL(unlinkat);
    if (at_below(dir, name, path) && meet(REMOVE, "unlink", path) == 1) return -1;
    return real_unlinkat(dir, name, flags);
}
static int (*real_mkdir)(const char *, mode_t);
int mkdir(const char *path, mode_t bits) {
    REAL(mkdir);
    if (path_below(path) && meet(NAME, "mkdir", path) == 1) return -1;
    return real_mkdir(path, bits);
}
#define OPEN(name) \
static int (*real_##name)(const char *, int, ...); \
int name(const char *path, int flags, ...) { \
    mode_t bits = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); bits = va_arg(more, mode_t); va_end(more); } \
    REAL(name); \
    if ((flags & (O_CREAT | O_TRUNC)) && path_below(path) && meet(NAME, "open", path) == 1) return -1; \
    return real_##name(path, flags, bits); \
}
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
static int (*real_##name)(int, const char *, int, ...); \
int name(int dir, const char *file, int flags, ...) { \
    char path[4096]; \
    mode_t bits = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); bits = va_arg(more, mode_t); va_end(more); } \
    REAL(name); \
    if ((flags & (O_CREAT | O_TRUNC)) && at_below(dir, file, path) && meet(NAME, "open", path) == 1) return -1; \
    return real_##name(dir, file, flags, bits); \
}
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name) \
static FILE *(*real_##name)(const char *, const char *); \
FILE *name(const char *path, const char *how) { \
    REAL(name); \
    if (strpbrk(how, "wa+") && path_below(path) && meet(NAME, "fopen", path) == 1) return NULL; \
    return real_##name(path, how); \
}
FOPEN(fopen)
FOPEN(fopen64)
