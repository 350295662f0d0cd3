/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/choice.c - what "auto" chooses, and the reasons it gives: here, and
 * where calls are refused by a seccomp filter, as containers do.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As root /dev/userfaultfd would do without the system call. */
static void give_up_root(void)
{
	if (getuid() == 0)
		MUST(setgid(65534) == 0 && setuid(65534) == 0);
}

static void refuse(const unsigned *calls, unsigned n, int error)
{
	struct sock_filter code[8];
	struct sock_fprog program = { .len = (unsigned short)(n + 3), .filter = code };

	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
	                                       offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i],
		                                           (unsigned char)(n - i), 0);
	code[n + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
	                                           SECCOMP_RET_ERRNO | (unsigned)error);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

static void works(quire_t *q)
{
	quire_region_t *r = region_create(q, 4 * MIB);

	fill(r, 0, 1024, 1);
	MUST(wrong(r, 0, 1024, 1) == 0);
	MUST(quire_close(q) == 0);
}

static void no_userfaultfd(void *error)
{
	static const unsigned calls[] = { SYS_userfaultfd };
	struct quire_probe p;
	quire_t *q;

	give_up_root();
	refuse(calls, 1, *(int *)error);
	quire_probe(&p);
	MUST(p.uffd_device != 0 && p.uffd_call == *(int *)error && p.uffd_user == *(int *)error);
	MUST(!p.uffd_write_protect && p.memory_file == 0);
	q = pager_open(MIB);
	printf("%s", quire_choice(q));
	MUST(strcmp(quire_engine_name(q), "sigsegv") == 0);
	MUST(strstr(quire_choice(q), "uffd-signal: userfaultfd is "));
	MUST(strstr(quire_choice(q), "seccomp"));
	works(q);
}

static void no_io_uring(void *error)
{
	static const unsigned calls[] = { 425 };
	quire_t *q;

	refuse(calls, 1, *(int *)error);
	q = pager_open(MIB);
	printf("%s", quire_choice(q));
	MUST(strcmp(quire_io_name(q), "sync") == 0);
	MUST(strstr(quire_choice(q), "tried in vain: uring is "));
	works(q);
}

/* Not even these: it is said what is missing. */
static void nothing(void *error)
{
	static const unsigned calls[] = { SYS_userfaultfd, SYS_memfd_create };
	quire_t *q = NULL;

	give_up_root();
	refuse(calls, 2, *(int *)error);
	MUST(quire_open(&q, NULL) == -ENOTSUP);
	printf("%s\n", quire_error_message());
	MUST(strstr(quire_error_message(), "userfaultfd"));
	MUST(strstr(quire_error_message(), "memfd_create"));
}

static void refused(void)
{
	static int errors[] = { EPERM, ENOSYS };

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(in_child(no_userfaultfd, &errors[i], 20), 0);
		CHECK_EQ(in_child(no_io_uring, &errors[i], 20), 0);
		CHECK_EQ(in_child(nothing, &errors[i], 20), 0);
	}
}

/* What was chosen is what the probe says works. */
static void first_choice(void)
{
	quire_t *q = pager_open(MIB);
	struct quire_probe p;

	memset(&p, 0xff, sizeof p);
	quire_probe(&p);
	CHECK_EQ(!strcmp(quire_io_name(q), "uring"), p.io_uring == 0);
	CHECK_EQ(!strcmp(quire_engine_name(q), "uffd"),
	         (p.uffd_device == 0 || p.uffd_call == 0) && p.uffd_write_protect);
	CHECK(p.max_map_count >= 1000);

	printf("%s", quire_choice(q));
	CHECK(strstr(quire_choice(q), quire_engine_name(q)) != NULL);
	CHECK(strstr(quire_choice(q), quire_io_name(q)) != NULL);
	CHECK_EQ(quire_close(q), 0);
}

static void as_asked_for(void)
{
	struct quire_options o = { .size = sizeof o,
		                   .memory = MIB,
		                   .engine = "sigsegv",
		                   .io = "sync",
		                   .guard_pages = "off" };
	quire_t *q = pager_open_options(&o);

	CHECK(strstr(quire_choice(q), "engine sigsegv (as asked for)") != NULL);
	CHECK(strstr(quire_choice(q), "without guard pages") != NULL);
	CHECK(strstr(quire_choice(q), "io sync (as asked for)") != NULL);
	CHECK_EQ(quire_close(q), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = { UNIT(first_choice), UNIT(as_asked_for),
		                                  UNIT(refused), UNIT_END };

	return unit_main(argc, argv, "choice", tests);
}
