/*
 * Preloaded into the server by the power-cut test: writes down what a power cut would leave.
 *
 * One line for each fsync or fdatasync that succeeded, in the file named by POWER_CUT_LOG:
 *
 *     F <device> <inode> <birth> <length>             a file, and how long it was when the sync began
 *     D <device> <inode> <birth>\t<name>\t<name>...   a folder, and what was in it when the sync began
 *
 * Files are known by inode and time of birth, so that renaming them changes nothing. The line is in the log before the
 * caller learns that the sync is done; so whatever was promised because of it is covered.
 *
 * sync_file_range makes nothing durable (no metadata, no cache of the disk) and is not written down; neither are msync and
 * O_SYNC, which this server does not use. What was not synced counts as lost, so leaving them out errs on the strict side.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int log_fd = -1;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWER_CUT_LOG");
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (path) log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0 || !real_fsync || !real_fdatasync) abort();
}

/* The line for what fd is now; NULL if it is neither file nor folder. To be freed. */
static char *line_of(int fd, size_t *len) {
    struct statx st;
    char *line = NULL;
    FILE *out;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st) != 0) abort();
    if (!S_ISREG(st.stx_mode) && !S_ISDIR(st.stx_mode)) return NULL;
    if (!(out = open_memstream(&line, len))) abort();
    fprintf(out, "%c %u:%u %llu %lld.%09u", S_ISDIR(st.stx_mode) ? 'D' : 'F', st.stx_dev_major, st.stx_dev_minor,
            (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    if (S_ISDIR(st.stx_mode)) {
        char path[64];
        struct dirent *entry;
        DIR *dir;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (!(dir = opendir(path))) abort();
        while ((entry = readdir(dir)))
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                fprintf(out, "\t%s", entry->d_name);
        closedir(dir);
    } else {
        fprintf(out, " %llu", (unsigned long long)st.stx_size);
    }
    fputc('\n', out);
    if (fclose(out) != 0) abort();
    return line;
}

static int sync_and_log(int (*real)(int), int fd) {
    size_t len = 0;
    char *line = line_of(fd, &len);
    int result = real(fd);
    int error = errno;
    if (result == 0 && line && write(log_fd, line, len) != (ssize_t)len) abort();
    free(line);
    errno = error;
    return result;
}

int fsync(int fd) { return sync_and_log(real_fsync, fd); }

int fdatasync(int fd) { return sync_and_log(real_fdatasync, fd); }
