/* Loaded into a program with LD_PRELOAD: keeps in the folder $SYNCED a copy of each file as of its last fsync or
   fdatasync, which is all that a disk is sure to hold when the power goes. Only files whose name begins with
   $SYNCED_NAME; a file that is deleted is deleted there too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *name_in(const char *path) {
    const char *name = strrchr(path, '/');
    return name && !strncmp(name + 1, getenv("SYNCED_NAME"), strlen(getenv("SYNCED_NAME"))) ? name : NULL;
}

static void copy(int fd) {
    char link[64], path[PATH_MAX], beside[PATH_MAX + 64], copy[PATH_MAX + 64], buffer[1 << 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    const char *name = name_in(path);
    if (!name) return;
    snprintf(beside, sizeof beside, "%s/beside", getenv("SYNCED"));
    snprintf(copy, sizeof copy, "%s%s", getenv("SYNCED"), name);
    int out = open(beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    /* read through fd: to open and close the file again would drop the process's locks on it */
    off_t at = 0;
    for (ssize_t n; (n = pread(fd, buffer, sizeof buffer, at)) > 0; at += n)
        if (write(out, buffer, n) != n) abort();
    close(out);
    rename(beside, copy);
}

int fsync(int fd) {
    int failed = ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
    if (!failed) copy(fd);
    return failed;
}

int fdatasync(int fd) {
    int failed = ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
    if (!failed) copy(fd);
    return failed;
}

int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    char copy[PATH_MAX + 64];
    if (name_in(path)) {
        snprintf(copy, sizeof copy, "%s%s", getenv("SYNCED"), name_in(path));
        real(copy);
    }
    return real(path);
}
