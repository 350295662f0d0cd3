/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/guard.c - system calls that are given absent pages: with the guard on,
 * each does what it would have done with ordinary memory.
 *
 * test: matrix=in-thread
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGES 16384u
#define CROWD 8192u /* from here on: pages whose only use is to have others evicted */
#define CROWD_PAGES 200u

static quire_t *q;
static quire_region_t *r;
static char *base;
static size_t used;

static void open_guarded(void)
{
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN, .guard = "on" };

	q = pager_open_options(&o);
	r = region_create(q, PAGES * PAGE);
	base = quire_region_base(r);
	used = 0;
}

static void close_guarded(void)
{
	CHECK_EQ(pager_stats(q).pinned, 0);
	CHECK_EQ(quire_close(q), 0);
}

/* Room for an object, across the edge of two pages if it can be. */
static void *room(size_t bytes)
{
	size_t at = (used + PAGE - 1) / PAGE * PAGE + PAGE;

	at -= bytes < 2 * PAGE ? bytes / 2 / 8 * 8 : 0;
	used = at + bytes;
	MUST(used < CROWD * PAGE);
	return base + at;
}

static char *room_for(const char *text)
{
	return strcpy(room(strlen(text) + 1), text);
}

/* Nothing of what was got is in memory any more. */
static void away(void)
{
	size_t pages = used / PAGE + 1;

	for (int i = 0; i < 200; i++) {
		MUST(quire_advise(r, 0, pages * PAGE, QUIRE_ADVISE_COLD) == 0);
		for (size_t k = 0; k < CROWD_PAGES; k++)
			base[(CROWD + k) * PAGE] = (char)i;
		if (mapped(r, 0, pages) == 0)
			return;
	}
	MUST(!"the pages stay");
}

/* The call is made when what was got before is away. */
#define GONE(call) (away(), (call))

static void bytes(char *p, size_t n, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)((i * 7 + i / 251) ^ key);
}

static bool are_bytes(const char *p, size_t n, size_t from, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (char)(((i + from) * 7 + (i + from) / 251) ^ key))
			return false;
	return true;
}

