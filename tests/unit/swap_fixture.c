/* SPDX-License-Identifier: MIT */
/* tests/unit/swap_fixture.c - see swap_fixture.h. */
#include "tests/unit/swap_fixture.h"

#include "base/error.h"
#include "tests/unit/pattern.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

char test_dir[] = "/var/tmp/quire-swapfile-test-XXXXXX";

const char *in_dir(const char *name)
{
	static char path[4][4200];
	static unsigned turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof path[0], "%s/%s", test_dir, name);
	return p;
}

int open_at(struct swapfile **s, const char *path)
{
	struct swapfile_options o = { .path = path };

	return swapfile_open(s, &o);
}

bool says(const char *words)
{
	if (strstr(error_message(), words))
		return true;
	printf("message: %s\n", error_message());
	return false;
}

unsigned entries(void)
{
	char command[4200];
	unsigned n = 0;
	FILE *f;

	snprintf(command, sizeof command, "ls -A '%s' | wc -l", test_dir);
	f = popen(command, "r");
	if (!f || fscanf(f, "%u", &n) != 1)
		n = 9999;
	if (f)
		pclose(f);
	return n;
}

int in_child(int (*work)(void))
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (child == 0)
		_exit(work());
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) ? 200 + WTERMSIG(status) : WEXITSTATUS(status);
}

void *pages_new(unsigned n)
{
	void *p = mmap(NULL, n * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	               -1, 0);

	REQUIRE(p != MAP_FAILED);
	return p;
}

struct swap_run run_of(enum swap_op op, slot_t slot, unsigned count, void *pages)
{
	return (struct swap_run){ .op = op,
		                  .slot = slot,
		                  .count = count,
		                  .base = pages,
		                  .pages = bits(0, count) };
}

int write_slots(struct swapfile *s, slot_t first, unsigned count, void *pages)
{
	struct swap_run r = run_of(SWAP_WRITE, first, count, pages);

	for (unsigned i = 0; i < count; i++)
		pattern_fill(swap_run_page(&r, i), first + i);
	return swapfile_transfer(s, &r);
}

bool slots_hold(struct swapfile *s, slot_t first, unsigned count, void *pages)
{
	struct swap_run r = run_of(SWAP_READ, first, count, pages);

	memset(pages, 0xee, count * PAGE_BYTES);
	if (swapfile_transfer(s, &r) != 0 || r.bad)
		return false;
	for (unsigned i = 0; i < count; i++)
		if (!pattern_holds(swap_run_page(&r, i), first + i))
			return false;
	return true;
}

int swap_main(int argc, char **argv, const char *suite, const struct unit_test *tests)
{
	int status;

	if (!mkdtemp(test_dir))
		unit_skip_all("/var/tmp cannot be written to");
	status = unit_main(argc, argv, suite, tests);
	if (rmdir(test_dir) != 0) {
		printf("FAIL: files were left in %s\n", test_dir);
		status = 1;
	}
	return status;
}
