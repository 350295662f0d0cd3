/* SPDX-License-Identifier: MIT */
/* demos/apart.c - a process for what may fail, and a folder for its files; see apart.h. */
#define _GNU_SOURCE
#include "apart.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "demo.h"

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
#define SIGNALS (sizeof signals / sizeof *signals)

static char folder[400];
static volatile sig_atomic_t signaled;
static volatile pid_t worker;

/* What the signals do to the worker by themselves is not enough: they may be sent to us alone. */
static void on_signal(int signal)
{
	signaled = signal;
	if (worker > 0)
		kill(worker, SIGKILL);
}

static void replace_handlers(void (*old)(int), void (*new)(int))
{
	struct sigaction now, on = { .sa_handler = new };

	for (size_t i = 0; i < SIGNALS; i++)
		if (!sigaction(signals[i], NULL, &now) && now.sa_handler == old)
			sigaction(signals[i], &on, NULL);
}

void apart_begin(const char *directory)
{
	static const char *const places[] = { "/var/tmp", "/tmp" };

	if (!directory)
		directory = getenv("TMPDIR");
	for (size_t i = 0; !directory && i < sizeof places / sizeof *places; i++)
		if (!access(places[i], W_OK))
			directory = places[i];
	replace_handlers(SIG_DFL, on_signal);
	/* Children of a worker that is gone come to us, so that they can be waited for. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	snprintf(folder, sizeof folder, "%s/quire-%s.XXXXXX", directory ? directory : ".",
	         demo_name);
	if (!mkdtemp(folder))
		die("cannot make the folder %s: %s", folder, strerror(errno));
}

const char *apart_directory(void)
{
	return folder;
}

bool apart_is_over(void)
{
	return signaled;
}

static void empty_folder(void)
{
	DIR *d = opendir(folder);
	struct dirent *e;

	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

int apart_run(void (*run)(void *arg), void *arg)
{
	int status = 0;

	fflush(stdout);
	worker = fork();
	if (worker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		replace_handlers(on_signal, SIG_DFL);
		if (signaled)
			_exit(1);
		run(arg);
		exit(finish(0));
	}
	if (worker > 0) {
		/* It may have come when worker was not known. */
		if (signaled)
			kill(worker, SIGKILL);
		while (waitpid(worker, &status, 0) < 0 && errno == EINTR)
			;
		worker = 0;
		do
			errno = 0;
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
	} else {
		fprintf(stderr, "%s: fork: %s\n", demo_name, strerror(errno));
		status = W_EXITCODE(1, 0);
	}
	empty_folder();
	return status;
}

void apart_end(void)
{
	rmdir(folder);
	if (!signaled)
		return;
	signal(signaled, SIG_DFL);
	raise(signaled);
}
