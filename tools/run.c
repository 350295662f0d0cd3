/* SPDX-License-Identifier: MIT */
/*
 * tools/run.c - quire run: start a program that was never changed, with its heap on paged memory.
 *
 * What it decides it puts into the environment, for libquire-preload.so (preload/), and becomes the
 * program. Before that it does what can fail: it looks for the program as a shell would, and opens a pager
 * with the same options, so that nothing is half-started.
 */
#include "tool.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	STATUS_FAILED = 125, /* of quire run itself, as of env(1) */
	STATUS_CANNOT_EXECUTE = 126,
	STATUS_NOT_FOUND = 127
};

static void usage(FILE *f)
{
	fputs("Usage: quire run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	      "\n"
	      "Run a program with a heap larger than its memory: malloc and its like are on paged memory.\n"
	      "\n"
	      "  -m, --memory SIZE     the budget: bytes, or with K, M, G or T, or a percentage of the\n"
	      "                        memory there is (the machine's, or the cgroup's limit);\n"
	      "                        default 75%\n"
	      "  -c, --child SIZE      the budget of each process that it starts; percentages are of\n"
	      "                        the budget; default 50%\n"
	      "  -s, --swap PATH       directory, or file, for what does not fit\n"
	      "      --swap-size SIZE  the most that it may grow to\n"
	      "  -e, --engine NAME     auto, uffd, uffd-signal, sigsegv\n"
	      "      --policy NAME     clock, fifo, lru\n"
	      "  -x, --exclude NAMES   programs that are not paged when they are started by it;\n"
	      "                        shell patterns, separated by colons\n"
	      "      --stats[=FILE]    when it ends, statistics: a table to the standard error output,\n"
	      "                        or JSON into FILE (%p in it: the process's number, of each)\n"
	      "  -h, --help\n"
	      "\n"
	      "The exit status is the program's; 125: quire run failed itself, 126: PROGRAM cannot be\n"
	      "executed, 127: it was not found. The environment does the same: QUIRE_MEMORY, QUIRE_SWAP,\n"
	      "QUIRE_SWAP_SIZE, QUIRE_ENGINE, QUIRE_POLICY and the others of `quire doctor --help`.\n",
	      f);
}

static int fail(int status, const char *what, const char *why)
{
	fputs("quire run: ", stderr);
	print_plain(stderr, what);
	fprintf(stderr, "%s%s\n", *why ? ": " : "", why);
	return status;
}

/* ------------------------------------------------------------------ sizes */

/* "75%": => of what, in bytes; 0: it is none */
static uint64_t percentage(const char *text, uint64_t of)
{
	char *end;
	double percent = strtod(text, &end);

	if (end == text || strcmp(end, "%") != 0 || !(percent > 0 && percent <= 100))
		return 0;
	return (uint64_t)((double)of * percent / 100);
}

/* A size as options have it, or a percentage. => false: it makes no sense */
static bool read_size(const char *text, uint64_t of, uint64_t *out)
{
	struct quire_options o = { .size = sizeof o };

	*out = percentage(text, of);
	if (*out == 0) {
		if (quire_options_set(&o, "memory", text) != 0)
			return false;
		*out = o.memory;
	}
	*out -= *out % QUIRE_PAGE_SIZE;
	return true;
}

static void put_size(const char *name, uint64_t bytes)
{
	char text[32];

	snprintf(text, sizeof text, "%" PRIu64, bytes);
	setenv(name, text, 1);
}

/* ---------------------------------------------------------------- options */

struct run {
	const char *memory, *child;
	uint64_t bytes, child_bytes; /* of these */
	char **program;
};

/* => 0, or the exit status with what is wrong said */
static int decide_sizes(struct run *r)
{
	const char *memory = r->memory ? r->memory : getenv("QUIRE_MEMORY");
	uint64_t here = quire_memory_here();

	if (!memory || !*memory)
		memory = "75%";
	if (!read_size(memory, here, &r->bytes))
		return fail(STATUS_FAILED, memory,
		            "a budget is a size, as 256M, or a percentage, as 75%");
	if (!read_size(r->child ? r->child : "50%", r->bytes, &r->child_bytes))
		return fail(STATUS_FAILED, r->child,
		            "a child's budget is a size, as 64M, or a percentage, as 50%");
	if (r->child_bytes < QUIRE_MEMORY_MIN)
		r->child_bytes = QUIRE_MEMORY_MIN;
	put_size("QUIRE_MEMORY", r->bytes);
	put_size("QUIRE_RUN_CHILD", r->child_bytes);
	return 0;
}

/* => -1: go on; else the exit status */
static int read_options(int argc, char **argv, struct run *r)
{
	static const struct option options[] = { { "memory", required_argument, NULL, 'm' },
		                                 { "child", required_argument, NULL, 'c' },
		                                 { "swap", required_argument, NULL, 's' },
		                                 { "swap-size", required_argument, NULL, 'z' },
		                                 { "engine", required_argument, NULL, 'e' },
		                                 { "policy", required_argument, NULL, 'p' },
		                                 { "exclude", required_argument, NULL, 'x' },
		                                 { "stats", optional_argument, NULL, 't' },
		                                 { "help", no_argument, NULL, 'h' },
		                                 { NULL, 0, NULL, 0 } };
	static char name[] = "quire run";
	int c;

	argv[0] = name; /* in getopt's words */
	while ((c = getopt_long(argc, argv, "+m:c:s:e:x:h", options, NULL)) != -1)
		switch (c) {
		case 'm':
			r->memory = optarg;
			break;
		case 'c':
			r->child = optarg;
			break;
		case 's':
			setenv("QUIRE_SWAP", optarg, 1);
			break;
		case 'z':
			setenv("QUIRE_SWAP_SIZE", optarg, 1);
			break;
		case 'e':
			setenv("QUIRE_ENGINE", optarg, 1);
			break;
		case 'p':
			setenv("QUIRE_POLICY", optarg, 1);
			break;
		case 'x':
			setenv("QUIRE_RUN_EXCLUDE", optarg, 1);
			break;
		case 't':
			setenv("QUIRE_RUN_STATS", optarg ? optarg : "", 1);
			break;
		case 'h':
			usage(stdout);
			return fflush(stdout) ? STATUS_FAILED : 0;
		default:
			fputs("Try 'quire run --help'.\n", stderr);
			return STATUS_FAILED;
		}
	r->program = argv + optind;
	if (!*r->program) {
		usage(stderr);
		return STATUS_FAILED;
	}
	return -1;
}

