/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/guard_calls.c - system calls that are given absent pages: with the guard on, each
 * does what it would have done with ordinary memory. Files, sockets, waiting, and what must fail.
 *
 * test: matrix=in-thread
 */
#define _GNU_SOURCE
#include "guarded.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ------------------------------------------------------------------ files */

static void file_bytes(void)
{
	size_t n = 3 * MIB / 2 + 17;
	struct iovec v[3], *in_region;
	char *a, *b;
	int fd;

	open_guarded();
	fd = open_file();
	a = room(n);
	b = room(n);
	in_region = room(sizeof v);
	bytes(a, n, 1);
	CHECK_EQ(GONE(write(fd, a, n)), n);
	CHECK_EQ(GONE(pread(fd, b, n, 0)), n);
	CHECK(are_bytes(b, n, 0, 1));
	/* As much as there is, and no more. */
	CHECK_EQ(GONE(pread(fd, b, n, (off_t)n - 1000)), 1000);
	CHECK(are_bytes(b, 1000, n - 1000, 1));
	CHECK_EQ(GONE(pread(fd, b, n, (off_t)n)), 0);
	CHECK_EQ(GONE(read(fd, b, 0)), 0);
	v[0] = (struct iovec){ a, 1000 };
	v[1] = (struct iovec){ a + 1000, 0 };
	v[2] = (struct iovec){ a + 1000, 400000 };
	CHECK_EQ(GONE(pwritev(fd, v, 3, 5)), 401000);
	memcpy(in_region, v, sizeof v);
	in_region[0].iov_base = b;
	in_region[2].iov_base = b + 1000;
	CHECK_EQ(GONE(preadv(fd, in_region, 3, 5)), 401000);
	CHECK(are_bytes(b, 401000, 0, 1));
	CHECK_EQ(lseek(fd, 5, SEEK_SET), 5);
	CHECK_EQ(GONE(preadv2(fd, in_region, 3, -1, 0)), 401000);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 401005);
	CHECK_EQ(GONE(readv(fd, in_region, 1)), 1000);
	CHECK(are_bytes(b, 1000, 401005, 1));
	CHECK_EQ(GONE(pwritev2(fd, v, 1, 0, 0)), 1000);
	CHECK_EQ(GONE(writev(fd, v, 1)), 1000);
	close(fd);
	close_guarded();
}

/* Aligned buffers are aligned for the kernel, too; others are not. */
static void direct_file(void)
{
	char *a;
	int fd;

	open_guarded();
	fd = open(path_in(temporary_directory(), "direct"), O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd < 0) {
		note_skipped("O_DIRECT", strerror(errno));
	} else {
		a = room(3 * PAGE);
		a = (char *)(((uintptr_t)a + PAGE - 1) & ~(PAGE - 1));
		bytes(a, 2 * PAGE, 2);
		CHECK_EQ(GONE(pwrite(fd, a, 2 * PAGE, 0)), 2 * PAGE);
		memset(a, 0, 2 * PAGE);
		CHECK_EQ(GONE(pread(fd, a, 2 * PAGE, 0)), 2 * PAGE);
		CHECK(are_bytes(a, 2 * PAGE, 0, 2));
		close(fd);
	}
	close_guarded();
}

