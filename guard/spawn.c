/* SPDX-License-Identifier: MIT */
/*
 * guard/spawn.c - functions of libc's that start programs and are more than one system call:
 * they are called on, with what they are given in ordinary memory, as their child has no
 * handlers any more when it looks at that.
 *
 * In the shared library only: where libc is linked statically there is no way to its own.
 */
#include "guard/copy.h"
#include "guard/exec.h"
#include "guard/guard.h"
#include "guard/wrappers.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define A(x) (unsigned long)(x)

void *wrapper_unwinder(void)
{
	void *library = dlopen("libgcc_s.so.1", RTLD_NOW);

	return library ? dlsym(library, "__register_frame") : NULL;
}

/* What libc has by these names; found once, since after vfork there is no time for it. */
static struct {
	int (*execvpe)(const char *, char *const[], char *const[]);
	int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	                   const posix_spawnattr_t *, char *const[], char *const[]);
	int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	                    const posix_spawnattr_t *, char *const[], char *const[]);
	int (*system)(const char *);
	FILE *(*popen)(const char *, const char *);
} libc;

static void *find(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void find_libc(void)
{
	void *found[] = { find("execvpe"), find("posix_spawn"), find("posix_spawnp"),
		          find("system"), find("popen") };

	_Static_assert(sizeof found == sizeof libc, "one for each");
	memcpy(&libc, found, sizeof libc);
}

/* A program's name, arguments and environment, in ordinary memory. */
struct program {
	struct served s;
	unsigned long path, argv, envp;
	bool guarded;
};

/* => 0 or an errno; to be closed either way */
static int program_open(struct program *p, const char *path, char *const argv[], char *const envp[])
{
	int error = 0;

	*p = (struct program){ .path = A(path), .argv = A(argv), .envp = A(envp) };
	p->guarded = guard_is_on();
	if (!p->guarded)
		return 0;
	wrapper_open(&p->s);
	error = string_copy(&p->s, &p->path, STRING_MAX);
	if (!error && strings_in_window(argv))
		error = strings_copy(&p->s, &p->argv);
	if (!error && strings_in_window(envp))
		error = strings_copy(&p->s, &p->envp);
	/* The child has this thread's mask. */
	wrapper_unblock(&p->s);
	return -error;
}

static void program_close(struct program *p)
{
	if (!p->guarded)
		return;
	wrapper_block(&p->s.mask);
	wrapper_close(&p->s);
}

#define PATH_OF(p) ((const char *)(p)->path)
#define ARGV_OF(p) ((char *const *)(p)->argv)
#define ENVP_OF(p) ((char *const *)(p)->envp)

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	struct program p;
	int error = program_open(&p, file, argv, envp);

	if (!error && libc.execvpe) {
		libc.execvpe(PATH_OF(&p), ARGV_OF(&p), ENVP_OF(&p));
		error = errno;
	}
	program_close(&p);
	errno = error ? error : ENOSYS;
	return -1;
}

EXPORT int execlp(const char *file, const char *first, ...)
{
	va_list list;
	size_t n;

	LIST_OF_ARGUMENTS(first, n, list);
	va_end(list);
	return execvpe(file, (char *const *)argv, environ);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

typedef int (*spawner)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                       const posix_spawnattr_t *, char *const[], char *const[]);

/* The child has no handlers any more when it looks at these, nor libc when it writes the number. */
static int spawn(spawner by, pid_t *id, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	posix_spawn_file_actions_t these_actions;
	posix_spawnattr_t these_attributes;
	struct program p;
	pid_t child = 0;
	int error;

	if (!by)
		return ENOSYS;
	if (!guard_is_on())
		return by(id, path, actions, attributes, argv, envp);
	if (guard_in_window(A(actions))) {
		if (copy_from(&these_actions, A(actions), sizeof these_actions))
			return EFAULT;
		actions = &these_actions;
	}
	if (guard_in_window(A(attributes))) {
		if (copy_from(&these_attributes, A(attributes), sizeof these_attributes))
			return EFAULT;
		attributes = &these_attributes;
	}
	error = program_open(&p, path, argv, envp);
	if (!error)
		error = by(&child, PATH_OF(&p), actions, attributes, ARGV_OF(&p), ENVP_OF(&p));
	program_close(&p);
	if (!error && id)
		*id = child;
	return error;
}

EXPORT int posix_spawn(pid_t *id, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	return spawn(libc.posix_spawn, id, path, actions, attributes, argv, envp);
}

EXPORT int posix_spawnp(pid_t *id, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	return spawn(libc.posix_spawnp, id, file, actions, attributes, argv, envp);
}

EXPORT int system(const char *command)
{
	struct program p;
	int error = program_open(&p, command, NULL, NULL);
	int status = -1;

	if (!error && libc.system) {
		status = libc.system(PATH_OF(&p));
		error = errno;
	}
	program_close(&p);
	if (status == -1)
		errno = error ? error : ENOSYS;
	return status;
}

EXPORT FILE *popen(const char *command, const char *type)
{
	struct program p;
	int error = program_open(&p, command, NULL, NULL);
	FILE *stream = NULL;

	if (!error && libc.popen) {
		stream = libc.popen(PATH_OF(&p), type);
		error = errno;
	}
	program_close(&p);
	if (!stream)
		errno = error ? error : ENOSYS;
	return stream;
}
