/*
 * The first process of a container with --init: starts the command, forwards every signal to it, reaps whatever
 * is orphaned, and ends with the command's exit status (128 + signal when it was killed).
 *
 * Linked statically, because it runs in the file system of any image. Usage: docker-init [--] COMMAND [ARG...]
 * Invariant: the command finds signals as a container's first process would: none blocked, none ignored by us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Signals of a fault belong to the process that made it; they are not ours to forward. */
static const int own[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU};

static void run(char **command, const sigset_t *before)
{
    /* A process group of its own, and in the foreground: keys of a terminal reach the command, not us. */
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpid());
    signal(SIGTTIN, SIG_DFL);
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, before, NULL);
    execvp(command[0], command);
    int error = errno;
    fprintf(stderr, "docker-init: exec %s failed: %s\n", command[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}

/* Reap all that have ended; 1 when the command is among them, with its exit code. */
static int reap(pid_t command, int *code)
{
    int ended = 0, status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == command) {
            ended = 1;
            *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
    }
    return ended;
}

int main(int count, char **arguments)
{
    char **command = arguments + 1;
    if (count > 1 && strcmp(*command, "--") == 0)
        command++;
    if (count < 2 || !*command) {
        fprintf(stderr, "usage: docker-init [--] COMMAND [ARG...]\n");
        return 2;
    }
    sigset_t all, before;
    sigfillset(&all);
    for (unsigned i = 0; i < sizeof(own) / sizeof(*own); i++)
        sigdelset(&all, own[i]);
    sigprocmask(SIG_SETMASK, &all, &before);
    signal(SIGTTIN, SIG_IGN); /* giving the terminal away must not stop us */
    signal(SIGTTOU, SIG_IGN);
    pid_t child = fork();
    if (child < 0) {
        fprintf(stderr, "docker-init: cannot fork: %s\n", strerror(errno));
        return 126;
    }
    if (child == 0)
        run(command, &before);
    int code = 0;
    for (;;) {
        int number = sigwaitinfo(&all, NULL);
        if (number == SIGCHLD) {
            if (reap(child, &code))
                return code;
        } else if (number > 0) {
            kill(child, number);
        }
    }
}
