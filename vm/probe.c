/* SPDX-License-Identifier: MIT */
/* vm/probe.c - quire_probe: what is allowed here, tried on throw-away objects. */
#include "guard/guard.h"
#include "vm/cover.h"
#include "vm/uffd.h"
#include "vm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void quire_probe(struct quire_probe *out)
{
	int fd;

	memset(out, 0, sizeof *out);
	uffd_probe(out);
	out->io_uring = swapfile_probe_uring();
	out->seccomp_trap = guard_probe();
	fd = (int)syscall(SYS_memfd_create, "quire probe", 1u /* MFD_CLOEXEC */);
	out->memory_file = fd < 0 ? errno : 0;
	if (fd >= 0 && ftruncate(fd, PAGE_BYTES) != 0)
		out->memory_file = errno;
	cover_probe(out, fd);
	if (fd >= 0)
		close(fd);
}
