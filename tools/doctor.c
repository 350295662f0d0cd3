/* SPDX-License-Identifier: MIT */
/*
 * tools/doctor.c - quire doctor: what this machine, container and user allow, what
 * Quire does with that, and the setting that would allow more; see tool.h.
 *
 * Facts come from quire_probe and system.c, the choice from quire_open itself.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define ADVICE_MAX 16
#define CAP_SYS_PTRACE 19

struct advice {
	const char *why;
	char how[400];
};

struct report {
	struct utsname kernel;
	struct quire_probe probe;
	struct limits limits;
	struct swap_place swap;
	bool opens, serves_calls;
	char engine[32], io[32], choice[2048]; /* or why it does not open */
	uint64_t budget;
	struct advice advice[ADVICE_MAX];
	unsigned advices;
};

static void advise(struct report *r, const char *why, const char *how, ...)
	__attribute__((format(printf, 3, 4)));

static void advise(struct report *r, const char *why, const char *how, ...)
{
	struct advice *a = &r->advice[r->advices];
	va_list arguments;

	if (r->advices == ADVICE_MAX)
		return;
	r->advices++;
	a->why = why;
	va_start(arguments, how);
	vsnprintf(a->how, sizeof a->how, how, arguments);
	va_end(arguments);
}

/* -------------------------------------------------------------- advice */

static const char profile[] =
	"in the container's seccomp profile: { \"names\": [%s], \"action\": \"SCMP_ACT_ALLOW\" }, given by "
	"docker run --security-opt seccomp=FILE, or in Kubernetes securityContext.seccompProfile";

static bool filtered(const struct report *r, int error)
{
	return r->limits.seccomp == 2 && (error == EPERM || error == ENOSYS);
}

static void advise_userfaultfd(struct report *r)
{
	const struct quire_probe *p = &r->probe;
	bool whole = p->uffd_device == 0 || p->uffd_call == 0;

	if (whole && p->uffd_write_protect)
		return;
	if (whole || p->uffd_user == 0) {
		if (!p->uffd_write_protect) {
			advise(r, "userfaultfd of this kernel cannot write-protect",
			       "Linux 5.7 or newer, on x86-64 or arm64");
			return;
		}
		if (r->serves_calls)
			return;
		advise(r,
		       "system calls on absent pages fail with EFAULT: userfaultfd is allowed for "
		       "faults of the program alone",
		       "one of: sysctl -w vm.unprivileged_userfaultfd=1; access to "
		       "/dev/userfaultfd (%s), as by docker run --device /dev/userfaultfd; "
		       "CAP_SYS_PTRACE, as by docker run --cap-add SYS_PTRACE",
		       strerror(p->uffd_device));
		return;
	}
	if (filtered(r, p->uffd_user)) {
		advise(r, "userfaultfd(2) is refused by a seccomp filter", profile,
		       "\"userfaultfd\"");
		advise(r, "the same without changing the profile",
		       "access to /dev/userfaultfd (%s): docker run --device /dev/userfaultfd, and "
		       "permission for the user",
		       strerror(p->uffd_device));
		return;
	}
	advise(r, "there is no userfaultfd",
	       p->uffd_user == ENOSYS ? "a kernel with CONFIG_USERFAULTFD (gVisor has none)" :
	                                "userfaultfd(2) says: %s",
	       strerror(p->uffd_user));
}

static void advise_guard(struct report *r)
{
	if (r->opens && !r->serves_calls && r->probe.seccomp_trap == 0)
		advise(r, "system calls on absent pages fail with EFAULT, unless they are guarded",
		       "QUIRE_GUARD=on, which needs no privilege; other calls take up to 0.1 us "
		       "longer");
}

static void advise_io(struct report *r)
{
	int error = r->probe.io_uring;

	if (error == 0)
		return;
	if (filtered(r, error))
		advise(r, "io_uring is refused by a seccomp filter: eight threads read and write",
		       profile, "\"io_uring_setup\", \"io_uring_enter\", \"io_uring_register\"");
	else if (error == EPERM)
		advise(r, "io_uring is forbidden: eight threads read and write",
		       "sysctl -w kernel.io_uring_disabled=0");
	else if (error == ENOMEM)
		advise(r, "io_uring has no memory for a ring", "a larger limit: ulimit -l");
	else
		advise(r, "there is no io_uring: eight threads read and write",
		       "Linux 5.6 or newer; it says: %s", strerror(error));
}

