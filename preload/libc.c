/* SPDX-License-Identifier: MIT */
/*
 * preload/libc.c - what libc keeps in memory from malloc and looks at where a fault cannot be served.
 *
 * Where a thread begins and ends, libc has blocked all its signals, and reads the locale's tables and the
 * thread's vector of thread-local storage. So these are not paged: what is allocated within the
 * functions here, and by ld.so.
 */
#include "preload/preload.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <locale.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

static struct {
	char *(*setlocale)(int, const char *);
	locale_t (*newlocale)(int, const char *, locale_t);
	locale_t (*duplocale)(locale_t);
} libc;

static __thread unsigned depth;
static uintptr_t loader, loader_bytes;

/* Of ld.so: it is mapped in one piece. */
static void find_loader(void)
{
	const ElfW(Ehdr) *e = (const ElfW(Ehdr) *)getauxval(AT_BASE);
	const ElfW(Phdr) * p;

	if (!e)
		return;
	p = (const ElfW(Phdr) *)((const char *)e + e->e_phoff);
	for (unsigned i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD && p[i].p_vaddr + p[i].p_memsz > loader_bytes)
			loader_bytes = p[i].p_vaddr + p[i].p_memsz;
	loader = (uintptr_t)e;
}

void libc_find(void)
{
	void *found[] = { dlsym(RTLD_NEXT, "setlocale"), dlsym(RTLD_NEXT, "newlocale"),
		          dlsym(RTLD_NEXT, "duplocale") };

	_Static_assert(sizeof found == sizeof libc, "one for each");
	memcpy(&libc, found, sizeof libc);
	find_loader();
}

bool libc_keeps(const void *caller)
{
	return depth > 0 || (uintptr_t)caller - loader < loader_bytes;
}

EXPORT char *setlocale(int category, const char *name)
{
	char *result;

	depth++;
	result = libc.setlocale(category, name);
	depth--;
	return result;
}

EXPORT locale_t newlocale(int mask, const char *name, locale_t base)
{
	locale_t result;

	depth++;
	result = libc.newlocale(mask, name, base);
	depth--;
	return result;
}

EXPORT locale_t duplocale(locale_t of)
{
	locale_t result;

	depth++;
	result = libc.duplocale(of);
	depth--;
	return result;
}
