/* Loaded into a program with LD_PRELOAD: kills it (SIGKILL) just before step number $DIES_AT of those that change names
   in folders or sync files, or of those of them that begin with $DIES_IN. With $NO_EXCHANGE, names can't be exchanged,
   as on some file systems. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void step(const char *name) {
    static int steps;
    const char *counted = getenv("DIES_IN");
    if (counted && strncmp(name, counted, strlen(counted))) return;
    if (getenv("DIES_AT") && ++steps == atoi(getenv("DIES_AT"))) kill(getpid(), SIGKILL);
}

#define REAL(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to) { step(__func__); return REAL(rename, const char *, const char *)(from, to); }
int unlink(const char *path) { step(__func__); return REAL(unlink, const char *)(path); }
int unlinkat(int at, const char *path, int flags) { step(__func__); return REAL(unlinkat, int, const char *, int)(at, path, flags); }
int rmdir(const char *path) { step(__func__); return REAL(rmdir, const char *)(path); }
int mkdir(const char *path, mode_t mode) { step(__func__); return REAL(mkdir, const char *, mode_t)(path, mode); }
int fsync(int fd) { step(__func__); return REAL(fsync, int)(fd); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    step(__func__);
    if (getenv("NO_EXCHANGE")) {
        errno = EINVAL;
        return -1;
    }
    return REAL(renameat2, int, const char *, int, const char *, unsigned)(from_at, from, to_at, to, flags);
}