static void advise_cover(struct report *r)
{
	const struct quire_probe *p = &r->probe;

	if (strcmp(r->engine, "sigsegv") != 0)
		return;
	if (p->guard_pages != 0)
		advise(r, "without guard pages few scattered pages can be in memory at once",
		       "Linux 6.15 or newer; or sysctl -w vm.max_map_count=1048576 (now %u)",
		       p->max_map_count);
	else if (filtered(r, p->process_madvise))
		advise(r, "scattered pages are evicted one by one", profile, "\"process_madvise\"");
}

static void advise_system(struct report *r)
{
	const struct limits *l = &r->limits;

	if (r->swap.error)
		advise(r, "the swap file cannot be made",
		       "QUIRE_SWAP, a directory that can be written to, on a disk; %s says: %s",
		       r->swap.path, strerror(r->swap.error));
	else if (r->swap.in_memory)
		advise(r, "pages that are swapped out stay in memory",
		       "QUIRE_SWAP, a directory on a disk; %s is %s", r->swap.path, r->swap.type);
	else if (r->swap.direct)
		advise(r, "the swap file goes through the page cache",
		       "QUIRE_SWAP on a file system with O_DIRECT; %s (%s) says: %s", r->swap.path,
		       r->swap.type, strerror(r->swap.direct));
	if (!r->swap.error && r->swap.free < r->budget)
		advise(r, "the disk has room for less than the budget",
		       "QUIRE_SWAP, a directory with more than %llu MiB free",
		       (unsigned long long)r->swap.free >> 20);
	if (r->budget > l->cgroup_memory)
		advise(r, "the budget is larger than the cgroup's memory: the kernel would kill",
		       "QUIRE_MEMORY=%lluM or less (%s)",
		       (unsigned long long)(l->cgroup_memory >> 20) * 3 / 4, l->cgroup_file);
	if (l->descriptors < 256)
		advise(r, "a pager takes thirteen descriptors, and eight more to be faster",
		       "a larger limit: ulimit -n (now %llu)", (unsigned long long)l->descriptors);
	if (l->file_size != UINT64_MAX)
		advise(r, "the size of files is limited",
		       "ulimit -f unlimited (now %llu bytes): of the swap file, and the engine "
		       "sigsegv does not work with any limit",
		       (unsigned long long)l->file_size);
}

/* It does not open, and nothing above says why. */
static void advise_opening(struct report *r)
{
	if (r->opens)
		return;
	if (r->limits.address_space != UINT64_MAX)
		advise(r, "Quire does not open, and address space is limited",
		       "ulimit -v unlimited (now %llu MiB), or a smaller QUIRE_MEMORY: addresses "
		       "are reserved for several times the budget",
		       (unsigned long long)r->limits.address_space >> 20);
	if (r->advices == 0)
		advise(r, "Quire does not open with these options",
		       "the option that is named above");
}

static void examine(struct report *r, struct quire_options *options)
{
	const char *named = options->swap_path ? options->swap_path : getenv("QUIRE_SWAP");
	/* A diagnosis leaves no swap file behind. */
	bool made = named && *named && access(named, F_OK) != 0;
	quire_t *q = NULL;

	memset(r, 0, sizeof *r);
	uname(&r->kernel);
	quire_probe(&r->probe);
	limits_read(&r->limits);
	swap_place_read(&r->swap, options->swap_path);
	r->opens = quire_open(&q, options) == 0;
	snprintf(r->choice, sizeof r->choice, "%s",
	         r->opens ? quire_choice(q) : quire_error_message());
	if (r->opens) {
		r->serves_calls = quire_serves_calls(q);
		snprintf(r->engine, sizeof r->engine, "%s", quire_engine_name(q));
		snprintf(r->io, sizeof r->io, "%s", quire_io_name(q));
		r->budget = quire_memory(q);
		quire_close(q);
	}
	if (made && r->opens)
		unlink(named);
	advise_userfaultfd(r);
	advise_guard(r);
	advise_io(r);
	advise_cover(r);
	advise_system(r);
	advise_opening(r);
}

/* ----------------------------------------------------------- for people */

static void row(const char *what, const char *how, ...) __attribute__((format(printf, 2, 3)));

static void row(const char *what, const char *how, ...)
{
	va_list arguments;

	printf("  %-32s ", what);
	va_start(arguments, how);
	vprintf(how, arguments);
	va_end(arguments);
	putchar('\n');
}

static void works(const char *what, int error)
{
	row(what, "%s%s", error ? "no: " : "yes", error ? strerror(error) : "");
}

