/*
 * Starts a container's first process: clone3, then a program of system calls, then execve.
 *
 * The child shares the parent's memory (CLONE_VM | CLONE_VFORK): starting costs the same however large the
 * parent is. Therefore nothing between clone3 and execve may use the C library's state, allocate memory or
 * return from spawn_child: only raw system calls, and the stack below it. The program's layout is that of
 * engine/runtime/program.py. The child reports the index and the errno of the operation that failed in
 * `struct job`, which it shares with its parent.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MAGIC 0x53574D50u
#define REGISTERS_MAX 64
#define OPS_MAX 4096
#define LINKS_MAX 40
#define PATH_BYTES 4096
#define ANY_ERROR 0x7FFF
#define JOIN_FAILED (-1)

enum composite { TARGET = -1, RLIMIT = -2, EXEC = -3 };
enum target_kind { TARGET_DIRECTORY = 0, TARGET_FILE = 1, TARGET_LIKE = 2 };
enum argument_kind { IMMEDIATE = 0, POINTER = 1, REGISTER = 2 };

struct operation {
    int32_t number;
    uint8_t kinds[6];
    int8_t out;
    uint8_t skip;
    int16_t tolerated[2];
    int64_t arguments[6];
};
_Static_assert(sizeof(struct operation) == 64, "layout of program.py");

struct header {
    uint32_t magic, operations, relocations, data_bytes;
};

struct job {
    struct operation *operations;
    uint32_t count;
    long registers[REGISTERS_MAX];
    const int *join; /* cgroup "tasks" files; writing 0 moves the writer */
    int join_count;
    volatile int failed_index;
    volatile int failed_errno;
};

/* ---- raw system calls -------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static inline long call6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long call6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "no raw system call for this architecture: the ctypes interpreter is used instead"
#endif
#define CALL(n, a, b, c, d) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* ---- composite operations ---------------------------------------------------------------------------- */

static long file_type(long fd)
{
    struct statx status;
    long result = call6(SYS_statx, fd, (long)"", 0x1000 /* AT_EMPTY_PATH */, STATX_TYPE, (long)&status, 0);
    return result < 0 ? result : status.stx_mode & S_IFMT;
}

static long open_inside(long root, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    return CALL(SYS_openat2, root, path, &how, sizeof(how));
}

static long append(char *buffer, size_t length, const char *text, size_t text_length)
{
    if (length + text_length + 2 > PATH_BYTES)
        return -ENAMETOOLONG;
    if (length > 0)
        buffer[length++] = '/';
    memcpy(buffer + length, text, text_length);
    buffer[length + text_length] = '\0';
    return (long)(length + text_length);
}

