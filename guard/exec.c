/* SPDX-License-Identifier: MIT */
/*
 * guard/exec.c - execve and execveat: the kernel reads all strings before it gives up the
 * old memory. If it does, the copies go with it; after vfork the parent's memory has
 * them until their slot is wanted (scratch.c).
 */
#include "guard/exec.h"

#include "guard/copy.h"
#include "guard/guard.h"

#include <errno.h>
#include <sys/syscall.h>

#define STRINGS_MAX (COPY_MAX / sizeof(char *))

/* => how many, without the NULL at the end; -1: a bad address */
static long count(unsigned long list)
{
	for (size_t n = 0; n < STRINGS_MAX; n++) {
		unsigned long string;

		if (guard_load((const void *)(list + n * sizeof string), &string))
			return -1;
		if (!string)
			return (long)n;
	}
	return -1;
}

bool strings_in_window(char *const *list)
{
	unsigned long string = (unsigned long)list;

	if (!list || guard_in_window(string))
		return list != NULL;
	for (size_t i = 0; guard_load(&list[i], &string) == 0 && string; i++)
		if (guard_in_window(string))
			return true;
	return false;
}

int string_copy(struct served *s, unsigned long *string, size_t most)
{
	char *copy;
	long length;

	if (!guard_in_window(*string))
		return 0;
	length = guard_string((const char *)*string, most);
	if (length < 0)
		return -EFAULT;
	copy = scratch_get(&s->scratch, (size_t)length + 1, SCRATCH_ANY);
	if (!copy)
		return -ENOMEM;
	if (copy_from(copy, *string, (size_t)length))
		return -EFAULT;
	copy[length] = 0;
	*string = (unsigned long)copy;
	return 0;
}

int strings_copy(struct served *s, unsigned long *list)
{
	unsigned long *copy;
	long n;

	if (!*list)
		return 0;
	n = count(*list);
	if (n < 0)
		return -EFAULT;
	copy = scratch_get(&s->scratch, ((size_t)n + 1) * sizeof *copy, SCRATCH_ANY);
	if (!copy)
		return -E2BIG;
	if (copy_from(copy, *list, (size_t)n * sizeof *copy))
		return -EFAULT;
	copy[n] = 0;
	for (long i = 0; i < n; i++) {
		int error = string_copy(s, &copy[i], STRING_MAX);

		if (error)
			return error == -ENOMEM ? -E2BIG : error;
	}
	*list = (unsigned long)copy;
	return 0;
}

static long call(struct served *s)
{
	unsigned first = s->number == SYS_execveat ? 2 : 1;
	int error = strings_copy(s, &s->arg[first]);

	if (!error)
		error = strings_copy(s, &s->arg[first + 1]);
	return error ? error : served_call(s);
}

long serve_exec(struct served *s, const struct call_row *row)
{
	return serve_bound(s, row, call);
}