static void size_row(const char *what, uint64_t bytes, const char *none)
{
	if (bytes == UINT64_MAX)
		row(what, "%s", none);
	else
		row(what, "%.1f MiB", (double)bytes / 0x1p20);
}

static void print_text(const struct report *r)
{
	const struct quire_probe *p = &r->probe;
	const struct limits *l = &r->limits;

	printf("This machine: %s %s %s, %u processors, %.1f GiB of memory\n", r->kernel.sysname,
	       r->kernel.release, r->kernel.machine, l->processors, (double)l->memory / 0x1p30);
	printf("\nuserfaultfd\n");
	works("/dev/userfaultfd", p->uffd_device);
	works("userfaultfd(2)", p->uffd_call);
	works("  for the program's own faults", p->uffd_user);
	row("can", "%s%s%s%s%s",
	    p->uffd_write_protect ? "write-protect" : "nothing that Quire needs",
	    p->uffd_signal ? ", SIGBUS" : "", p->uffd_thread_id ? ", thread numbers" : "",
	    p->uffd_move ? ", UFFDIO_MOVE" : "", p->uffd_poison ? ", UFFDIO_POISON" : "");
	printf("\nWithout it\n");
	works("memfd_create(2)", p->memory_file);
	works("guard pages", p->guard_pages);
	works("process_madvise(2) on itself", p->process_madvise);
	works("the guard's seccomp filter", p->seccomp_trap);
	row("vm.max_map_count", "%u", p->max_map_count);
	printf("\nSwap file\n");
	works("io_uring", p->io_uring);
	row("place", "%s, on %s%s", r->swap.path, r->swap.type,
	    r->swap.error ? ": cannot be written to" : "");
	works("O_DIRECT", r->swap.direct);
	size_row("free", r->swap.free, "");
	size_row("the kernel's own swap", l->kernel_swap, "");
	printf("\nLimits\n");
	size_row("memory, by cgroup", l->cgroup_memory, "none");
	if (l->cpus > 0)
		row("processors, by cgroup", "%.2f", l->cpus);
	else
		row("processors, by cgroup", "none");
	size_row("address space (ulimit -v)", l->address_space, "none");
	size_row("size of files (ulimit -f)", l->file_size, "none");
	size_row("locked memory (ulimit -l)", l->locked_memory, "none");
	row("descriptors (ulimit -n)", "%llu", (unsigned long long)l->descriptors);
	row("seccomp", "%s", l->seccomp == 2 ? "a filter" : l->seccomp == 0 ? "off" : "unknown");
	row("CAP_SYS_PTRACE", "%s", l->capabilities >> CAP_SYS_PTRACE & 1 ? "yes" : "no");
	printf("\nWhat Quire does here\n");
	for (const char *line = r->choice; *line;) {
		int n = (int)strcspn(line, "\n");

		printf("  %.*s\n", n, line);
		line += n + (line[n] == '\n');
	}
	if (r->opens)
		size_row("budget, unless told otherwise", r->budget, "");
	printf("\n%s\n", r->advices ? "What would be better" : "Nothing to improve.");
	for (unsigned i = 0; i < r->advices; i++)
		printf("  - %s\n    %s\n", r->advice[i].why, r->advice[i].how);
}

/* ---------------------------------------------------------- for programs */

static void json_text(const char *name, const char *text, const char *end)
{
	printf("\"%s\": ", name);
	json_string(text);
	fputs(end, stdout);
}

/* => true if it works, else the words of the errno */
static void json_works(const char *name, int error, const char *end)
{
	if (error)
		json_text(name, strerror(error), end);
	else
		printf("\"%s\": true%s", name, end);
}

static void json_limit(const char *name, uint64_t value, const char *end)
{
	if (value == UINT64_MAX)
		printf("\"%s\": null%s", name, end);
	else
		printf("\"%s\": %llu%s", name, (unsigned long long)value, end);
}

static const char *truth(bool value)
{
	return value ? "true" : "false";
}

