/* SPDX-License-Identifier: MIT */
/*
 * bench/swap.c - the kernel's turn: a swap file and a memory cgroup.
 *
 * The cgroup (version 1 or 2, whichever has the memory controller) is limited
 * to the budget, plus the page tables of the region, plus 1 MiB for the rest of
 * the process: the kernel charges those too, while Quire's budget is managed
 * memory alone. The swap file lies in the same directory as Quire's and the raw
 * file, written whole so that no block of it is a hole, and has the highest
 * priority. It is more than twice the region, since beyond half full the kernel
 * drops the copy of each page that it swaps in, and would be slower.
 *
 * Everything made here is removed at exit, also after a signal; what is made is
 * first written to the --state file, from which bench/run cleans up after a
 * benchmark that was killed. Neighbours: bench.c opens and closes, memory.c enters.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <unistd.h>

#define ALLOWANCE MIB

static char swap_path[4096], cgroup[4096], terms[512];
static bool made_file, made_swap, made_cgroup;

static int write_text(const char *dir, const char *name, const char *text)
{
	char path[4200];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, text, strlen(text));
	int err = n < 0 ? -errno : 0;
	close(fd);
	return err;
}

static bool has_word(const char *dir, const char *name, const char *word)
{
	char path[4200], text[1024] = "";

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	bool found = false;
	while (!found && fscanf(f, "%1023s", text) == 1)
		found = !strcmp(text, word);
	fclose(f);
	return found;
}

/* Where the memory controller is. => its version, 0: nowhere */
static int find_controller(char *root, size_t size)
{
	FILE *f = setmntent("/proc/mounts", "r");
	struct mntent *e;
	int version = 0;

	while (f && !version && (e = getmntent(f))) {
		if (!strcmp(e->mnt_type, "cgroup") && hasmntopt(e, "memory"))
			version = 1;
		else if (!strcmp(e->mnt_type, "cgroup2") &&
		         has_word(e->mnt_dir, "cgroup.controllers", "memory"))
			version = 2;
		if (version)
			snprintf(root, size, "%s", e->mnt_dir);
	}
	if (f)
		endmntent(f);
	return version;
}

static void note(const struct settings *s, const char *what, const char *path)
{
	FILE *f = s->state ? fopen(s->state, "ae") : NULL;

	if (f) {
		fprintf(f, "%s %s\n", what, path);
		fclose(f);
	}
}

static int make_cgroup(const struct settings *s, const char *root, int version)
{
	char limit[32];
	size_t tables = s->region / 512;
	int err;

	snprintf(cgroup, sizeof cgroup, "%.3900s/quire-bench-%d", root, (int)getpid());
	note(s, "cgroup", cgroup);
	if (mkdir(cgroup, 0755))
		return -errno;
	made_cgroup = true;
	snprintf(limit, sizeof limit, "%zu", s->memory + tables + ALLOWANCE);
	err = write_text(cgroup, version == 1 ? "memory.limit_in_bytes" : "memory.max", limit);
	if (err)
		return err;
	/* Version 2 has no swappiness of its own. All the charged memory is anonymous anyway. */
	if (version == 1)
		err = write_text(cgroup, "memory.swappiness", "100");
	snprintf(terms, sizeof terms,
	         "memory cgroup v%d of %zu MiB + %.1f MiB page tables + %zu MiB for the process, "
	         "swappiness %s, swap file of %zu MiB",
	         version, s->memory / MIB, (double)tables / MIB, ALLOWANCE / MIB,
	         version == 1 ? "100" : "as the system's", s->swap_size / MIB);
	return err;
}

/* What mkswap(8) writes. */
static int write_header(int fd)
{
	struct {
		char boot[1024];
		uint32_t version, last_page, bad_pages;
		char rest[PAGE - 1024 - 12 - 10];
		char magic[10];
	} __attribute__((packed)) *h = aligned_alloc(PAGE, PAGE);
	struct stat st;

	_Static_assert(sizeof *h == PAGE, "the header is one page");
	if (!h || fstat(fd, &st)) {
		free(h);
		return -ENOMEM;
	}
	memset(h, 0, PAGE);
	h->version = 1;
	h->last_page = (uint32_t)((size_t)st.st_size / PAGE - 1);
	memcpy(h->magic, "SWAPSPACE2", 10);
	ssize_t n = pwrite(fd, h, PAGE, 0);
	int err = n == (ssize_t)PAGE ? fsync(fd) ? -errno : 0 : -EIO;
	free(h);
	return err;
}

static int make_swap(const struct settings *s)
{
	snprintf(swap_path, sizeof swap_path, "%.3900s/quire-bench-%d.swap", s->dir, (int)getpid());
	note(s, "swap", swap_path);
	int fd = open(swap_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
	if (fd < 0)
		return -errno;
	made_file = true;
	int err = write_noise(fd, s->swap_size);
	if (!err)
		err = write_header(fd);
	close(fd);
	if (err)
		return err;
	if (swapon(swap_path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK))
		return -errno;
	made_swap = true;
	return 0;
}

bool swap_open(const struct settings *s, char *why, size_t size)
{
	char root[4096];
	int err, version = find_controller(root, sizeof root);

	if (!version) {
		snprintf(why, size, "no memory cgroup controller is mounted");
		return false;
	}
	if (version == 2 && !has_word(root, "cgroup.subtree_control", "memory")) {
		snprintf(why, size, "\"memory\" is not in %.200s/cgroup.subtree_control", root);
		return false;
	}
	atexit(swap_close);
	err = make_cgroup(s, root, version);
	if (err) {
		snprintf(why, size, "cannot make a memory cgroup in %.200s: %s", root,
		         strerror(-err));
		swap_close();
		return false;
	}
	err = make_swap(s);
	if (err) {
		snprintf(why, size, "cannot make and use a swap file in %.200s: %s", s->dir,
		         strerror(-err));
		swap_close();
		return false;
	}
	return true;
}

/* Its children are gone by now. A cgroup may stay busy for a moment after them. */
void swap_close(void)
{
	if (made_swap && swapoff(swap_path))
		fprintf(stderr, "bench: swapoff %s: %s\n", swap_path, strerror(errno));
	made_swap = false;
	if (made_file && unlink(swap_path))
		fprintf(stderr, "bench: unlink %s: %s\n", swap_path, strerror(errno));
	made_file = false;
	int err = 0;
	for (int i = 0; made_cgroup && i < 50; i++) {
		err = rmdir(cgroup) ? errno : 0;
		if (err != EBUSY)
			break;
		usleep(20000);
	}
	if (err)
		fprintf(stderr, "bench: rmdir %s: %s\n", cgroup, strerror(err));
	made_cgroup = false;
}

void swap_enter(void)
{
	int err = write_text(cgroup, "cgroup.procs", "0");

	if (err)
		give_up(OUT_FAILED, "cannot enter %.100s: %s", cgroup, strerror(-err));
}

const char *swap_terms(void)
{
	return terms;
}
