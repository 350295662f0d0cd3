/* SPDX-License-Identifier: MIT */
/*
 * base/kernel.h - what the kernel has and older headers lack.
 *
 * Debian 12's headers are those of Linux 6.1. Everything newer that Quire can
 * use is declared here and nowhere else, and probed at run time before use
 * (vm/uffd.c). Values are the kernel's ABI.
 */
#ifndef QUIRE_BASE_KERNEL_H
#define QUIRE_BASE_KERNEL_H

#include <errno.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* /dev/userfaultfd, Linux 6.1 */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC 0xAA
#define USERFAULTFD_IOC_NEW _IO(USERFAULTFD_IOC, 0x00)
#endif

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* Linux 6.6 */
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define _UFFDIO_POISON 0x08
#define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#define UFFD_FEATURE_POISON (1 << 14)
#endif

/* Linux 6.8 */
#ifndef UFFDIO_MOVE
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define _UFFDIO_MOVE 0x05
#define UFFDIO_MOVE _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* Linux 5.14 */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* Linux 5.18 */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* Linux 6.13; on shared memory 6.15 */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* Linux 5.17 */
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* System calls of Linux 6.5 to 6.17: the same numbers everywhere. (guard/calls.c) */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack 453
#endif
#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#endif
#ifndef SYS_futex_wait
#define SYS_futex_wait 455
#endif
#ifndef SYS_futex_requeue
#define SYS_futex_requeue 456
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif
#ifndef SYS_lsm_get_self_attr
#define SYS_lsm_get_self_attr 459
#endif
#ifndef SYS_lsm_set_self_attr
#define SYS_lsm_set_self_attr 460
#endif
#ifndef SYS_lsm_list_modules
#define SYS_lsm_list_modules 461
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#endif
#ifndef SYS_getxattrat
#define SYS_getxattrat 464
#endif
#ifndef SYS_listxattrat
#define SYS_listxattrat 465
#endif
#ifndef SYS_removexattrat
#define SYS_removexattrat 466
#endif
#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif
#ifndef SYS_file_getattr
#define SYS_file_getattr 468
#endif
#ifndef SYS_file_setattr
#define SYS_file_setattr 469
#endif
#ifndef SYS_uretprobe /* x86-64, Linux 6.11 */
#define SYS_uretprobe 335
#endif

/*
 * A call of ours that is given addresses in regions, inside structures: not by syscall(2),
 * as that is one of the guard's own (guard/wrappers.c), which would take them for the
 * program's. => as syscall(2)
 */
static inline long kernel_call(long number, long a, const void *b, long c, const void *d, long e,
                               long f)
{
#if defined(__x86_64__)
	register const void *r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
#else
	return syscall(number, a, b, c, d, e, f);
#endif
}

/* madvise(2) itself: the library has a madvise of its own for the program (vm/interpose.c). */
static inline int kernel_madvise(void *address, size_t length, int advice)
{
	return (int)syscall(SYS_madvise, address, length, advice);
}

/*
 * A mapping that takes another's place while threads may be touching it, mmap(2)
 * itself: sanitizers take libc's for a write of the caller's to the whole range,
 * and this one races with whatever is going on there, by design. => NULL: refused
 */
static inline void *kernel_replace(void *at, size_t length, int protection, int flags, int fd)
{
	long got = syscall(SYS_mmap, at, length, protection, flags | MAP_PRIVATE | MAP_FIXED, fd,
	                   0l);

	return got == -1 ? NULL : (void *)got;
}

/*
 * Address space that stays empty until it is touched, PROT_NONE at first. After
 * mlockall(MCL_FUTURE) the kernel would fill what is mapped, or made writable
 * while it is locked, and what we reserve is larger than memory. (The bare call:
 * sanitizers make nothing of libc's.) => NULL: no address space
 */
static inline void *kernel_reserve(size_t length, int flags)
{
	void *p = mmap(NULL, length, PROT_NONE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	syscall(SYS_munlock, p, length);
	return p;
}

/*
 * Give the memory of records or buffers of ours back, though the program locked
 * all it has (mlockall). => 0, or -1: it stays, or some of it
 */
static inline int kernel_drop(void *address, size_t length)
{
	if (kernel_madvise(address, length, MADV_DONTNEED) == 0)
		return 0;
	return kernel_madvise(address, length, MADV_DONTNEED_LOCKED);
}

#endif