static void file_names(void)
{
	const char *directory = temporary_directory();
	char *name, *other, *text;
	struct stat *st;
	struct statfs *fs;
	long n;
	int fd;

	open_guarded();
	name = room_for(path_in(directory, "name"));
	other = room_for(path_in(directory, "other"));
	text = room(8192);
	st = room(sizeof *st);
	fs = room(sizeof *fs);
	fd = GONE(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
	REQUIRE(fd >= 0);
	CHECK_EQ(GONE(ftruncate(fd, 4711)), 0);
	CHECK_EQ(GONE(fstat(fd, st)), 0);
	CHECK_EQ(st->st_size, 4711);
	CHECK_EQ(GONE(rename(name, other)), 0);
	CHECK_EQ(GONE(access(name, F_OK)), -1);
	CHECK_EQ(errno, ENOENT);
	CHECK_EQ(GONE(stat(other, st)), 0);
	CHECK_EQ(GONE(symlink(other, name)), 0);
	CHECK_EQ(GONE(readlink(name, text, 8192)), strlen(other));
	CHECK(memcmp(text, other, strlen(other)) == 0);
	CHECK(GONE(getcwd(text, 8192)) == text);
	CHECK_EQ(GONE(statfs(other, fs)), 0);
	CHECK(fs->f_bsize > 0);
	CHECK_EQ(GONE(utimensat(AT_FDCWD, other, NULL, 0)), 0);
	close(fd);
	fd = open(directory, O_RDONLY | O_DIRECTORY);
	n = GONE(syscall(SYS_getdents64, fd, text, 8192));
	CHECK(n > 0);
	CHECK_EQ(syscall(SYS_getdents64, fd, text, 8192), 0);
	close(fd);
	CHECK_EQ(GONE(unlink(name)), 0);
	CHECK_EQ(GONE(unlink(other)), 0);
	memset(text, 'x', 8191);
	text[8191] = 0;
	CHECK_EQ(GONE(access(text, F_OK)), -1);
	CHECK_EQ(errno, ENAMETOOLONG);
	close_guarded();
}

/* ---------------------------------------------------------------- sockets */

static void stream_sockets(void)
{
	struct sockaddr_un *address;
	socklen_t *length;
	int *pair, *value, server, client, peer;
	char *a;

	open_guarded();
	address = room(sizeof *address);
	length = room(sizeof *length);
	pair = room(8);
	value = room(4);
	a = room(100000);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address->sun_path + 1, 60, "quire-%d", getpid());
	CHECK_EQ(GONE(bind(server, (void *)address, 40)), 0);
	CHECK_EQ(listen(server, 1), 0);
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(GONE(connect(client, (void *)address, 40)), 0);
	memset(address, 0, sizeof *address);
	*length = sizeof *address;
	peer = GONE(accept(server, (void *)address, length));
	CHECK(peer >= 0);
	*length = sizeof *address;
	CHECK_EQ(GONE(getsockname(peer, (void *)address, length)), 0);
	CHECK_EQ(*length, 40);
	CHECK_EQ(address->sun_family, AF_UNIX);
	*length = 4;
	CHECK_EQ(GONE(getsockopt(peer, SOL_SOCKET, SO_TYPE, value, length)), 0);
	CHECK_EQ(*value, SOCK_STREAM);
	*value = 1;
	CHECK_EQ(GONE(setsockopt(peer, SOL_SOCKET, SO_PASSCRED, value, 4)), 0);
	CHECK_EQ(GONE(ioctl(peer, FIONREAD, value)), 0);
	CHECK_EQ(*value, 0);
	bytes(a, 100000, 3);
	CHECK_EQ(GONE(send(client, a, 60000, 0)), 60000);
	memset(a, 0, 60000);
	CHECK_EQ(GONE(recv(peer, a, 60000, MSG_WAITALL)), 60000);
	CHECK(are_bytes(a, 60000, 0, 3));
	CHECK_EQ(GONE(recv(peer, a, 10, MSG_DONTWAIT)), -1);
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(GONE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)), 0);
	CHECK_EQ(write(pair[0], "x", 1), 1);
	close(pair[0]);
	close(pair[1]);
	close(server);
	close(client);
	close(peer);
	close_guarded();
}

