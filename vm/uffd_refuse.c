/* SPDX-License-Identifier: MIT */
/*
 * vm/uffd_refuse.c - refusing an access where the kernel has no UFFDIO_POISON
 * (before Linux 6.6). The handler thread of uffd_thread.c calls it.
 *
 * The thread that waits is told, by where it is:
 *
 *   in the program      SIGBUS is sent to it, which ends its wait. si_addr is as
 *                       it should be, but si_code is SI_QUEUE: the kernel takes
 *                       a fault's code only from the thread itself.
 *   in a system call    A signal does not end that wait (the kernel tries the
 *                       copy again, and without a pause while one is pending).
 *                       For a moment a mapping without bytes takes the page's
 *                       place, and the call fails with EFAULT.
 *
 * The entry is held while that mapping is there, and is not MAPPED: there is no
 * page to lose. The page's own mapping comes back inaccessible, and is opened
 * when its faults are delivered again, so the kernel never fills it by itself;
 * who touches it in that instant gets SIGSEGV.
 *
 * The same is used, of the signal only, where a page is there that cannot be written, for want of memory
 * for a snapshot's copy, nor be made absent, to be poisoned, for want of the same.
 *
 * A thread in the program that blocks or ignores SIGBUS cannot be told. It
 * sleeps on, and looks again when the refusal ends; the signal it has blocked
 * stays pending.
 */
#include "vm/uffd.h"

#include "base/kernel.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* For a system call to try its copy again. One that is slower faults, and is refused, once more. */
#define MOMENT_NS 2000000

/* A thread found awake that often in a row is in a system call, with a signal pending. */
#define RESTLESS 16u

enum whereabouts { IN_PROGRAM, IN_CALL, AWAKE, UNKNOWN };

/* What the kernel says of a thread of ours that sleeps: "-1 ...", or the number of its system call. */
static enum whereabouts whereabouts(int32_t tid)
{
	char path[] = "/proc/self/task/0000000000/syscall", *digit = path + 25, first;
	int fd;
	ssize_t n;

	/* Leading zeros are not taken: the number is moved up to its slash. */
	for (uint32_t t = (uint32_t)tid; t; t /= 10)
		*digit-- = (char)('0' + t % 10);
	memmove(path + 16, digit + 1, strlen(digit + 1) + 1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return UNKNOWN;
	n = read(fd, &first, 1);
	close(fd);
	if (n != 1)
		return UNKNOWN;
	return first == '-' ? IN_PROGRAM : first == 'r' ? AWAKE : IN_CALL;
}

/* => false: it is no thread of ours; another process reads our memory */
static bool send_sigbus(const struct uffd_access *a)
{
	siginfo_t info;

	memset(&info, 0, sizeof info);
	info.si_signo = SIGBUS;
	info.si_code = SI_QUEUE;
	info.si_addr = a->address;
	return syscall(SYS_rt_tgsigqueueinfo, getpid(), a->tid, SIGBUS, &info) == 0 ||
	       errno != ESRCH;
}

/* Lines of /proc/self/maps: "start-end rwxp ...". */
struct maps {
	uintptr_t bound[2];
	unsigned field;
	int protection;
};

/* => true: this was the last letter of the protection of page */
static bool next_letter(struct maps *m, char c, uintptr_t page)
{
	if (c == '\n') {
		*m = (struct maps){ .field = 0 };
	} else if (m->field < 2) {
		if (c == '-' || c == ' ')
			m->field++;
		else
			m->bound[m->field] = m->bound[m->field] << 4 |
			                     (uintptr_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	} else if (m->field < 5) {
		m->protection |= c == 'r' ? PROT_READ :
		                 c == 'w' ? PROT_WRITE :
		                 c == 'x' ? PROT_EXEC :
		                            0;
		return ++m->field == 5 && m->bound[0] <= page && page < m->bound[1];
	}
	return false;
}

/* What the program has made of the page by mprotect. */
static int protection_of(const char *page)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	struct maps m = { .field = 0 };
	bool found = false;
	char text[1024];
	ssize_t n;

	while (fd >= 0 && !found && (n = read(fd, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < n && !found; i++)
			found = next_letter(&m, text[i], (uintptr_t)page);
	if (fd >= 0)
		close(fd);
	return found ? m.protection : PROT_READ | PROT_WRITE;
}

static void pause_for_a_moment(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = MOMENT_NS }, NULL);
}

/* A file mapping beyond the end of its file: an access raises SIGBUS, and fails a system call. */
static bool cover(char *at, int protection)
{
	int fd = (int)syscall(SYS_memfd_create, "quire lost page", 1u /* MFD_CLOEXEC */);
	bool done;

	if (fd < 0)
		return false;
	done = kernel_replace(at, PAGE_BYTES, protection, 0, fd) != NULL;
	close(fd);
	return done;
}

/*
 * As it was: alike in all, it becomes one with its neighbours. Inaccessible until
 * its faults are ours again. If the kernel refuses, accesses go on to fail.
 */
static void uncover(struct engine *e, struct quire_region *r, char *at, int protection)
{
	char name[REGION_NAME_BYTES + 8] = "quire ";

	if (!kernel_replace(at, PAGE_BYTES, PROT_NONE, MAP_ANONYMOUS | MAP_NORESERVE, -1))
		return;
	memcpy(name + 6, r->name, REGION_NAME_BYTES);
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, PAGE_BYTES, name);
	kernel_madvise(at, PAGE_BYTES, MADV_NOHUGEPAGE);
	kernel_madvise(at, PAGE_BYTES, MADV_DONTFORK);
	if (e->ops->attach(e, r, at, PAGE_BYTES) == 0)
		mprotect(at, PAGE_BYTES, protection);
}