/* ---------------------------------------------------------------- program */

/* => 0 with its path, or why not: ENOENT, EACCES ... */
static int find(const char *name, char *path, size_t size)
{
	const char *list = getenv("PATH");
	int error = ENOENT;

	if (strchr(name, '/')) {
		struct stat st;

		snprintf(path, size, "%s", name);
		if (stat(path, &st) != 0)
			return errno;
		if (S_ISDIR(st.st_mode))
			return EISDIR;
		return access(path, X_OK) == 0 ? 0 : errno;
	}
	if (!list)
		list = "/bin:/usr/bin";
	for (;;) {
		size_t n = strcspn(list, ":");
		struct stat st;

		snprintf(path, size, "%.*s%s%s", (int)n, list, n ? "/" : "./", name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return 0;
			error = errno;
		}
		if (!list[n])
			return error;
		list += n + 1;
	}
}

/* Does the loader read LD_PRELOAD for it? => NULL, or why not */
static const char *cannot_be_paged(const char *path)
{
	unsigned char head[4096];
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)head;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? pread(fd, head, sizeof head, 0) : -1;
	struct stat st;

	if (fd >= 0)
		close(fd);
	if (stat(path, &st) == 0 && ((st.st_mode & S_ISUID && st.st_uid != geteuid()) ||
	                             (st.st_mode & S_ISGID && st.st_gid != getegid())))
		return "it gains privileges when it is executed (set-user-ID or set-group-ID)";
	if (n < (ssize_t)sizeof *e || memcmp(head, ELFMAG, SELFMAG) != 0)
		return NULL; /* a script: its interpreter is paged */
	if (head[EI_CLASS] != ELFCLASS64)
		return "it is a 32-bit program";
	for (unsigned i = 0; i < e->e_phnum; i++) {
		const Elf64_Phdr *p = (const Elf64_Phdr *)(head + e->e_phoff) + i;

		if ((const unsigned char *)(p + 1) > head + n)
			break;
		if (p->p_type == PT_INTERP)
			return NULL;
	}
	return "it is linked statically";
}

/* ---------------------------------------------------------------- library */

/* Beside this command, as it is built, or where it is installed. => false: nowhere */
static bool find_library(char *path, size_t size)
{
	static const char *const places[] = { "libquire-preload.so", "../lib/libquire-preload.so",
		                              "../lib/quire/libquire-preload.so" };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (n <= 0)
		return false;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	slash[1] = '\0';
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		char found[PATH_MAX + 64];

		snprintf(found, sizeof found, "%s%s", self, places[i]);
		if (access(found, R_OK) == 0 && realpath(found, path))
			return strlen(path) < size;
	}
	return false;
}

/* In front of what is there: ld.so separates by colons and spaces. => false: that cannot be said */
static bool preload(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char text[2 * PATH_MAX];

	if (strpbrk(library, ": "))
		return false;
	if ((size_t)snprintf(text, sizeof text, "%s%s%s", library, before && *before ? ":" : "",
	                     before ? before : "") >= sizeof text)
		return false;
	setenv("LD_PRELOAD", text, 1);
	return true;
}

/* With the program's options: what is wrong with them is said here. */
static int try_pager(void)
{
	quire_t *q;
	int error = quire_open(&q, NULL);

	if (error)
		return fail(STATUS_FAILED, quire_error_message(), "");
	quire_close(q);
	return 0;
}

int run_main(int argc, char **argv)
{
	char path[PATH_MAX + NAME_MAX], library[PATH_MAX], pid[32];
	struct run r = { 0 };
	const char *why;
	int status = read_options(argc, argv, &r), error;

	if (status >= 0)
		return status;
	error = find(r.program[0], path, sizeof path);
	if (error)
		return fail(error == ENOENT || error == ENOTDIR ? STATUS_NOT_FOUND :
		                                                  STATUS_CANNOT_EXECUTE,
		            r.program[0], error == ENOENT ? "no such program" : strerror(error));
	status = decide_sizes(&r);
	if (status)
		return status;
	why = cannot_be_paged(path);
	if (why) {
		fail(0, r.program[0], why);
		fputs("quire run: it runs without Quire\n", stderr);
	} else {
		status = try_pager();
		if (status)
			return status;
	}
	/* Also for what it starts, if it is not paged itself. */
	if (!find_library(library, sizeof library))
		return fail(STATUS_FAILED, "libquire-preload.so", "it is not beside this command");
	if (!preload(library))
		return fail(STATUS_FAILED, library, "LD_PRELOAD cannot have this path");
	snprintf(pid, sizeof pid, "%ld", (long)getpid());
	setenv("QUIRE_RUN_PID", pid, 1);
	execv(path, r.program);
	error = errno;
	return fail(error == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_EXECUTE, path,
	            strerror(error));
}
