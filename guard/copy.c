/* SPDX-License-Identifier: MIT */
/* guard/copy.c - see copy.h. The instructions that may fault, and where to go on then. */
#include "guard/copy.h"

#include "base/base.h"
#include "guard/guard.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#if defined(__x86_64__)

/*
 * rep movsb keeps its place in registers: interrupted by a fault that is served it
 * goes on, by one that is not it ends, with the rest in rcx.
 */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl guard_copy, guard_touch_read, guard_touch_write, guard_load\n"
        ".hidden guard_copy, guard_touch_read, guard_touch_write, guard_load\n"
        ".type guard_copy, @function\n"
        "guard_copy:\n"
        "	.cfi_startproc\n"
        "	mov %rdx, %rcx\n"
        "guard_copy_at:\n"
        "	rep movsb\n"
        "guard_copy_end:\n"
        "	mov %rcx, %rax\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size guard_copy, . - guard_copy\n"
        ".type guard_touch_read, @function\n"
        "guard_touch_read:\n"
        "	.cfi_startproc\n"
        "	mov $1, %eax\n"
        "guard_read_at:\n"
        "	movb (%rdi), %cl\n"
        "	xor %eax, %eax\n"
        "guard_read_end:\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size guard_touch_read, . - guard_touch_read\n"
        ".type guard_touch_write, @function\n"
        "guard_touch_write:\n"
        "	.cfi_startproc\n"
        "	mov $1, %eax\n"
        "guard_write_at:\n"
        "	lock orb $0, (%rdi)\n"
        "	xor %eax, %eax\n"
        "guard_write_end:\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size guard_touch_write, . - guard_touch_write\n"
        ".type guard_load, @function\n"
        "guard_load:\n"
        "	.cfi_startproc\n"
        "	mov $1, %eax\n"
        "guard_load_at:\n"
        "	mov (%rdi), %rcx\n"
        "	mov %rcx, (%rsi)\n"
        "	xor %eax, %eax\n"
        "guard_load_end:\n"
        "	ret\n"
        "	.cfi_endproc\n"
        ".size guard_load, . - guard_load\n");

extern const char guard_copy_at[] __attribute__((visibility("hidden")));
extern const char guard_copy_end[] __attribute__((visibility("hidden")));
extern const char guard_read_at[] __attribute__((visibility("hidden")));
extern const char guard_read_end[] __attribute__((visibility("hidden")));
extern const char guard_write_at[] __attribute__((visibility("hidden")));
extern const char guard_write_end[] __attribute__((visibility("hidden")));
extern const char guard_load_at[] __attribute__((visibility("hidden")));
extern const char guard_load_end[] __attribute__((visibility("hidden")));

bool guard_copy_ends(void *context)
{
	const struct {
		const char *at, *end;
	} places[] = { { guard_copy_at, guard_copy_end },
		       { guard_read_at, guard_read_end },
		       { guard_write_at, guard_write_end },
		       { guard_load_at, guard_load_end } };
	greg_t *ip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	for (size_t i = 0; i < ARRAY_LENGTH(places); i++)
		if (*ip == (greg_t)(uintptr_t)places[i].at) {
			*ip = (greg_t)(uintptr_t)places[i].end;
			return true;
		}
	return false;
}

#else

/* The guard does not start here: nothing comes this way. */
size_t guard_copy(void *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return 0;
}

int guard_touch_read(const void *address)
{
	(void)*(const volatile char *)address;
	return 0;
}

int guard_touch_write(void *address)
{
	__atomic_fetch_or((char *)address, 0, __ATOMIC_RELAXED);
	return 0;
}

int guard_load(const void *address, unsigned long *out)
{
	memcpy(out, address, sizeof *out);
	return 0;
}

bool guard_copy_ends(void *context)
{
	(void)context;
	return false;
}

#endif

long guard_string(const char *s, size_t most)
{
	size_t length = 0;

	while (length < most) {
		char part[64];
		/* Not beyond the page that is known to be the string's. */
		size_t n = MIN(sizeof part, PAGE_BYTES - ((uintptr_t)s + length) % PAGE_BYTES);
		const char *end;

		if (guard_copy(part, s + length, n) != 0)
			return -1;
		end = memchr(part, 0, n);
		if (end)
			return (long)MIN(length + (size_t)(end - part), most);
		length += n;
	}
	return (long)most;
}

int copy_from(void *to, unsigned long user, size_t n)
{
	return guard_copy(to, (const void *)user, n) ? -EFAULT : 0;
}

int copy_to(unsigned long user, const void *from, size_t n)
{
	return guard_copy((void *)user, from, n) ? -EFAULT : 0;
}