/* The page is absent and its entry held: nothing is lost, and nobody maps it meanwhile. */
static void shut(struct engine *e, struct quire_region *r, uint64_t page)
{
	entry_t *entry = region_entry(r, page);
	uint64_t held = atomic_load(entry);
	char *at = region_page(r, page);
	int protection;

	if (entry_state(held) == ENTRY_MAPPED || entry_state(held) == ENTRY_READING ||
	    !region_touch_leaf(r, page) || !entry_try(entry, held)) {
		/* Others are at the page: it may be served by now. Or there is no memory to hold it. */
		pause_for_a_moment();
		uffd_wake(e, at, 1);
		return;
	}
	protection = protection_of(at);
	if (cover(at, protection)) {
		uffd_wake(e, at, 1);
		pause_for_a_moment();
		uncover(e, r, at, protection);
	}
	entry_publish(r, page, held);
}

/* A signal has woken it: most often it faults again, and can be told then. => true: it never sleeps */
static bool is_restless(struct uffd_restless *last, const struct uffd_access *a)
{
	if (last->tid != a->tid || last->address != a->address)
		*last = (struct uffd_restless){ .tid = a->tid, .address = a->address };
	return ++last->times >= RESTLESS;
}

void uffd_tell(struct engine *e, struct quire_region *r, const struct uffd_access *a)
{
	uint64_t page = (uint64_t)(a->address - r->base) >> PAGE_SHIFT;
	enum whereabouts where = whereabouts(a->tid);

	if (where == IN_PROGRAM || where == UNKNOWN)
		send_sigbus(a);
	/* It has the signal then, or faults again and waits once more. */
	uffd_wake(e, region_page(r, page), 1);
}

void uffd_refuse(struct engine *e, struct quire_region *r, const struct uffd_access *a,
                 struct uffd_restless *restless)
{
	uint64_t page = (uint64_t)(a->address - r->base) >> PAGE_SHIFT;
	enum whereabouts where = whereabouts(a->tid);

	if (where == AWAKE && !is_restless(restless, a)) {
		uffd_wake(e, region_page(r, page), 1);
		return;
	}
	restless->times = 0;
	if ((where == IN_PROGRAM || where == UNKNOWN) && send_sigbus(a))
		return;
	shut(e, r, page);
}
