/* SPDX-License-Identifier: MIT */
/*
 * image/publish.c - a file that appears under its name when it is complete, or never.
 *
 *        output_open                     output_publish
 *   (O_TMPFILE) no name ----link----> temporary name --rename--> its name
 *                  \                         ^                        ^
 *                   \                        |                        |
 *                    '- nothing to replace --|----------link----------'
 *   (elsewhere) ------- temporary name ------'
 *
 * A file without a name goes with the process, however that ends. One with a
 * temporary name stays if the process is killed: on file systems without
 * O_TMPFILE, or without /proc, through which such a file gets its name.
 *
 * All names are taken relative to the directory, opened once: it may be moved
 * meanwhile, and the program may change its working directory.
 */
#include "image/publish.h"

#include "base/error.h"

#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uuid/uuid.h>

/* It is a process's memory: nobody else reads it, unless he could read what it replaces. */
#define MODE 0600
#define FD_PATH_MAX 40

/* ------------------------------------------------------------ names */

static int open_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* Files can be made in one that cannot be read. */
	if (fd < 0 && errno == EACCES)
		fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Take path apart, and open the directory. => 0 or -errno, without words */
static int find_place(struct image_output *o, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t length = (size_t)(name - path);
	char directory[PATH_MAX];

	if (*path == '\0')
		return -EINVAL;
	if (*name == '\0')
		return -EISDIR;
	if (strlen(name) > NAME_MAX || length >= sizeof directory)
		return -ENAMETOOLONG;
	strcpy(o->name, name);
	memcpy(directory, path, length);
	directory[length] = '\0';
	o->directory = open_directory(length ? directory : ".");
	return o->directory < 0 ? o->directory : 0;
}

/*
 * What is there now: mode 0 if nothing is, or a symbolic link, which would itself
 * be replaced. => 0, or -EISDIR, -EBADF: it must not be replaced
 */
static int look(const struct image_output *o, mode_t *mode)
{
	struct stat st;

	*mode = 0;
	if (fstatat(o->directory, o->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return -EBADF;
	if (S_ISREG(st.st_mode))
		*mode = st.st_mode;
	return 0;
}

static void make_up_name(struct image_output *o)
{
	unsigned char random[16];
	char text[37];

	uuid_generate_random(random);
	uuid_unparse(random, text);
	snprintf(o->temporary, sizeof o->temporary, ".quire-%s.tmp", text);
}

/* ------------------------------------------------------------ opening */

/* Without a name; only if it can be given one later. => descriptor or -1 */
static int open_unnamed(struct image_output *o)
{
	char path[FD_PATH_MAX];
	int fd = openat(o->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, MODE);

	if (fd < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (access(path, F_OK) == 0)
		return fd;
	close(fd);
	return -1;
}

/* => descriptor or -errno */
static int open_named(struct image_output *o)
{
	int fd;

	do {
		make_up_name(o);
		fd = openat(o->directory, o->temporary,
		            O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, MODE);
	} while (fd < 0 && errno == EEXIST);
	o->named = fd >= 0;
	return fd < 0 ? -errno : fd;
}

static int refuse(int error, const char *name)
{
	switch (error) {
	case EINVAL:
		return error_set(error, "image: the path is empty");
	case EISDIR:
		return error_set(error, "image %s: there is a directory", name);
	case EBADF:
		return error_set(error, "image %s: what is there is no regular file", name);
	case ENOENT:
		return error_set(error, "image %s: no such directory", name);
	default:
		return error_set(error, "image %s: %s", name, strerror(error));
	}
}

int output_open(struct image_output *o, const char *path)
{
	mode_t mode;
	int error;

	*o = (struct image_output){ .fd = -1, .directory = -1 };
	error = find_place(o, path);
	if (!error)
		error = look(o, &mode);
	if (!error) {
		o->fd = open_unnamed(o);
		if (o->fd < 0)
			o->fd = open_named(o);
		error = MIN(o->fd, 0);
	}
	if (!error)
		return 0;
	output_close(o);
	return refuse(-error, path);
}

void output_close(struct image_output *o)
{
	int fd = o->fd, directory = o->directory;

	if (o->named)
		unlinkat(directory, o->temporary, 0);
	/* First: a child of a fork that comes in between closes nothing that is somebody else's by then. */
	o->named = false;
	o->fd = o->directory = -1;
	if (fd >= 0)
		close(fd);
	if (directory >= 0)
		close(directory);
}

/* ------------------------------------------------------------ publishing */

/* Give what has no name a name. => 0 or -errno */
static int name_it(struct image_output *o, const char *name)
{
	char path[FD_PATH_MAX];

	snprintf(path, sizeof path, "/proc/self/fd/%d", o->fd);
	if (linkat(AT_FDCWD, path, o->directory, name, AT_SYMLINK_FOLLOW) != 0)
		return -errno;
	return 0;
}

static int publish_new(struct image_output *o)
{
	int error;

	if (!o->named)
		return name_it(o, o->name);
	/* Not every file system has links, nor every one this rename. */
	error = syscall(SYS_renameat2, o->directory, o->temporary, o->directory, o->name,
	                1 /* RENAME_NOREPLACE */) == 0 ?
	                0 :
	                -errno;
	if (error == -EINVAL || error == -ENOSYS) {
		if (linkat(o->directory, o->temporary, o->directory, o->name, 0) != 0)
			return -errno;
		return 0; /* output_close takes the other name away */
	}
	o->named = error != 0;
	return error;
}

static int publish_over(struct image_output *o)
{
	int error = 0;

	if (!o->named) {
		do {
			make_up_name(o);
			error = name_it(o, o->temporary);
		} while (error == -EEXIST);
		o->named = error == 0;
	}
	if (!error && renameat(o->directory, o->temporary, o->directory, o->name) != 0)
		error = -errno;
	o->named &= error != 0;
	return error;
}

/* A handler may have forked on this thread, and this be the child: the parent has done it, or will. */
static int publish(struct image_output *o, bool replace)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (o->disowned)
		error = -ECHILD;
	else
		error = replace ? publish_over(o) : publish_new(o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

/* The name must last as well. Some file systems cannot be asked for that, nor can O_PATH. */
static int sync_directory(const struct image_output *o)
{
	if (fsync(o->directory) == 0 || errno == EINVAL || errno == EBADF || errno == EROFS)
		return 0;
	return error_set(errno, "image %s: it is there, but its directory could not be written: %s",
	                 o->name, strerror(errno));
}

int output_publish(struct image_output *o, bool replace)
{
	mode_t before;
	int error = look(o, &before);

	if (!error && fchmod(o->fd, before ? before & 0777 : MODE) != 0)
		error = -errno;
	if (!error && fsync(o->fd) != 0 && errno != EINVAL)
		error = -errno;
	if (!error)
		error = publish(o, replace);
	if (error == -EEXIST)
		return error_set(EEXIST, "image %s: there is something already", o->name);
	return error ? refuse(-error, o->name) : sync_directory(o);
}