static void datagrams(void)
{
	struct msghdr *m, here = { .msg_iovlen = 2 };
	struct cmsghdr *control;
	struct mmsghdr many[2];
	struct iovec v[2];
	int pair[2], fd;
	char *a;

	open_guarded();
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	a = room(40000);
	m = room(sizeof *m);
	control = room(CMSG_SPACE(sizeof fd));
	bytes(a, 10000, 4);
	/* The header, and the descriptor that goes with it, hidden from the filter. */
	v[0] = (struct iovec){ a, 4000 };
	v[1] = (struct iovec){ a + 4000, 6000 };
	here.msg_iov = v;
	here.msg_control = control;
	here.msg_controllen = CMSG_SPACE(sizeof fd);
	*control = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd),
		                     .cmsg_level = SOL_SOCKET,
		                     .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(control), &pair[0], sizeof fd);
	CHECK_EQ(GONE(sendmsg(pair[0], &here, 0)), 10000);
	/* And all of it in the region. */
	v[0] = (struct iovec){ a + 20000, 3000 };
	v[1] = (struct iovec){ a + 30000, 9000 };
	memset(control, 0, sizeof *control);
	*m = here;
	m->msg_iov = memcpy(room(sizeof v), v, sizeof v);
	CHECK_EQ(GONE(recvmsg(pair[1], m, 0)), 10000);
	CHECK(are_bytes(a + 20000, 3000, 0, 4) && are_bytes(a + 30000, 7000, 3000, 4));
	CHECK_EQ(m->msg_controllen, CMSG_SPACE(sizeof fd));
	CHECK_EQ(control->cmsg_type, SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(control), sizeof fd);
	CHECK_EQ(close(fd), 0);
	/* What the kernel says of a message is in its header afterwards. */
	CHECK_EQ(GONE(send(pair[0], a, 13000, 0)), 13000);
	CHECK_EQ(GONE(recvmsg(pair[1], m, 0)), 12000);
	CHECK_EQ(m->msg_controllen, 0);
	CHECK(m->msg_flags & MSG_TRUNC);
	/* A datagram that is cut says how long it was. */
	CHECK_EQ(GONE(send(pair[0], a, 5000, 0)), 5000);
	CHECK_EQ(GONE(recv(pair[1], a + 20000, 100, MSG_TRUNC | MSG_PEEK)), 5000);
	CHECK_EQ(GONE(recv(pair[1], a + 20000, 100, MSG_TRUNC)), 5000);
	CHECK(are_bytes(a + 20000, 100, 0, 4));
	memset(many, 0, sizeof many);
	for (int i = 0; i < 2; i++) {
		v[i] = (struct iovec){ a + i * 1000, 1000 };
		many[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	CHECK_EQ(GONE(sendmmsg(pair[0], many, 2, 0)), 2);
	CHECK_EQ(many[1].msg_len, 1000);
	v[0].iov_base = a + 20000;
	v[1].iov_base = a + 30000;
	CHECK_EQ(GONE(recvmmsg(pair[1], many, 2, 0, NULL)), 2);
	CHECK(are_bytes(a + 20000, 1000, 0, 4) && are_bytes(a + 30000, 1000, 1000, 4));
	close(pair[0]);
	close(pair[1]);
	close_guarded();
}

struct race {
	int fd;
	socklen_t *length;
};

static void *send_named_later(void *arg)
{
	struct race *race = arg;
	struct sockaddr_un to = { .sun_family = AF_UNIX }, from = to;
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	snprintf(to.sun_path + 1, 60, "quire-to-%d", getpid());
	memset(from.sun_path + 1, 'n', 107);
	sleep_seconds(0.1);
	*race->length = sizeof from;
	MUST(bind(fd, (void *)&from, sizeof from) == 0);
	MUST(sendto(fd, "hello", 5, 0, (void *)&to, 40) == 5);
	close(fd);
	return NULL;
}

/* The kernel looks at the length of a name again when there is one. */
static void lengths_that_change(void)
{
	struct sockaddr_un *name, to = { .sun_family = AF_UNIX };
	socklen_t length = 16;
	struct race race = { .fd = socket(AF_UNIX, SOCK_DGRAM, 0), .length = &length };
	pthread_t t;
	char *a;

	open_guarded();
	a = room(100);
	name = room(sizeof *name);
	memset(name, 'z', sizeof *name);
	snprintf(to.sun_path + 1, 60, "quire-to-%d", getpid());
	REQUIRE(bind(race.fd, (void *)&to, 40) == 0);
	away();
	MUST(pthread_create(&t, NULL, send_named_later, &race) == 0);
	CHECK_EQ(recvfrom(race.fd, a, 100, 0, (void *)name, &length), 5);
	pthread_join(t, NULL);
	CHECK(memcmp(a, "hello", 5) == 0);
	CHECK(name->sun_family == AF_UNIX && name->sun_path[13] == 'n');
	CHECK_EQ(length, 110);
	close(race.fd);
	close_guarded();
}

/* What a call does not write stays; what it writes beyond its count is not lost. */
static void counts_of_their_own(void)
{
	struct sock_filter {
		uint16_t code;
		uint8_t yes, no;
		uint32_t k;
	} * program;
	struct {
		unsigned short n;
		struct sock_filter *code;
	} attached = { 200, NULL };
	struct message {
		long type;
		char text[100];
	} * message;
	socklen_t *length;
	int fd, queue;
	char *text;

	open_guarded();
	program = room(200 * sizeof *program);
	length = room(sizeof *length);
	message = room(sizeof *message);
	text = room(100);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	attached.code = calloc(200, sizeof *program);
	for (int i = 0; i < 200; i++)
		attached.code[i] = (struct sock_filter){ 0x06, 0, 0, 0x1000u + (unsigned)i };
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &attached, sizeof attached) == 0) {
		/* Its length is in instructions. */
		*length = 200;
		CHECK_EQ(GONE(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, program, length)), 0);
		CHECK_EQ(*length, 200);
		CHECK(memcmp(program, attached.code, 200 * sizeof *program) == 0);
	}
	free(attached.code);
	close(fd);
	queue = msgget(IPC_PRIVATE, 0600);
	if (queue < 0) {
		note_skipped("message queues", strerror(errno));
	} else {
		message->type = 77;
		CHECK_EQ(GONE(msgsnd(queue, message, 0, 0)), 0);
		message->type = -1;
		CHECK_EQ(GONE(msgrcv(queue, message, 100, 0, 0)), 0);
		CHECK_EQ(message->type, 77);
		msgctl(queue, IPC_RMID, NULL);
	}
	strcpy(text, "as it was");
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd >= 0) {
		struct sockaddr_in at = { .sin_family = AF_INET };
		socklen_t bytes = sizeof at;
		int client = socket(AF_INET, SOCK_STREAM, 0), peer;

		at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		REQUIRE(bind(fd, (void *)&at, bytes) == 0 && listen(fd, 1) == 0);
		REQUIRE(getsockname(fd, (void *)&at, &bytes) == 0);
		REQUIRE(connect(client, (void *)&at, bytes) == 0);
		peer = accept(fd, NULL, NULL);
		CHECK_EQ(write(client, "dropped", 7), 7);
		/* Dropped by the kernel, not received. */
		CHECK_EQ(GONE(recv(peer, text, 7, MSG_TRUNC | MSG_WAITALL)), 7);
		CHECK_STR(text, "as it was");
		close(peer);
		close(client);
		close(fd);
	}
	close_guarded();
}

