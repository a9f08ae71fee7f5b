/* Makes the sync of a write-ahead log fail on demand, as a failing disk does: while
 * the file $FAIL_SYNC_ALWAYS exists, and once when $FAIL_SYNC_ONCE does (it is removed). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static int sync_with(const char *name, int fd)
{
    int (*real)(int);

    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, name);
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
