/* SPDX-License-Identifier: MIT */
/* tools/quire.c - the command `quire`: finds the subcommand; see tool.h. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

static const struct command {
	const char *name, *about;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "doctor", "what this machine allows, what Quire does with it, what would be better",
	  doctor_main },
	{ "run", "run a program that was never changed with a heap larger than its memory",
	  run_main },
	{ "snapshot", "image files of snapshots: what they say, whether they are whole, merging",
	  snapshot_main },
};

#define COMMANDS (sizeof commands / sizeof *commands)

static void help(FILE *f)
{
	fputs("Usage: quire COMMAND [OPTION...]\n\nCommands:\n", f);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].about);
	fputs("\nquire COMMAND --help has more.\n", f);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name) {
		help(stderr);
		return STATUS_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "help")) {
		help(stdout);
		return fflush(stdout) ? 1 : 0;
	}
	if (!strcmp(name, "--version")) {
		printf("quire %d.%d.%d\n", QUIRE_VERSION_MAJOR, QUIRE_VERSION_MINOR,
		       QUIRE_VERSION_PATCH);
		return fflush(stdout) ? 1 : 0;
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "quire: no such command: %s\nTry 'quire --help'.\n", name);
	return STATUS_USAGE;
}