/* ---------------------------------------------------------------- waiting */

static void waiting(void)
{
	struct timespec *time;
	struct timeval *interval;
	struct epoll_event *events;
	struct itimerspec *timer;
	struct pollfd *p;
	int pipes[2], epoll, fd;
	uint64_t *expired;
	fd_set *set;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	p = room(2 * sizeof *p);
	set = room(sizeof *set);
	time = room(sizeof *time);
	interval = room(sizeof *interval);
	events = room(4 * sizeof *events);
	timer = room(sizeof *timer);
	expired = room(sizeof *expired);
	p[0] = (struct pollfd){ pipes[0], POLLIN, 77 };
	p[1] = (struct pollfd){ pipes[1], POLLOUT, 77 };
	CHECK_EQ(GONE(poll(p, 2, 0)), 1);
	CHECK_EQ(p[0].revents, 0);
	CHECK_EQ(p[1].revents, POLLOUT);
	*time = (struct timespec){ 0, 1000 };
	CHECK_EQ(GONE(ppoll(p, 1, time, NULL)), 0);
	FD_ZERO(set);
	FD_SET(pipes[0], set);
	*interval = (struct timeval){ 0, 1000 };
	CHECK_EQ(GONE(select(pipes[0] + 1, set, NULL, NULL, interval)), 0);
	CHECK(!FD_ISSET(pipes[0], set));
	*time = (struct timespec){ 0, 1000 };
	CHECK_EQ(GONE(pselect(0, NULL, NULL, NULL, time, memset(set, 0, sizeof(sigset_t)))), 0);
	CHECK_EQ(time->tv_nsec, 1000);
	epoll = epoll_create1(0);
	events[0] = (struct epoll_event){ EPOLLOUT, { .u64 = 4711 } };
	CHECK_EQ(GONE(epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[1], events)), 0);
	events[0].data.u64 = 0;
	CHECK_EQ(GONE(epoll_wait(epoll, events, 4, 1000)), 1);
	CHECK_EQ(events[0].data.u64, 4711);
	fd = timerfd_create(CLOCK_MONOTONIC, 0);
	*timer = (struct itimerspec){ .it_value = { 0, 1000 } };
	CHECK_EQ(GONE(timerfd_settime(fd, 0, timer, NULL)), 0);
	CHECK_EQ(GONE(read(fd, expired, sizeof *expired)), sizeof *expired);
	CHECK(*expired >= 1);
	*time = (struct timespec){ 0, 1000 };
	CHECK_EQ(GONE(nanosleep(time, NULL)), 0);
	CHECK_EQ(GONE(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, time)), 0);
	CHECK(time->tv_sec + time->tv_nsec > 1000);
	close(fd);
	close(epoll);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void odds_and_ends(void)
{
	struct iovec local, remote;
	struct utsname *name;
	struct rusage *usage;
	struct flock *lock;
	char *a, *b;
	int fd;

	open_guarded();
	a = room(20000);
	b = room(20000);
	name = room(sizeof *name);
	usage = room(sizeof *usage);
	lock = room(sizeof *lock);
	CHECK_EQ(GONE(getrandom(a, 1000, 0)), 1000);
	CHECK_EQ(GONE(uname(name)), 0);
	CHECK_STR(name->sysname, "Linux");
	CHECK_EQ(GONE(getrusage(RUSAGE_SELF, usage)), 0);
	CHECK(usage->ru_maxrss > 0);
	fd = open_file();
	*lock = (struct flock){ .l_type = F_WRLCK };
	CHECK_EQ(GONE(fcntl(fd, F_SETLK, lock)), 0);
	CHECK_EQ(GONE(fcntl(fd, F_GETLK, lock)), 0);
	CHECK_EQ(lock->l_type, F_UNLCK);
	close(fd);
	bytes(a, 20000, 5);
	local = (struct iovec){ b, 20000 };
	remote = (struct iovec){ a, 20000 };
	CHECK_EQ(GONE(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)), 20000);
	CHECK(are_bytes(b, 20000, 0, 5));
	memset(b, 0, 20000);
	local.iov_base = a;
	remote.iov_base = b;
	CHECK_EQ(GONE(process_vm_writev(getpid(), &local, 1, &remote, 1, 0)), 20000);
	CHECK(are_bytes(b, 20000, 0, 5));
	close_guarded();
}

