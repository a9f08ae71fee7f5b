/* Faults on demand, for the gateway that is started with this library preloaded.
 *
 * The sync of a write-ahead log fails, as on a failing disk: while the file
 * $FAIL_SYNC_ALWAYS exists, and once when $FAIL_SYNC_ONCE does (it is removed).
 *
 * While the file $FAIL_ONCE_THERE exists, the $FAIL_FROM-th call and those after it that
 * make, write, sync or link something whose path has $FAIL_IN in it fail with the error
 * number $FAIL_WITH, as on a full disk; with $FAIL_ALONE set, that one call alone; with
 * $FAIL_CALL set, only calls of that name count. The first one makes the folder $FAIL_TOLD.
 *
 * Before the $KILL_AT-th call that changes a file or a name, the process gets SIGKILL;
 * counted from the moment when the file $KILL_ONCE_THERE exists, if that is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int is_to_fail(const char *name, const char *path)
{
    static atomic_long calls;
    const char *in = getenv("FAIL_IN"), *there = getenv("FAIL_ONCE_THERE"), *only = getenv("FAIL_CALL");
    long call, from;

    if (in == NULL || there == NULL || strstr(path, in) == NULL || access(there, F_OK) != 0)
        return 0;
    if (only != NULL && strcmp(only, name) != 0)
        return 0;
    call = atomic_fetch_add(&calls, 1) + 1;
    from = atol(getenv("FAIL_FROM"));
    if (call < from || (call > from && getenv("FAIL_ALONE") != NULL))
        return 0;
    mkdir(getenv("FAIL_TOLD"), 0700);
    errno = atoi(getenv("FAIL_WITH"));
    return 1;
}

static int is_to_fail_at(const char *name, int fd)
{
    char link[64], path[4096];
    ssize_t length;

    if (getenv("FAIL_IN") == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return is_to_fail(name, path);
}

static int fails(int fd)
{
    char link[64], path[4096];
    const char *always = getenv("FAIL_SYNC_ALWAYS");
    const char *once = getenv("FAIL_SYNC_ONCE");
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    if (length < 4 || memcmp(path + length - 4, "-wal", 4) != 0)
        return 0;
    return (always != NULL && access(always, F_OK) == 0) || (once != NULL && unlink(once) == 0);
}

static void count(void)
{
    static atomic_long calls;
    const char *at = getenv("KILL_AT"), *there = getenv("KILL_ONCE_THERE");

    if (at == NULL || (there != NULL && access(there, F_OK) != 0))
        return;
    if (atomic_fetch_add(&calls, 1) + 1 == atol(at))
        raise(SIGKILL);
}

#define REAL(name, type, ...)                           \
    type (*real)(__VA_ARGS__);                          \
    count();                                            \
    *(void **)&real = dlsym(RTLD_NEXT, name)

static int sync_with(const char *name, int fd)
{
    REAL(name, int, int);
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    if (is_to_fail_at(name, fd))
        return -1;
    return real(fd);
}

int fsync(int fd)
{
    return sync_with("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_with("fdatasync", fd);
}

int unlink(const char *path)
{
    REAL("unlink", int, const char *);
    return real(path);
}

int rename(const char *from, const char *to)
{
    REAL("rename", int, const char *, const char *);
    return real(from, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    REAL("linkat", int, int, const char *, int, const char *, int);
    if (is_to_fail("linkat", to))
        return -1;
    return real(from_dir, from, to_dir, to, flags);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    REAL("write", ssize_t, int, const void *, size_t);
    if (is_to_fail_at("write", fd))
        return -1;
    return real(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
    if (is_to_fail_at("pwrite64", fd))
        return -1;
    return real(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
    if (is_to_fail_at("pwrite", fd))
        return -1;
    return real(fd, bytes, length, at);
}

int ftruncate64(int fd, off64_t length)
{
    REAL("ftruncate64", int, int, off64_t);
    if (is_to_fail_at("ftruncate64", fd))
        return -1;
    return real(fd, length);
}

int ftruncate(int fd, off_t length)
{
    REAL("ftruncate", int, int, off_t);
    if (is_to_fail_at("ftruncate", fd))
        return -1;
    return real(fd, length);
}

static int open_with(const char *name, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...);

    *(void **)&real = dlsym(RTLD_NEXT, name);
    if ((flags & O_CREAT) != 0 && is_to_fail("open", path))
        return -1;
    return real(path, flags, mode);
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...)          \
    {                                                   \
        va_list more;                                   \
        mode_t mode = 0;                                \
                                                        \
        va_start(more, flags);                          \
        if ((flags & (O_CREAT | O_TMPFILE)) != 0)       \
            mode = va_arg(more, mode_t);                \
        va_end(more);                                   \
        return open_with(#name, path, flags, mode);     \
    }

OPEN(open)
OPEN(open64)
