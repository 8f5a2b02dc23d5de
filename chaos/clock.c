/* Preloaded into a daemon: its wall clock, and nothing else, is off by what a file says.
 *
 * The file is $CHAOS_CLOCKS/<node>, the node as $SWARMCTL_LAB_NODE names it (LAB/NODE): 8 bytes, the offset in
 * nanoseconds. It is mapped once, so that a changed offset is a step of the running clock. A process without
 * these variables, and one whose file does not exist, sees the true time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t BILLION = 1000000000;
static const volatile int64_t *shared;

__attribute__((constructor)) static void map_offset(void)
{
    const char *folder = getenv("CHAOS_CLOCKS"), *node = getenv("SWARMCTL_LAB_NODE");
    char path[4096];
    if (!folder || !node || snprintf(path, sizeof path, "%s/%s", folder, node) >= (int)sizeof path)
        return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *shared, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED)
        shared = map;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && shared && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_sec * BILLION + now->tv_nsec + *shared;
        now->tv_sec = ns / BILLION;
        now->tv_nsec = ns % BILLION;
    }
    return (int)failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact))
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
