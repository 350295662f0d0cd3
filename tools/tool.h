/* SPDX-License-Identifier: MIT */
/*
 * tools/tool.h - what the files of the command `quire` share.
 *
 *   quire.c     the command line: which subcommand
 *   doctor.c    quire doctor: what is allowed here, what follows, what would be better
 *   system.c    facts about the machine and the container, from files
 *   run.c       quire run: a program with its heap on paged memory
 *   snapshot.c  quire snapshot: what images say, whether they are whole, one made of several
 *   chain.c     which image is whose base
 *   text.c      strings that come from anywhere, printed
 */
#ifndef QUIRE_TOOLS_TOOL_H
#define QUIRE_TOOLS_TOOL_H

#include <quire.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define STATUS_USAGE 64 /* EX_USAGE of sysexits.h */

int doctor_main(int argc, char **argv);
int run_main(int argc, char **argv);
int snapshot_main(int argc, char **argv);

/* ------------------------------------------------------------ strings */

/* In quotes, as JSON; what is no UTF-8 is U+FFFD. */
void json_string(const char *text);
/* For people: control characters, backslashes and what is no UTF-8 as \012. */
void print_plain(FILE *f, const char *text);

/* ------------------------------------------------------------- images */

/* An image file, and what it says; error: 0, or why it cannot say anything. */
struct image_file {
	const char *path;
	struct quire_image image;
	int error;
	char words[400];
};

/* => all could be read */
bool image_files_read(struct image_file *files, unsigned count);
bool image_is_increment(const struct quire_image *image);
/* The file whose UUID is the base of files[i]; NULL: none is. */
const struct image_file *image_base_of(const struct image_file *files, unsigned count, unsigned i);
/*
 * The files as a chain, the base first, into order: as they are given if they are one, else by their
 * UUIDs. => false: they are no chain; order is as they are given
 */
bool image_chain(const struct image_file *files, unsigned count, unsigned *order);

/* ---------------------------------------------------------- the system */

struct limits {
	uint64_t memory;        /* bytes of RAM */
	uint64_t cgroup_memory; /* the least limit of the cgroups we are in; UINT64_MAX: none */
	char cgroup_file[512];  /* that says so */
	double cpus;            /* that a quota leaves; 0: no quota */
	unsigned processors;
	uint64_t kernel_swap; /* bytes */
	/* Resource limits; UINT64_MAX: none. */
	uint64_t address_space, file_size, locked_memory, descriptors;
	int seccomp;           /* 0 off, 1 strict, 2 a filter; -1 unknown */
	uint64_t capabilities; /* effective */
};
void limits_read(struct limits *l);

struct swap_place {
	char path[512]; /* the directory, or the file */
	char type[64];  /* of its file system */
	bool in_memory; /* that is memory, too: what is swapped out stays in it */
	int error;      /* 0, or why it cannot be used */
	int direct;     /* O_DIRECT: 0, or the errno with which it is refused */
	uint64_t free;  /* bytes */
};
/* Where Quire would put its swap file, with these options. */
void swap_place_read(struct swap_place *s, const char *path);

#endif