/* The directory or file `name` in `parent`, made when it is missing; links are not followed. */
static long open_or_make(long parent, const char *name, int directory)
{
    long fd = CALL(SYS_openat, parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd != -ENOENT)
        return fd;
    long made = directory ? CALL(SYS_mkdirat, parent, name, 0755, 0)
                          : CALL(SYS_openat, parent, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (made < 0 && made != -EEXIST)
        return made;
    if (!directory && made >= 0)
        CALL(SYS_close, made, 0, 0, 0);
    return CALL(SYS_openat, parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

/* `rest` becomes the content of the link `fd`, followed by what was left of `rest`. */
static long follow_link(long fd, char *rest, const char *left)
{
    char link[PATH_BYTES];
    long length = CALL(SYS_readlinkat, fd, "", link, sizeof(link) - 1);
    if (length <= 0)
        return length < 0 ? length : -ENOENT;
    link[length] = '\0';
    if (*left) {
        length = append(link, (size_t)length, left, strlen(left));
        if (length < 0)
            return length;
    }
    memcpy(rest, link, (size_t)length + 1);
    return 0;
}

/*
 * Walk `path` below `root` component by component: links are resolved inside the root, also dangling ones,
 * and what is missing is made. `done` is the part already walked, free of links.
 */
static long make_target(long root, const char *path, int directory)
{
    char done[PATH_BYTES] = "", rest[PATH_BYTES], name[256];
    int links = 0;
    if (strlen(path) >= sizeof(rest))
        return -ENAMETOOLONG;
    strcpy(rest, path);
    long parent = open_inside(root, ".", O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
    char *next = rest;
    while (parent >= 0) {
        while (*next == '/')
            next++;
        size_t length = strcspn(next, "/");
        if (length == 0)
            return parent;
        if (length >= sizeof(name))
            return -ENAMETOOLONG;
        memcpy(name, next, length);
        name[length] = '\0';
        next += length;
        int last = next[strspn(next, "/")] == '\0';
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            char *slash = strrchr(done, '/');
            *(slash ? slash : done) = '\0';
            CALL(SYS_close, parent, 0, 0, 0);
            parent = open_inside(root, *done ? done : ".", O_PATH | O_DIRECTORY,
                                 RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
            continue;
        }
        long fd = open_or_make(parent, name, directory || !last);
        if (fd < 0)
            return fd;
        if (file_type(fd) == S_IFLNK) {
            char left[PATH_BYTES];
            strcpy(left, next);
            long result = ++links > LINKS_MAX ? -ELOOP : follow_link(fd, rest, left);
            CALL(SYS_close, fd, 0, 0, 0);
            if (result < 0)
                return result;
            next = rest;
            if (*rest == '/') {
                *done = '\0';
                CALL(SYS_close, parent, 0, 0, 0);
                parent = open_inside(root, ".", O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
            }
            continue;
        }
        long appended = append(done, strlen(done), name, length);
        if (appended < 0)
            return appended;
        CALL(SYS_close, parent, 0, 0, 0);
        parent = fd;
    }
    return parent;
}

static long open_target(const int64_t *a)
{
    const char *path = (const char *)a[1];
    while (*path == '/')
        path++;
    long fd = open_inside(a[0], *path ? path : ".", O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd != -ENOENT)
        return fd;
    int directory = a[2] == TARGET_DIRECTORY || (a[2] == TARGET_LIKE && file_type(a[3]) == S_IFDIR);
    return make_target(a[0], path, directory);
}

/* Without CAP_SYS_RESOURCE a hard limit cannot be raised: then the inherited one stays. */
static long set_rlimit(const int64_t *a)
{
    uint64_t wished[2] = {(uint64_t)a[1], (uint64_t)a[2]}, inherited[2];
    long result = CALL(SYS_prlimit64, 0, a[0], wished, 0);
    if (result != -EPERM)
        return result;
    result = CALL(SYS_prlimit64, 0, a[0], 0, inherited);
    if (result < 0)
        return result;
    if (wished[1] > inherited[1])
        wished[1] = inherited[1];
    if (wished[0] > wished[1])
        wished[0] = wished[1];
    return CALL(SYS_prlimit64, 0, a[0], wished, 0);
}

/* Returns only errors: of the candidate that exists but must not run, before "no such file". */
static long execute(const int64_t *a)
{
    long worst = -ENOENT;
    for (char **candidate = (char **)a[0]; *candidate; candidate++) {
        long result = CALL(SYS_execve, *candidate, a[1], a[2], 0);
        if (result == -EACCES)
            worst = result;
        else if (result != -ENOENT && result != -ENOTDIR)
            return result;
    }
    return worst;
}

/* ---- the child --------------------------------------------------------------------------------------- */

static long perform(struct job *job, const struct operation *op)
{
    int64_t a[6];
    for (int i = 0; i < 6; i++)
        a[i] = op->kinds[i] == REGISTER ? job->registers[op->arguments[i]] : op->arguments[i];
    switch (op->number) {
    case TARGET:
        return open_target(a);
    case RLIMIT:
        return set_rlimit(a);
    case EXEC:
        return execute(a);
    default:
        return call6(op->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

static int tolerates(const struct operation *op, long error)
{
    return op->tolerated[0] == ANY_ERROR || op->tolerated[0] == error || op->tolerated[1] == error;
}

static void __attribute__((noreturn)) fail(struct job *job, int index, long error)
{
    job->failed_index = index;
    job->failed_errno = (int)error;
    for (;;)
        CALL(SYS_exit_group, 127, 0, 0, 0);
}

static void __attribute__((noinline, noreturn)) child(struct job *job)
{
    for (int i = 0; i < job->join_count; i++) {
        long result = CALL(SYS_write, job->join[i], "0", 1, 0);
        if (result < 0)
            fail(job, JOIN_FAILED, -result);
    }
    for (uint32_t i = 0; i < job->count; i++) {
        const struct operation *op = &job->operations[i];
        long result = perform(job, op);
        if (result < 0 && result >= -4095) {
            if (!tolerates(op, -result))
                fail(job, (int)i, -result);
            i += op->skip;
        } else if (op->out >= 0) {
            job->registers[op->out] = result;
        }
    }
    fail(job, (int)job->count, ENOEXEC); /* a program must end with an EXEC that succeeds */
}

/* The child goes on in this frame and never returns from it, so the parent's frames stay intact. */
static long __attribute__((noinline)) spawn_child(struct clone_args *args, struct job *job)
{
    long pid = CALL(SYS_clone3, args, sizeof(*args), 0, 0);
    if (pid == 0)
        child(job);
    return pid;
}

/* ---- the parent -------------------------------------------------------------------------------------- */

/* Check the program and turn data offsets into pointers. `program` is a writable copy. */
static int load(struct job *job, char *program, Py_ssize_t length)
{
    const struct header *header = (const struct header *)program;
    if ((size_t)length < sizeof(*header) || header->magic != MAGIC || header->operations > OPS_MAX)
        return -1;
    uint64_t operations = header->operations, relocations = header->relocations, bytes = header->data_bytes;
    if ((uint64_t)length != sizeof(*header) + operations * sizeof(struct operation) + relocations * 8 + bytes)
        return -1;
    job->operations = (struct operation *)(program + sizeof(*header));
    job->count = header->operations;
    const uint64_t *relocation = (const uint64_t *)(job->operations + operations);
    char *data = (char *)(relocation + relocations);
    for (uint64_t i = 0; i < relocations; i++) {
        if (relocation[i] + 8 > bytes)
            return -1;
        *(uint64_t *)(data + relocation[i]) += (uint64_t)data;
    }
    for (uint32_t i = 0; i < job->count; i++) {
        struct operation *op = &job->operations[i];
        if (op->out >= REGISTERS_MAX)
            return -1;
        for (int k = 0; k < 6; k++) {
            uint64_t value = (uint64_t)op->arguments[k];
            if ((op->kinds[k] == POINTER && value >= bytes) || (op->kinds[k] == REGISTER && value >= REGISTERS_MAX))
                return -1;
            if (op->kinds[k] == POINTER)
                op->arguments[k] += (int64_t)data;
        }
    }
    return 0;
}

static int read_numbers(PyObject *sequence, long *out, Py_ssize_t limit)
{
    PyObject *fast = PySequence_Fast(sequence, "a sequence of descriptors is needed");
    if (!fast)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    if (count > limit) {
        PyErr_SetString(PyExc_ValueError, "too many descriptors");
        count = -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        out[i] = PyLong_AsLong(PySequence_Fast_GET_ITEM(fast, i));
        if (out[i] == -1 && PyErr_Occurred())
            count = -1;
    }
    Py_DECREF(fast);
    return (int)count;
}

struct outcome {
    long pid;
    int pidfd;
    int error;
};

/* Enter the pid namespace for children if asked, clone, and come back. Runs without the GIL. */
static struct outcome run(struct job *job, uint64_t flags, int cgroup, int pidns, int own_pidns)
{
    struct outcome outcome = {.pid = -1, .pidfd = -1};
    struct clone_args args = {
        .flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)&outcome.pidfd,
        .exit_signal = SIGCHLD,
    };
    if (cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup;
    }
    if (pidns >= 0) {
        long entered = CALL(SYS_setns, pidns, CLONE_NEWPID, 0, 0);
        if (entered < 0) {
            outcome.error = (int)-entered;
            return outcome;
        }
    }
    outcome.pid = spawn_child(&args, job);
    if (outcome.pid < 0)
        outcome.error = (int)-outcome.pid;
    if (pidns >= 0 && CALL(SYS_setns, own_pidns, CLONE_NEWPID, 0, 0) < 0)
        abort(); /* every later child would land in a container's namespace */
    if (outcome.pid > 0 && job->failed_errno) {
        waitpid((pid_t)outcome.pid, NULL, 0);
        close(outcome.pidfd);
        outcome.pidfd = -1;
    }
    return outcome;
}

static PyObject *spawn(PyObject *self, PyObject *arguments)
{
    (void)self;
    const char *program;
    Py_ssize_t length;
    PyObject *registers, *join;
    unsigned long long flags;
    int cgroup, pidns, own_pidns;
    if (!PyArg_ParseTuple(arguments, "y#OKOiii", &program, &length, &registers, &flags, &join, &cgroup, &pidns,
                          &own_pidns))
        return NULL;
    struct job job = {.failed_index = JOIN_FAILED};
    long numbers[REGISTERS_MAX];
    int join_fds[REGISTERS_MAX];
    if (read_numbers(registers, job.registers, REGISTERS_MAX) < 0)
        return NULL;
    job.join_count = read_numbers(join, numbers, REGISTERS_MAX);
    if (job.join_count < 0)
        return NULL;
    for (int i = 0; i < job.join_count; i++)
        join_fds[i] = (int)numbers[i];
    job.join = join_fds;

    char *copy = malloc((size_t)length + 1);
    if (!copy)
        return PyErr_NoMemory();
    memcpy(copy, program, (size_t)length);
    if (load(&job, copy, length) < 0) {
        free(copy);
        PyErr_SetString(PyExc_ValueError, "not a program of this version");
        return NULL;
    }
    struct outcome outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = run(&job, flags, cgroup, pidns, own_pidns);
    Py_END_ALLOW_THREADS
    free(copy);
    if (outcome.error) {
        errno = outcome.error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("liii", outcome.pid, outcome.pidfd, job.failed_errno ? job.failed_index : 0,
                         job.failed_errno);
}

static PyMethodDef methods[] = {
    {"spawn", spawn, METH_VARARGS,
     "spawn(program, registers, clone_flags, join, cgroup, pidns, own_pidns) -> (pid, pidfd, index, errno)\n\n"
     "Descriptors that are not given are -1. On failure of an operation pidfd is -1 and the child is reaped."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_spawn", "The compiled interpreter of engine.runtime.program.", -1, methods,
};

PyMODINIT_FUNC PyInit__spawn(void)
{
    return PyModule_Create(&module);
}