static int open_file(void)
{
	int fd = open(path_in(temporary_directory(), "file"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	MUST(fd >= 0);
	return fd;
}

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
	outside = base - PAGE / 2;
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
	CHECK_EQ(quire_protect(r, (size_t)(fixed - base), PAGE, PROT_READ), 0);
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
	end = base + PAGES * PAGE;
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
	CHECK_EQ(found, !engine_serves_kernel(q));
	CHECK_EQ(pager_stats(q).unguarded, !engine_serves_kernel(q));
	close_guarded();
}

/* ---------------------------------------------------------------- signals */

static atomic_uint interruptions;
static sigjmp_buf out;

static void on_interrupt(int number)
{
	(void)number;
	atomic_fetch_add(&interruptions, 1);
}

static void on_leave(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

/* After a tenth of a second. */
static void interrupt_by(void (*handler)(int), int flags)
{
	struct sigaction a = { .sa_handler = handler, .sa_flags = flags };
	struct itimerval t = { .it_value = { 0, 100000 } };

	MUST(sigaction(SIGALRM, &a, NULL) == 0);
	MUST(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

static int nested_pipe;
static volatile long nested_result;

static void on_nested(int number)
{
	(void)number;
	nested_result = read(nested_pipe, base + 2000 * PAGE, 20000);
}

static void *feed_later(void *fd)
{
	static char text[30000];

	sleep_seconds(0.4);
	memset(text, 'o', sizeof text);
	MUST(write(*(int *)fd, text, sizeof text) == sizeof text);
	return NULL;
}

/* A handler on an alternate stack that makes a guarded call of its own. */
static void nested_on(unsigned flags)
{
	static char stack[128 << 10], inner[20000];
	stack_t s = { .ss_sp = stack, .ss_size = sizeof stack, .ss_flags = (int)flags };
	stack_t none = { .ss_flags = SS_DISABLE };
	int pipes[2], others[2];
	sigset_t alarm;
	pthread_t t;
	char *a;

	open_guarded();
	MUST(pipe(pipes) == 0 && pipe(others) == 0);
	a = room(MIB);
	memset(inner, 'i', sizeof inner);
	MUST(write(others[1], inner, sizeof inner) == sizeof inner);
	nested_pipe = others[0];
	away();
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	MUST(pthread_create(&t, NULL, feed_later, &pipes[1]) == 0);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	MUST(sigaltstack(&s, NULL) == 0);
	interrupt_by(on_nested, SA_RESTART | SA_ONSTACK);
	CHECK_EQ(read(pipes[0], a, MIB), 30000);
	MUST(sigaltstack(&none, NULL) == 0);
	pthread_join(t, NULL);
	CHECK_EQ(nested_result, 20000);
	CHECK(a[0] == 'o' && a[29999] == 'o');
	CHECK(base[2000 * PAGE] == 'i' && base[2000 * PAGE + 19999] == 'i');
	close(pipes[0]);
	close(pipes[1]);
	close(others[0]);
	close(others[1]);
	close_guarded();
}

static void nested_calls(void)
{
	if (SANITIZED) {
		note_skipped("nested calls", "sanitizers have alternate stacks of their own");
		return;
	}
	nested_on(0);
	nested_on(1u << 31 /* SS_AUTODISARM */);
}

static void *write_later(void *fd)
{
	sleep_seconds(0.3);
	MUST(write(*(int *)fd, "later", 5) == 5);
	return NULL;
}

static void interrupted_calls(void)
{
	struct timespec *left;
	pthread_t writer;
	uint32_t *word;
	sigset_t alarm;
	int pipes[2];
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(5000);
	left = room(sizeof *left);
	word = room(8);
	away();
	interrupt_by(on_interrupt, 0);
	CHECK_EQ(read(pipes[0], a, 5000), -1);
	CHECK_EQ(errno, EINTR);
	CHECK_EQ(interruptions, 1);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	away();
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	MUST(pthread_create(&writer, NULL, write_later, &pipes[1]) == 0);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	interrupt_by(on_interrupt, SA_RESTART);
	CHECK_EQ(read(pipes[0], a, 5000), 5);
	CHECK_EQ(interruptions, 2);
	CHECK(memcmp(a, "later", 5) == 0);
	pthread_join(writer, NULL);
	/* What is left of a sleep is written only then. */
	*left = (struct timespec){ 5, 0 };
	away();
	interrupt_by(on_interrupt, SA_RESTART);
	CHECK_EQ(nanosleep(left, left), -1);
	CHECK_EQ(errno, EINTR);
	CHECK(left->tv_sec == 4 && left->tv_nsec > 0);
	*word = 1;
	*left = (struct timespec){ 5, 0 };
	away();
	interrupt_by(on_interrupt, 0);
	CHECK_EQ(syscall(SYS_futex, word, FUTEX_WAIT, 1, left, NULL, 0), -1);
	CHECK_EQ(errno, EINTR);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

/* A handler that does not return leaves nothing behind: neither pins nor copies. */
static void left_calls(void)
{
	volatile unsigned before = 0;
	uint32_t *word;
	int pipes[2];
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(MIB);
	word = room(8);
	for (int i = 0; i < 12; i++) {
		away();
		interrupt_by(on_leave, 0);
		if (!sigsetjmp(out, 1)) {
			if (i % 2) {
				CHECK_EQ(read(pipes[0], a, MIB), 0);
			} else {
				*word = 0x3ffffff; /* nobody's: a lock that is held for ever */
				syscall(SYS_futex, word, FUTEX_WAIT, *word, NULL, NULL, 0);
			}
			CHECK(!"the call ended");
		}
		if (i == 3)
			before = mappings();
	}
	CHECK(mappings() <= before + 2);
	CHECK_EQ(write(pipes[1], "later", 5), 5);
	CHECK_EQ(GONE(read(pipes[0], a, MIB)), 5);
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void *read_for_ever(void *fd)
{
	MUST(read(*(int *)fd, base + PAGE, 100000) < 0);
	return NULL;
}

static void *receive_for_ever(void *fd)
{
	struct iovec v = { base + PAGE, 100000 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	MUST(recvmsg(*(int *)fd, &m, 0) < 0);
	return NULL;
}

static void unlock(void *lock)
{
	MUST(pthread_mutex_unlock(lock) == 0);
}

static void *wait_for_ever(void *arg)
{
	pthread_mutex_t *lock = arg;
	pthread_cond_t *never = (pthread_cond_t *)((char *)arg + 2 * PAGE);

	MUST(pthread_mutex_lock(lock) == 0);
	pthread_cleanup_push(unlock, lock);
	for (;;)
		pthread_cond_wait(never, lock);
	pthread_cleanup_pop(1);
	return NULL;
}

static void cancelled(void *(*f)(void *), void *arg)
{
	pthread_t t;
	void *result;

	away();
	MUST(pthread_create(&t, NULL, f, arg) == 0);
	sleep_seconds(0.1);
	away();
	CHECK_EQ(pthread_cancel(t), 0);
	CHECK_EQ(pthread_join(t, &result), 0);
	CHECK(result == PTHREAD_CANCELED);
}

static void cancelled_calls(void)
{
	pthread_mutex_t *lock;
	pthread_cond_t *never;
	int pair[2];

	if (SANITIZED) {
		note_skipped("cancellation", "sanitizers do not see frames go with a thread");
		return;
	}
	open_guarded();
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	lock = room(2 * PAGE + sizeof *never);
	never = (pthread_cond_t *)((char *)lock + 2 * PAGE);
	pthread_mutex_init(lock, NULL);
	pthread_cond_init(never, NULL);
	cancelled(read_for_ever, &pair[0]);
	cancelled(receive_for_ever, &pair[0]);
	cancelled(wait_for_ever, lock);
	/* It was unlocked on the way out. */
	CHECK_EQ(GONE(pthread_mutex_trylock(lock)), 0);
	CHECK_EQ(GONE(pthread_mutex_unlock(lock)), 0);
	CHECK_EQ(GONE(pthread_cond_destroy(never)), 0);
	close(pair[0]);
	close(pair[1]);
	close_guarded();
}

static void *read_once(void *fd)
{
	MUST(read(*(int *)fd, base + PAGE, 8000) == 8000);
	return NULL;
}

/* A thread is unwound at its call, not out of the middle of what serves it. */
static void cancelled_anywhere(void)
{
	int zero = open("/dev/zero", O_RDONLY);
	double until;

	if (SANITIZED) {
		note_skipped("cancellation", "sanitizers do not see frames go with a thread");
		return;
	}
	open_guarded();
	until = seconds_now() + quick_or_full(1.5, 20);
	while (seconds_now() < until) {
		pthread_t t;

		base[(CROWD + (size_t)random() % 1000) * PAGE] = 1;
		MUST(pthread_create(&t, NULL, read_once, &zero) == 0);
		if (random() % 2)
			sched_yield();
		pthread_cancel(t);
		MUST(pthread_join(t, NULL) == 0);
	}
	/* All of it works as before. */
	away();
	close(zero);
	close_guarded();
}

static void on_mask(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	sigaddset(&((ucontext_t *)context)->uc_sigmask, SIGUSR2);
}

static bool is_blocked(int number)
{
	sigset_t now;

	pthread_sigmask(SIG_BLOCK, NULL, &now);
	return sigismember(&now, number) == 1;
}

/* A handler may change the mask of what it interrupted; nothing else does. */
static void masks_afterwards(void)
{
	struct sigaction a = { .sa_sigaction = on_mask, .sa_flags = SA_SIGINFO };
	struct iovec v;
	sigset_t usr2;
	int pipes[2];

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	v = (struct iovec){ room(10000), 10000 };
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	for (int i = 0; i < 2; i++) {
		CHECK(!is_blocked(SIGUSR2) && !is_blocked(SIGUSR1) && !is_blocked(SIGALRM));
		away();
		interrupt_by(on_interrupt, 0);
		MUST(sigaction(SIGALRM, &a, NULL) == 0);
		CHECK_EQ(i ? readv(pipes[0], &v, 1) : read(pipes[0], v.iov_base, 10000), -1);
		CHECK_EQ(errno, EINTR);
		CHECK(is_blocked(SIGUSR2) && !is_blocked(SIGUSR1) && !is_blocked(SIGALRM));
		pthread_sigmask(SIG_UNBLOCK, &usr2, NULL);
	}
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

static void on_sys(int number, siginfo_t *info, void *context)
{
	(void)number;
	MUST(quire_handle_signal(SIGSYS, info, context));
}

static void on_tick(int number)
{
	(void)number;
	MUST(getrandom(base + 3000 * PAGE, 100, 0) == 100);
	atomic_fetch_add(&interruptions, 1);
}

/* A handler of the program's for SIGSYS, which asks first, while others make guarded calls. */
static void chained_handler(void)
{
	struct sigaction mine = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO }, before;
	struct sigaction tick = { .sa_handler = on_tick };
	struct itimerval fast = { { 0, 300 }, { 0, 300 } }, off = { { 0, 0 }, { 0, 0 } };
	int fd = open("/dev/zero", O_RDONLY);
	char *a;

	open_guarded();
	a = room(50000);
	sigfillset(&mine.sa_mask);
	MUST(sigaction(SIGSYS, &mine, &before) == 0);
	MUST(sigaction(SIGALRM, &tick, NULL) == 0);
	interruptions = 0;
	MUST(setitimer(ITIMER_REAL, &fast, NULL) == 0);
	for (int i = 0; i < 30; i++)
		CHECK(GONE(read(fd, a, 50000)) > 0);
	MUST(setitimer(ITIMER_REAL, &off, NULL) == 0);
	CHECK(interruptions > 0);
	MUST(sigaction(SIGSYS, &before, NULL) == 0);
	close(fd);
	close_guarded();
}

static void masks_and_stacks(void)
{
	static char stack[65536];
	stack_t *s, *old, none = { .ss_flags = SS_DISABLE };
	sigset_t *set, *was, now;

	sigaltstack(&none, NULL); /* sanitizers have one */
	open_guarded();
	set = room(sizeof *set);
	was = room(sizeof *was);
	s = room(sizeof *s);
	old = room(sizeof *old);
	sigemptyset(set);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGSYS);
	sigaddset(set, SIGBUS);
	sigaddset(set, SIGSEGV);
	CHECK_EQ(GONE(sigprocmask(SIG_BLOCK, set, was)), 0);
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGSYS) == 1);
	sigdelset(&now, SIGSYS);
	sigdelset(&now, SIGBUS);
	sigdelset(&now, SIGSEGV);
	sigprocmask(SIG_SETMASK, &now, NULL);
	CHECK(sigismember(was, SIGUSR1) == 0);
	CHECK_EQ(GONE(sigprocmask(SIG_UNBLOCK, set, was)), 0);
	CHECK(sigismember(was, SIGUSR1) == 1);
	CHECK_EQ(GONE(sigprocmask(4711, set, NULL)), -1);
	CHECK_EQ(errno, EINVAL);
	*s = (stack_t){ .ss_sp = stack, .ss_size = sizeof stack };
	CHECK_EQ(GONE(sigaltstack(s, old)), 0);
	CHECK_EQ(old->ss_flags, SS_DISABLE);
	CHECK_EQ(GONE(sigaltstack(NULL, old)), 0);
	CHECK(old->ss_sp == stack && old->ss_flags == 0);
	s->ss_size = 100;
	CHECK_EQ(GONE(sigaltstack(s, NULL)), -1);
	CHECK_EQ(errno, ENOMEM);
	*s = (stack_t){ .ss_flags = SS_DISABLE };
	CHECK_EQ(GONE(sigaltstack(s, NULL)), 0);
	CHECK_EQ(sigaltstack(NULL, old), 0);
	CHECK_EQ(old->ss_flags, SS_DISABLE);
	close_guarded();
}

/* ---------------------------------------------------------------- futexes */

struct shared {
	pthread_mutex_t lock;
	char far[2 * PAGE];
	pthread_cond_t changed;
	char away[2 * PAGE];
	unsigned turn;
};

static void *take_turns(void *arg)
{
	struct shared *s = arg;
	unsigned me = atomic_fetch_add(&interruptions, 1) % 2;

	for (int i = 0; i < 100; i++) {
		MUST(pthread_mutex_lock(&s->lock) == 0);
		while (s->turn % 2 != me)
			MUST(pthread_cond_wait(&s->changed, &s->lock) == 0);
		s->turn++;
		for (size_t k = 0; k < CROWD_PAGES / 2; k++)
			base[(CROWD + 1000 * me + k) * PAGE] = (char)i;
		MUST(pthread_cond_broadcast(&s->changed) == 0);
		MUST(pthread_mutex_unlock(&s->lock) == 0);
	}
	return NULL;
}

static void turns(int protocol)
{
	struct shared *s = room(sizeof *s);
	pthread_mutexattr_t attributes;
	pthread_t t[2];

	memset(s, 0, sizeof *s);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, protocol);
	MUST(pthread_mutex_init(&s->lock, &attributes) == 0);
	MUST(pthread_cond_init(&s->changed, NULL) == 0);
	away();
	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&t[i], NULL, take_turns, s) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(s->turn, 200);
}

static void locks(void)
{
	open_guarded();
	interruptions = 0;
	turns(PTHREAD_PRIO_NONE);
	turns(PTHREAD_PRIO_INHERIT);
	close_guarded();
}

static void *wait_on_word(void *word)
{
	while (atomic_load((atomic_uint *)word) == 1)
		syscall(SYS_futex, word, FUTEX_WAIT, 1, NULL, NULL, 0);
	return NULL;
}

/* The addresses are hidden, in a structure on the stack. */
static void many_words(void)
{
	struct {
		uint64_t value, address;
		uint32_t flags, reserved;
	} waiters[2] = { { .value = 1, .flags = 2 }, { .value = 1, .flags = 2 } };
	struct timespec *past;
	uint32_t *words[2];

	open_guarded();
	past = room(sizeof *past);
	for (int i = 0; i < 2; i++) {
		words[i] = room(4);
		*words[i] = 1;
		waiters[i].address = (uintptr_t)words[i];
	}
	*past = (struct timespec){ 1, 0 };
	if (GONE(syscall(449, waiters, 2, 0, past, CLOCK_MONOTONIC)) == -1 && errno == ENOSYS) {
		note_skipped("futex_waitv(2)", "Linux 5.16");
	} else {
		CHECK_EQ(errno, ETIMEDOUT);
		*words[1] = 2;
		CHECK_EQ(GONE(syscall(449, waiters, 2, 0, past, CLOCK_MONOTONIC)), -1);
		CHECK_EQ(errno, EAGAIN);
	}
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

/* Who sleeps holds nothing: the page goes, and comes back for the wake-up. */
static void asleep(void)
{
	atomic_uint *word;
	pthread_t t;
	int tries = 0;

	open_guarded();
	word = room(4);
	*word = 1;
	away();
	MUST(pthread_create(&t, NULL, wait_on_word, (void *)word) == 0);
	sleep_seconds(0.1);
	away();
	*word = 2;
	away();
	while (syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) != 1 && tries++ < 100)
		sleep_seconds(0.01);
	CHECK(tries < 100);
	pthread_join(t, NULL);
	close_guarded();
}

static void *read_all(void *fd)
{
	char *a = base + PAGE;
	size_t n = 0;

	while (n < MIB) {
		ssize_t part = read(*(int *)fd, a + n, MIB - n);

		MUST(part > 0);
		n += (size_t)part;
	}
	return NULL;
}

/* A call that blocks keeps nothing from being evicted, of whatever length it is. */
static void long_call(void)
{
	int pipes[2];
	pthread_t t;
	char *a;

	open_guarded();
	REQUIRE(pipe(pipes) == 0);
	a = room(MIB + 3 * PAGE);
	MUST(a == base + PAGE);
	MUST(pthread_create(&t, NULL, read_all, &pipes[0]) == 0);
	sleep_seconds(0.1);
	away();
	CHECK_EQ(pager_stats(q).pinned, 0);
	for (unsigned i = 0; i < MIB / PAGE; i++) {
		char page[PAGE];

		bytes(page, PAGE, i);
		MUST(write(pipes[1], page, PAGE) == PAGE);
	}
	pthread_join(t, NULL);
	for (unsigned i = 0; i < MIB / PAGE; i++)
		CHECK(are_bytes(a + i * PAGE, PAGE, 0, i));
	close(pipes[0]);
	close(pipes[1]);
	close_guarded();
}

/* --------------------------------------------------------------- programs */

static int status_of(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return status;
}

static void executed_programs(void)
{
	char **list, *here[3], *path, *command, *echo;
	FILE *stream;
	char text[20];
	posix_spawnattr_t *attributes;
	pid_t child, *in_region;

	open_guarded();
	path = room_for("/bin/sh");
	command = room_for("test \"$1\" = here -a \"$2\" = there");
	list = room(6 * sizeof *list);
	list[0] = path;
	list[1] = room_for("-c");
	list[2] = command;
	list[3] = room_for("sh");
	list[4] = room_for("here");
	list[5] = NULL;
	echo = room_for("echo written");
	/* "there" is missing. */
	away();
	child = vfork();
	if (child == 0) {
		execve(path, list, environ);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	here[0] = path;
	here[1] = room_for("/");
	here[2] = NULL;
	away();
	child = vfork();
	if (child == 0) {
		execv("/bin/ls", here);
		_exit(99);
	}
	CHECK_EQ(status_of(child), 0);
	CHECK_EQ(GONE(posix_spawn(&child, path, NULL, NULL, list, environ)), 0);
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	in_region = room(sizeof *in_region);
	attributes = room(sizeof *attributes);
	posix_spawnattr_init(attributes);
	CHECK_EQ(GONE(posix_spawn(in_region, path, NULL, attributes, list, environ)), 0);
	CHECK_EQ(WEXITSTATUS(status_of(*in_region)), 1);
	CHECK_EQ(GONE(posix_spawnp(&child, room_for("true"), NULL, NULL, here, environ)), 0);
	CHECK_EQ(status_of(child), 0);
	CHECK_EQ(GONE(system(echo)), 0);
	away();
	child = vfork();
	if (child == 0) {
		execl(list[0], list[3], list[1], list[2], list[3], list[4], NULL);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	away();
	child = vfork();
	if (child == 0) {
		execlp("sh", list[3], list[1], list[2], list[3], list[4], list[4], NULL);
		_exit(99);
	}
	CHECK_EQ(WEXITSTATUS(status_of(child)), 1);
	stream = GONE(popen(echo, "r"));
	REQUIRE(stream != NULL);
	CHECK(fgets(text, sizeof text, stream) != NULL);
	CHECK_STR(text, "written\n");
	CHECK_EQ(pclose(stream), 0);
	CHECK_EQ(GONE(execve(list[2], list, environ)), -1);
	CHECK_EQ(errno, ENOENT);
	close_guarded();
}

static unsigned filters(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];
	unsigned n = 0;

	while (f && fgets(line, sizeof line, f))
		sscanf(line, "Seccomp_filters: %u", &n);
	if (f)
		fclose(f);
	return n;
}

/* A program that is executed has the filter already, and does not add another. */
static void inherited_filter(void)
{
	char *self[] = { (char *)*unit_program(), (char *)"again", NULL };
	pid_t child;

	open_guarded();
	if (engine_serves_kernel(q)) {
		close_guarded();
		return;
	}
	fflush(stdout);
	child = vfork();
	if (child == 0) {
		char count[40];

		snprintf(count, sizeof count, "%u", filters());
		setenv("QUIRE_TEST_FILTERS", count, 1);
		execv("/proc/self/exe", self);
		_exit(99);
	}
	CHECK_EQ(status_of(child), 0);
	close_guarded();
}

static int again(void)
{
	char *a;

	open_guarded();
	a = room(5000);
	MUST(GONE(getrandom(a, 5000, 0)) == 5000);
	MUST(filters() == strtoul(getenv("QUIRE_TEST_FILTERS"), NULL, 10));
	MUST(quire_close(q) == 0);
	return 0;
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
	static const struct unit_test tests[] = { UNIT(without_guard),
		                                  UNIT(file_bytes),
		                                  UNIT(direct_file),
		                                  UNIT(file_names),
		                                  UNIT(stream_sockets),
		                                  UNIT(datagrams),
		                                  UNIT(lengths_that_change),
		                                  UNIT(counts_of_their_own),
		                                  UNIT(whole_records),
		                                  UNIT(beyond_the_end),
		                                  UNIT(nested_calls),
		                                  UNIT(waiting),
		                                  UNIT(odds_and_ends),
		                                  UNIT(bad_addresses),
		                                  UNIT(unknown_call),
		                                  UNIT(interrupted_calls),
		                                  UNIT(left_calls),
		                                  UNIT(cancelled_calls),
		                                  UNIT(masks_and_stacks),
		                                  UNIT(cancelled_anywhere),
		                                  UNIT(masks_afterwards),
		                                  UNIT(chained_handler),
		                                  UNIT(locks),
		                                  UNIT(asleep),
		                                  UNIT(many_words),
		                                  UNIT(spliced),
		                                  UNIT(long_call),
		                                  UNIT(executed_programs),
		                                  UNIT(inherited_filter),
		                                  UNIT(stack_use),
		                                  UNIT_END };

	if (argc == 2 && strcmp(argv[1], "again") == 0)
		return again();
	return unit_main(argc, argv, "guard", tests);
}
