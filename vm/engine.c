/* SPDX-License-Identifier: MIT */
/* vm/engine.c - choosing an engine: by name, or the first that works here. */
#include "vm/engine.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* In order of preference: the first serves system calls as well. */
static const struct engine_ops *const engines[] = { &engine_uffd, &engine_uffd_signal,
	                                            &engine_sigsegv };

const char *engine_names(void)
{
	return "auto, uffd, uffd-signal, sigsegv";
}

bool engine_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_LENGTH(engines); i++)
		if (strcmp(name, engines[i]->name) == 0)
			return true;
	return false;
}

static int open_one(struct engine *e, struct quire *q, const struct engine_ops *ops)
{
	memset(e, 0, sizeof *e);
	e->ops = ops;
	e->q = q;
	return ops->open(e, q);
}

int engine_open(struct engine *e, struct quire *q, const char *name)
{
	char why[ENGINE_WORDS] = "";
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(engines); i++) {
		int error;

		if (strcmp(name, "auto") != 0 && strcmp(name, engines[i]->name) != 0)
			continue;
		error = open_one(e, q, engines[i]);
		if (error != -ENOTSUP) {
			memcpy(e->refused, why, sizeof why);
			return error;
		}
		if (used < sizeof why)
			used += (size_t)snprintf(why + used, sizeof why - used, "%s%s: %s",
			                         used ? "; " : "", engines[i]->name,
			                         error_message());
	}
	if (used && strcmp(name, "auto") != 0)
		return error_set(ENOTSUP,
		                 "the engine asked for does not work here (%s); auto may "
		                 "find another",
		                 why);
	if (used)
		return error_set(ENOTSUP, "no engine works here (%s)", why);
	return error_set(EINVAL, "unknown engine \"%s\"; allowed: %s", name, engine_names());
}

int engine_save(struct engine *e, struct quire_region *r, char *page, char *buffer)
{
	return MIN(e->ops->save(e, r, page, buffer, 1), 0);
}