static void print_json(const struct report *r, int status)
{
	const struct quire_probe *p = &r->probe;
	const struct limits *l = &r->limits;

	printf("{\n  \"status\": %d,\n  ", status);
	json_text("kernel", r->kernel.release, ", ");
	json_text("machine", r->kernel.machine, ",\n  \"userfaultfd\": {");
	json_works("device", p->uffd_device, ", ");
	json_works("call", p->uffd_call, ", ");
	json_works("user_faults", p->uffd_user, ",\n    ");
	printf("\"write_protect\": %s, \"sigbus\": %s, \"thread_id\": %s, \"move\": %s, "
	       "\"poison\": %s},\n  ",
	       truth(p->uffd_write_protect), truth(p->uffd_signal), truth(p->uffd_thread_id),
	       truth(p->uffd_move), truth(p->uffd_poison));
	json_works("memfd_create", p->memory_file, ", ");
	json_works("guard_pages", p->guard_pages, ", ");
	json_works("process_madvise", p->process_madvise, ", ");
	json_works("seccomp_trap", p->seccomp_trap, ", ");
	json_works("io_uring", p->io_uring, ",\n  ");
	printf("\"max_map_count\": %u,\n  \"swap\": {", p->max_map_count);
	json_text("path", r->swap.path, ", ");
	json_text("file_system", r->swap.type, ", ");
	json_works("usable", r->swap.error, ", ");
	json_works("o_direct", r->swap.direct, ", ");
	json_limit("free", r->swap.free, "},\n  \"limits\": {");
	json_limit("memory", l->memory, ", ");
	json_limit("cgroup_memory", l->cgroup_memory, ", ");
	printf("\"cgroup_cpus\": ");
	if (l->cpus > 0)
		printf("%.3f, ", l->cpus);
	else
		printf("null, ");
	json_limit("kernel_swap", l->kernel_swap, ",\n    ");
	json_limit("address_space", l->address_space, ", ");
	json_limit("file_size", l->file_size, ", ");
	json_limit("locked_memory", l->locked_memory, ", ");
	json_limit("descriptors", l->descriptors, ", ");
	printf("\"seccomp\": %d},\n  \"opens\": %s, ", l->seccomp, truth(r->opens));
	json_text("engine", r->engine, ", ");
	json_text("io", r->io, ", ");
	printf("\"serves_system_calls\": %s, ", truth(r->serves_calls));
	json_limit("budget", r->budget, ",\n  ");
	json_text("choice", r->choice, ",\n  \"advice\": [");
	for (unsigned i = 0; i < r->advices; i++) {
		printf("%s\n    {", i ? "," : "");
		json_text("why", r->advice[i].why, ", ");
		json_text("how", r->advice[i].how, "}");
	}
	printf("%s]\n}\n", r->advices ? "\n  " : "");
}

/* ------------------------------------------------------------------ main */

static void help(void)
{
	puts("Usage: quire doctor [--json] [--OPTION VALUE...]\n"
	     "Tell what this machine, container and user allow of what Quire can use, what it\n"
	     "does with that, and which setting would allow more.\n\n"
	     "  --json   the same for programs\n"
	     "  --help   this text\n\n"
	     "Exit status: 0 nothing to improve, 1 Quire works and could do better, 2 it does not\n"
	     "work here, 64 usage.\n\n"
	     "Options of the library, as a program would give them:");
	quire_options_print(stdout);
}

static int usage(const char *what, const char *word)
{
	fprintf(stderr, "quire doctor: %s: %s\nTry 'quire doctor --help'.\n", word, what);
	return STATUS_USAGE;
}

/* An empty value is refused, but for that the name must be known. */
static bool is_option(const char *name)
{
	struct quire_options none = { .size = sizeof none };

	return quire_options_set(&none, name, "") == 0 ||
	       strncmp(quire_error_message(), "unknown", 7) != 0;
}

int doctor_main(int argc, char **argv)
{
	struct quire_options options = { .size = sizeof options };
	static struct report report;
	bool json = false;
	int status;

	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value;
		char name[32];

		if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
			help();
			return fflush(stdout) ? 1 : 0;
		}
		if (!strcmp(word, "--json")) {
			json = true;
			continue;
		}
		if (strncmp(word, "--", 2) != 0)
			return usage("not an option", word);
		value = strchr(word, '=');
		snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
		if (!value && i + 1 == argc)
			return usage(is_option(name) ? "a value is missing" : quire_error_message(),
			             word);
		value = value ? value + 1 : argv[++i];
		if (quire_options_set(&options, name, value) != 0)
			return usage(quire_error_message(), word);
	}
	examine(&report, &options);
	status = !report.opens ? 2 : report.advices ? 1 : 0;
	if (json)
		print_json(&report, status);
	else
		print_text(&report);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "quire doctor: standard output: %s\n", strerror(errno));
		return 2;
	}
	return status;
}