/* --------------------------------------------------------- what must fail */

static void bad_addresses(void)
{
	struct iovec *volatile wild = (struct iovec *)8;
	char *outside, *fixed;
	struct iovec v;
	int fd;

	open_guarded();
	fd = open_file();
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	/* Below a region there is a page of nothing. */
	outside = guarded.base - PAGE / 2;
	CHECK_EQ(pread(fd, outside, 10, 0), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(write(fd, outside, 10), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(stat(outside, (struct stat *)room(200)), -1);
	CHECK_EQ(errno, EFAULT);
	v = (struct iovec){ outside, 10 };
	CHECK_EQ(writev(fd, &v, 1), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(readv(fd, wild, 1), -1);
	CHECK_EQ(errno, EFAULT);
	fixed = room(2 * PAGE);
	fixed += PAGE - (uintptr_t)fixed % PAGE;
	strcpy(fixed, path_in(temporary_directory(), "file"));
	CHECK_EQ(quire_protect(guarded.region, (size_t)(fixed - guarded.base), PAGE, PROT_READ), 0);
	CHECK_EQ(GONE(pread(fd, fixed, 10, 0)), -1);
	CHECK_EQ(errno, EFAULT);
	/* To read from it is allowed. */
	CHECK_EQ(GONE(access(fixed, F_OK)), 0);
	CHECK_EQ(GONE(write(fd, fixed, PAGE)), PAGE);
	CHECK_EQ(GONE(pread(-1, fixed, 10, 0)), -1);
	CHECK_EQ(errno, EBADF);
	close(fd);
	close_guarded();
}

#define RECORD (512 * KIB)
#define RECORDS 40

struct writer {
	int fd;
	char *record;
};

static void *append_records(void *arg)
{
	struct writer *w = arg;

	for (int i = 0; i < RECORDS / 2; i++)
		MUST(write(w->fd, w->record, RECORD) == RECORD);
	return NULL;
}

/* Records that several threads append are whole. */
static void whole_records(void)
{
	const char *path = path_in(temporary_directory(), "records");
	static char record[RECORD];
	struct writer w[2];
	pthread_t t[2];
	size_t torn = 0;
	int fd;

	open_guarded();
	for (int i = 0; i < 2; i++) {
		w[i].record = room(RECORD);
		w[i].fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
		memset(w[i].record, 'a' + i, RECORD);
	}
	away();
	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&t[i], NULL, append_records, &w[i]) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	fd = open(path, O_RDONLY);
	for (int i = 0; i < RECORDS; i++) {
		MUST(read(fd, record, RECORD) == RECORD);
		torn += memchr(record, record[0] == 'a' ? 'b' : 'a', RECORD) != NULL;
	}
	CHECK_EQ(torn, 0);
	close(fd);
	close(w[0].fd);
	close(w[1].fd);
	unlink(path);
	close_guarded();
}

/* What does not fit the region stays where it was. */
static void beyond_the_end(void)
{
	char *end, all[11] = "0123456789";
	ssize_t n;
	int pipes[2];

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	end = guarded.base + PAGES * PAGE;
	CHECK_EQ(write(pipes[1], all, 10), 10);
	/* A part of it, or nothing. */
	n = GONE(read(pipes[0], end - 4, 10));
	CHECK(n == 4 || (n == -1 && errno == EFAULT));
	n = n < 0 ? 0 : n;
	CHECK(memcmp(end - 4, all, (size_t)n) == 0);
	CHECK_EQ(GONE(read(pipes[0], end - 100, 10)), 10 - n);
	CHECK(memcmp(end - 100, all + n, (size_t)(10 - n)) == 0);
	close(pipes[0]);
	close(pipes[1]);
	/* Of a datagram there are no parts. */
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pipes) == 0);
	CHECK_EQ(GONE(send(pipes[0], end - 4, 10, 0)), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(recv(pipes[1], all, 10, MSG_DONTWAIT), -1);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void without_guard(void)
{
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN };
	quire_t *plain = pager_open_options(&o);
	quire_region_t *region = region_create(plain, MIB);
	int fd = open("/dev/zero", O_RDONLY);
	long n = read(fd, quire_region_base(region), 100);

	CHECK_EQ(n, engine_serves_kernel(plain) ? 100 : -1);
	CHECK(strstr(quire_choice(plain), "guard off") != NULL);
	close(fd);
	CHECK_EQ(quire_close(plain), 0);
}

static void unknown_call(void)
{
	struct quire_guard_call calls[100];
	size_t n, found = 0;

	open_guarded();
	CHECK_EQ(GONE(syscall(500, room(100), 0)), -1);
	CHECK_EQ(errno, ENOSYS);
	n = quire_guard_calls(calls, 100);
	for (size_t i = 0; i < n; i++)
		found += calls[i].number == 500 && !calls[i].known && calls[i].count == 1 &&
		         !calls[i].name;
	CHECK_EQ(found, !engine_serves_kernel(guarded.pager));
	CHECK_EQ(pager_stats(guarded.pager).unguarded, !engine_serves_kernel(guarded.pager));
	close_guarded();
}

static void spliced(void)
{
	struct iovec v;
	int pipes[2];
	char *a, *b;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(3 * PAGE);
	b = room(3 * PAGE);
	bytes(a, 3 * PAGE, 6);
	v = (struct iovec){ a, 3 * PAGE };
	CHECK_EQ(GONE(vmsplice(pipes[1], &v, 1, 0)), 3 * PAGE);
	CHECK_EQ(GONE(read(pipes[0], b, 3 * PAGE)), 3 * PAGE);
	CHECK(are_bytes(b, 3 * PAGE, 0, 6));
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

/* ------------------------------------------------------------- the handler */

#define STACK_LIMIT ((size_t)32 << 10)

/* How much of an alternate stack a call needs whose pages must be read. */
static void stack_use(void)
{
	static unsigned char stack[128 << 10];
	stack_t s = { .ss_sp = stack, .ss_size = sizeof stack }, none = { .ss_flags = SS_DISABLE };
	struct iovec *v;
	size_t untouched = 0;
	int fd = open_file();

	if (SANITIZED)
		return;
	open_guarded();
	v = room(2 * sizeof *v);
	v[0] = (struct iovec){ room(3000), 3000 };
	v[1] = (struct iovec){ room(3000), 3000 };
	memset(stack, 0xa5, sizeof stack);
	MUST(sigaltstack(&s, NULL) == 0);
	for (int i = 0; i < 20; i++) {
		/* As a raw call, which is trapped. */
		CHECK_EQ(GONE(syscall(SYS_writev, fd, v, 2)), 6000);
		CHECK_EQ(GONE(syscall(SYS_preadv, fd, v, 2, 0, 0)), 6000);
		CHECK_EQ(GONE(stat(room_for("/"), room(sizeof(struct stat)))), 0);
	}
	MUST(sigaltstack(&none, NULL) == 0);
	while (untouched < sizeof stack && stack[untouched] == 0xa5)
		untouched++;
	printf("the stack of a guarded call: %zu bytes\n", sizeof stack - untouched);
	CHECK(sizeof stack - untouched <= STACK_LIMIT);
	close(fd);
	close_guarded();
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(without_guard),
		UNIT(file_bytes),
		UNIT(direct_file),
		UNIT(file_names),
		UNIT(stream_sockets),
		UNIT(datagrams),
		UNIT(lengths_that_change),
		UNIT(counts_of_their_own),
		UNIT(whole_records),
		UNIT(beyond_the_end),
		UNIT(waiting),
		UNIT(odds_and_ends),
		UNIT(bad_addresses),
		UNIT(unknown_call),
		UNIT(spliced),
		UNIT(stack_use),
		UNIT_END,
	};

	return unit_main(argc, argv, "guard_calls", tests);
}
