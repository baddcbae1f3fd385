#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Lets one call fail that writes below the folder FAULT_ROOT: the first FAULT_CALL whose path below it matches
   FAULT_NAME gives the error FAULT_ERROR, and makes the folder FAULT_DONE. FAULT_LOG: a file that gets all such calls. */
static int fails(const char *call, const char *path) {
    const char *root = getenv("FAULT_ROOT");
    const char *log = getenv("FAULT_LOG");
    if (!root || !path || strncmp(path, root, strlen(root))) return 0;
    const char *name = path + strlen(root);
    while (*name == '/') name++;
    if (log) {
        static ssize_t (*real)(int, const void *, size_t);
        if (!real) real = dlsym(RTLD_NEXT, "write");
        static int (*real_open)(const char *, int, ...);
        if (!real_open) real_open = dlsym(RTLD_NEXT, "open");
        int file = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        char line[4200];
        int length = snprintf(line, sizeof line, "%s %s\n", call, name);
        if (file >= 0) { real(file, line, length); close(file); }
    }
    const char *want = getenv("FAULT_CALL");
    const char *of = getenv("FAULT_NAME");
    if (!want || strcmp(want, call) || !of || fnmatch(of, name, 0)) return 0;
    static int (*mk)(const char *, mode_t);
    if (!mk) mk = dlsym(RTLD_NEXT, "mkdir");
    int before = errno;
    if (mk(getenv("FAULT_DONE"), 0777)) { errno = before; return 0; }
    errno = atoi(getenv("FAULT_ERROR"));
    return 1;
}
static const char *at(int folder, const char *path, char *room) {
    char link[64];
    if (path[0] == '/') return path;
    if (folder == AT_FDCWD) { if (!getcwd(room, 4096)) return 0; }
    else { snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, room, 4095); if (n < 0) return 0; room[n] = 0; }
    strncat(room, "/", 4095 - strlen(room)); strncat(room, path, 4095 - strlen(room));
    return room;
}
static const char *of(int file, char *room) { 
    char link[64]; snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, room, 4095); if (n < 0) return 0; room[n] = 0; return room; }
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name); char room[4200]
#define OPEN(name) int name(const char *path, int flags, ...) { REAL(int, name, const char *, int, ...); \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails("open", at(AT_FDCWD, path, room))) return -1; \
    return real(path, flags, mode); }
OPEN(open) OPEN(open64)
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { REAL(int, name, int, const char *, int, ...); \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT) && fails("open", at(folder, path, room))) return -1; \
    return real(folder, path, flags, mode); }
OPENAT(openat) OPENAT(openat64)
ssize_t write(int f, const void *b, size_t n) { REAL(ssize_t, write, int, const void *, size_t); return fails("write", of(f, room)) ? -1 : real(f, b, n); }
ssize_t writev(int f, const struct iovec *b, int n) { REAL(ssize_t, writev, int, const struct iovec *, int); return fails("write", of(f, room)) ? -1 : real(f, b, n); }
int fsync(int f) { REAL(int, fsync, int); return fails("fsync", of(f, room)) ? -1 : real(f); }
int ftruncate64(int f, off64_t n) { REAL(int, ftruncate64, int, off64_t); return fails("truncate", of(f, room)) ? -1 : real(f, n); }
int rename(const char *a, const char *b) { REAL(int, rename, const char *, const char *); return fails("rename", at(AT_FDCWD, b, room)) ? -1 : real(a, b); }
int mkdir(const char *p, mode_t m) { REAL(int, mkdir, const char *, mode_t); return fails("mkdir", at(AT_FDCWD, p, room)) ? -1 : real(p, m); }
int symlink(const char *a, const char *b) { REAL(int, symlink, const char *, const char *); return fails("symlink", at(AT_FDCWD, b, room)) ? -1 : real(a, b); }
int link(const char *a, const char *b) { REAL(int, link, const char *, const char *); return fails("link", at(AT_FDCWD, b, room)) ? -1 : real(a, b); }
