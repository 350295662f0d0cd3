/* SPDX-License-Identifier: MIT */
/*
 * tests/guard/traffic.c - system calls on paged memory: eight threads that do file and
 * socket I/O, mutexes, condition variables and stdio, all of whose buffers and objects
 * are in one region under a budget of 64 pages, while signals interrupt them. Every byte
 * is checked.
 *
 *     traffic [-t SECONDS] [-m PAGES] [-s SEED]
 *
 * Engine and the rest come from the environment; the guard is on. Exit status 0, 1 (a wrong
 * byte, or a call that failed), 77 (no engine, or no guard, here).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <quire.h>

#define KINDS 4
#define THREADS 8
#define SHARE ((size_t)8 << 20) /* of the region, for each thread */
#define BUFFER ((size_t)1 << 20)
#define BLOCK 4096
#define FILE_BLOCKS 1024
#define DATAGRAM_MAX 60000
#define QUEUE 16

static quire_t *pager;
static char *memory;
static double deadline;
static uint64_t seed;
static _Atomic bool stopping;
static _Atomic uint64_t rounds[KINDS], signals;
static pthread_t threads[THREADS];
static const char *const kinds[KINDS] = { "file", "socket", "queue", "stdio" };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

_Noreturn static void fail(int line, const char *what)
{
	fprintf(stderr, "traffic: line %d: %s (%s); seed %llu\n", line, what, strerror(errno),
	        (unsigned long long)seed);
	fflush(stderr);
	_exit(1);
}

#define MUST(x) ((x) ? (void)0 : fail(__LINE__, #x))
/* A call that a signal may interrupt. */
#define AGAIN(result, call)        \
	do                         \
		(result) = (call); \
	while ((result) < 0 && errno == EINTR)

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

struct worker {
	unsigned index;
	uint64_t random;
	char *share; /* its part of the region */
};

static uint64_t next(struct worker *w)
{
	return w->random = mix(w->random + 0x9e3779b97f4a7c15ull);
}

static size_t below(struct worker *w, size_t n)
{
	return next(w) % n;
}

/* Bytes n from key on, which no other key has in that order. */
static void fill(char *p, size_t n, uint64_t key)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)(mix(key + i / 8) >> i % 8 * 8);
}

static size_t wrong(const char *p, size_t n, uint64_t key)
{
	size_t bad = 0;

	for (size_t i = 0; i < n; i++)
		bad += p[i] != (char)(mix(key + i / 8) >> i % 8 * 8);
	return bad;
}

/* Somewhere in the share, and not where it was the time before. */
static char *place(struct worker *w, size_t n, unsigned half)
{
	return w->share + half * (SHARE / 2) + below(w, SHARE / 2 - n);
}

static bool goes_on(unsigned kind)
{
	atomic_fetch_add(&rounds[kind], 1);
	return !atomic_load(&stopping);
}

/* ------------------------------------------------------------------ files */

static int temporary_file(void)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/quire-traffic.XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	MUST(fd >= 0);
	unlink(path);
	return fd;
}

/* Cut p into at most eight segments. */
static int cut(struct worker *w, char *p, size_t n, struct iovec *v)
{
	int count = 0;

	while (n > 0 && count < 7) {
		size_t part = 1 + below(w, n);

		v[count++] = (struct iovec){ p, part };
		p += part;
		n -= part;
	}
	if (n)
		v[count++] = (struct iovec){ p, n };
	return count;
}

static void file_write(struct worker *w, int fd, const char *p, size_t n, off_t at)
{
	/* The list itself is in paged memory half of the time. */
	struct iovec here[8], *v = below(w, 2) ? here : (struct iovec *)(w->share + 64);
	ssize_t done;
	int count;

	switch (below(w, 3)) {
	case 0:
		MUST(lseek(fd, at, SEEK_SET) == at);
		AGAIN(done, write(fd, p, n));
		break;
	case 1:
		AGAIN(done, pwrite(fd, p, n, at));
		break;
	default:
		count = cut(w, (char *)p, n, v);
		AGAIN(done,
		      below(w, 2) ? pwritev(fd, v, count, at) : pwritev2(fd, v, count, at, 0));
	}
	MUST(done == (ssize_t)n);
}

static void file_read(struct worker *w, int fd, char *p, size_t n, off_t at)
{
	struct iovec here[8], *v = below(w, 2) ? here : (struct iovec *)(w->share + 64);
	ssize_t done;
	int count;

	switch (below(w, 3)) {
	case 0:
		MUST(lseek(fd, at, SEEK_SET) == at);
		AGAIN(done, read(fd, p, n));
		break;
	case 1:
		AGAIN(done, pread(fd, p, n, at));
		break;
	default:
		count = cut(w, p, n, v);
		AGAIN(done, below(w, 2) ? preadv(fd, v, count, at) : preadv2(fd, v, count, at, 0));
	}
	MUST(done == (ssize_t)n);
}

static void do_files(struct worker *w)
{
	static uint64_t keys[THREADS][FILE_BLOCKS];
	uint64_t *key = keys[w->index];
	struct stat *st = (struct stat *)(w->share + 1024);
	int fd = temporary_file();

	for (unsigned i = 0; i < FILE_BLOCKS; i++)
		key[i] = next(w);
	MUST(ftruncate(fd, FILE_BLOCKS * BLOCK) == 0);
	for (unsigned i = 0; i < FILE_BLOCKS; i += 256) {
		char *p = place(w, BUFFER, 1);

		for (unsigned k = 0; k < 256; k++)
			fill(p + k * BLOCK, BLOCK, key[i + k]);
		file_write(w, fd, p, BUFFER, (off_t)i * BLOCK);
	}
	do {
		size_t n = below(w, 4) ? 1 + below(w, 8) : 1 + below(w, 200);
		size_t first = below(w, FILE_BLOCKS - n);
		char *p = place(w, n * BLOCK, 1);

		if (below(w, 2)) {
			for (size_t i = 0; i < n; i++)
				fill(p + i * BLOCK, BLOCK, key[first + i] = next(w));
			file_write(w, fd, p, n * BLOCK, (off_t)(first * BLOCK));
		} else {
			file_read(w, fd, p, n * BLOCK, (off_t)(first * BLOCK));
			for (size_t i = 0; i < n; i++)
				MUST(wrong(p + i * BLOCK, BLOCK, key[first + i]) == 0);
		}
		MUST(fstat(fd, st) == 0 && st->st_size == FILE_BLOCKS * BLOCK);
	} while (goes_on(0));
	close(fd);
}

/* ---------------------------------------------------------------- sockets */

static int stream[2], datagrams[2];

/* What both sides know: lengths and contents of all that is sent. */
static size_t length_of(uint64_t key, size_t max)
{
	return key % 5 ? 1 + key / 7 % 6000 : 1 + key / 7 % max;
}

static ssize_t send_some(struct worker *w, char *p, size_t n)
{
	struct iovec v[8];
	struct msghdr m = { .msg_iov = v };
	ssize_t done;

	switch (below(w, 4)) {
	case 0:
		AGAIN(done, write(stream[0], p, n));
		break;
	case 1:
		AGAIN(done, send(stream[0], p, n, MSG_NOSIGNAL));
		break;
	case 2:
		AGAIN(done, writev(stream[0], v, cut(w, p, n, v)));
		break;
	default:
		m.msg_iovlen = (size_t)cut(w, p, n, v);
		AGAIN(done, sendmsg(stream[0], &m, MSG_NOSIGNAL));
	}
	return done;
}

static ssize_t receive_some(struct worker *w, char *p, size_t n)
{
	struct epoll_event *event = (struct epoll_event *)(w->share + 512);
	struct iovec v[8];
	struct msghdr *m = (struct msghdr *)(w->share + 256);
	static int epoll = -1;
	ssize_t done;

	if (epoll < 0) {
		epoll = epoll_create1(0);
		event->events = EPOLLIN;
		event->data.u64 = 4711;
		MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, stream[1], event) == 0);
	}
	switch (below(w, 5)) {
	case 0:
		AGAIN(done, read(stream[1], p, n));
		break;
	case 1:
		AGAIN(done, recv(stream[1], p, n, MSG_WAITALL));
		break;
	case 2:
		AGAIN(done, readv(stream[1], v, cut(w, p, n, v)));
		break;
	case 3:
		event->data.u64 = 0;
		AGAIN(done, epoll_wait(epoll, event, 4, 5000));
		MUST(done == 1 && event->data.u64 == 4711);
		AGAIN(done, recvfrom(stream[1], p, n, 0, NULL, NULL));
		break;
	default:
		*m = (struct msghdr){ .msg_iov = v, .msg_iovlen = (size_t)cut(w, p, n, v) };
		AGAIN(done, recvmsg(stream[1], m, 0));
	}
	return done;
}

#define BATCH 4

static void send_datagrams(struct worker *w, uint64_t key)
{
	struct mmsghdr *m = (struct mmsghdr *)(w->share + 1024);
	struct iovec *v = (struct iovec *)(w->share + 2048);
	int sent, all = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		size_t n = length_of(mix(key + i), DATAGRAM_MAX);
		char *p = w->share + SHARE / 2 + i * ((size_t)1 << 17) + below(w, 4096);

		fill(p, n, key + i);
		v[i] = (struct iovec){ p, n };
		m[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &v[i], .msg_iovlen = 1 } };
	}
	while (all < BATCH) {
		AGAIN(sent, sendmmsg(datagrams[0], m + all, (unsigned)(BATCH - all), 0));
		MUST(sent > 0);
		all += sent;
	}
}

static void receive_datagrams(struct worker *w, uint64_t key)
{
	struct mmsghdr m[BATCH];
	struct iovec v[BATCH];
	int got, all = 0;

	while (all < BATCH) {
		for (int i = all; i < BATCH; i++) {
			v[i] = (struct iovec){ w->share + SHARE / 2 + (size_t)i * (1 << 17) +
				                       below(w, 4096),
				               DATAGRAM_MAX + 100 };
			m[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &v[i], .msg_iovlen = 1 } };
		}
		AGAIN(got, recvmmsg(datagrams[1], m + all, (unsigned)(BATCH - all), MSG_WAITFORONE,
		                    NULL));
		MUST(got > 0);
		for (int i = all; i < all + got; i++) {
			MUST(m[i].msg_len == length_of(mix(key + (unsigned)i), DATAGRAM_MAX));
			MUST(wrong(v[i].iov_base, m[i].msg_len, key + (unsigned)i) == 0);
		}
		all += got;
	}
}

static void do_sockets(struct worker *w)
{
	bool sends = w->index < KINDS;
	struct worker common = { .random = seed ^ 0x50c }; /* the same on both sides */

	/* The sender stops after a whole round, and says so by a length of zero. */
	for (;;) {
		uint64_t key = next(&common), header[2] = { length_of(key, BUFFER), key };
		ssize_t done, part;
		size_t n, at;
		char *p;

		if (sends) {
			if (!goes_on(1))
				header[0] = 0;
			AGAIN(done, write(stream[0], header, sizeof header));
			MUST(done == sizeof header);
		} else {
			AGAIN(done, recv(stream[1], header, sizeof header, MSG_WAITALL));
			MUST(done == sizeof header && header[1] == key);
		}
		if (header[0] == 0)
			return;
		n = header[0];
		p = w->share + 8192 + below(w, 4096);
		if (sends)
			fill(p, n, key);
		else
			memset(p, 0, n);
		for (at = 0; at < n; at += (size_t)part) {
			part = sends ? send_some(w, p + at, n - at) :
			               receive_some(w, p + at, n - at);
			MUST(part > 0);
		}
		MUST(sends || wrong(p, n, key) == 0);
		if (sends)
			send_datagrams(w, key);
		else
			receive_datagrams(w, key);
	}
}

/* ------------------------------------------------------------------ queue */

struct queue {
	pthread_mutex_t lock;
	char far[3 * 4096]; /* each on pages of its own */
	pthread_cond_t filled;
	char away[3 * 4096];
	pthread_cond_t emptied;
	char off[3 * 4096];
	unsigned count, head;
	bool over;
	struct {
		uint64_t key;
		char bytes[5000];
	} items[QUEUE];
};

static struct queue *queue;

static void do_queue(struct worker *w)
{
	bool produces = w->index < KINDS, over = false;
	uint64_t expected = 1;
	struct timespec *until = (struct timespec *)(w->share + 128);

	while (!over) {
		size_t at;

		MUST(pthread_mutex_lock(&queue->lock) == 0);
		while (produces ? queue->count == QUEUE : queue->count == 0 && !queue->over) {
			int error;

			clock_gettime(CLOCK_REALTIME, until);
			until->tv_sec += 20;
			error = pthread_cond_timedwait(produces ? &queue->emptied : &queue->filled,
			                               &queue->lock, until);
			MUST(error == 0);
		}
		if (produces) {
			at = (queue->head + queue->count) % QUEUE;
			queue->items[at].key = expected;
			fill(queue->items[at].bytes, sizeof queue->items[at].bytes, expected++);
			queue->count++;
			over = queue->over = !goes_on(2);
			pthread_cond_signal(&queue->filled);
		} else if (queue->count) {
			at = queue->head;
			MUST(queue->items[at].key == expected);
			MUST(wrong(queue->items[at].bytes, sizeof queue->items[at].bytes,
			           expected++) == 0);
			queue->head = (queue->head + 1) % QUEUE;
			queue->count--;
			pthread_cond_signal(&queue->emptied);
		} else {
			over = true;
		}
		MUST(pthread_mutex_unlock(&queue->lock) == 0);
		if (below(w, 8) == 0)
			memset(place(w, 100000, 1), (int)expected, 100000);
	}
}

static void make_queue(struct worker *w)
{
	queue = (struct queue *)w->share;
	MUST(pthread_mutex_init(&queue->lock, NULL) == 0);
	MUST(pthread_cond_init(&queue->filled, NULL) == 0);
	MUST(pthread_cond_init(&queue->emptied, NULL) == 0);
}

/* ------------------------------------------------------------------ stdio */

static void do_stdio(struct worker *w)
{
	char *line = w->share + 100, *big = w->share + 100000;
	FILE *f;

	do {
		size_t lines = 1 + below(w, 3000), n = 1 + below(w, 300000), bytes = 0;
		uint64_t key = next(w);

		f = fdopen(temporary_file(), "w+");
		MUST(f);
		MUST(setvbuf(f, place(w, 65536, 1), below(w, 2) ? _IOFBF : _IOLBF,
		             1 + below(w, 65536)) == 0);
		for (size_t i = 0; i < lines; i++) {
			int printed = fprintf(f, "%zu of %zu: %016llx\n", i, lines,
			                      (unsigned long long)mix(key + i));

			MUST(printed > 0);
			bytes += (size_t)printed;
		}
		fill(big, n, key);
		MUST(fwrite(big, 1, n, f) == n);
		MUST(fseek(f, 0, SEEK_SET) == 0);
		for (size_t i = 0; i < lines; i++) {
			size_t a, b;
			unsigned long long c;

			MUST(fgets(line, 200, f) == line);
			MUST(sscanf(line, "%zu of %zu: %llx", &a, &b, &c) == 3);
			MUST(a == i && b == lines && c == mix(key + i));
		}
		memset(big, 0, n);
		MUST(fread(big, 1, n, f) == n);
		MUST(wrong(big, n, key) == 0 && fgetc(f) == EOF);
		MUST((size_t)ftell(f) == bytes + n);
		MUST(fclose(f) == 0);
	} while (goes_on(3));
}

/* ---------------------------------------------------------------- the run */

static void *work(void *arg)
{
	static void (*const jobs[KINDS])(struct worker *) = { do_files, do_sockets, do_queue,
		                                              do_stdio };
	struct worker *w = arg;

	jobs[w->index % KINDS](w);
	return NULL;
}

static void on_signal(int number)
{
	int saved = errno;
	/* A guarded call of its own. */
	uint32_t *word = (uint32_t *)(memory + THREADS * SHARE + 4096 * (unsigned)number);
	struct timespec *t = (struct timespec *)(word + 4);

	atomic_fetch_add(&signals, 1);
	t->tv_sec = -1;
	if (clock_gettime(CLOCK_MONOTONIC, t) != 0 || t->tv_sec < 0)
		_exit(1);
	errno = saved;
}

static void interrupt(void)
{
	struct sigaction restarts = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction interrupts = { .sa_handler = on_signal };

	MUST(sigaction(SIGUSR1, &restarts, NULL) == 0);
	MUST(sigaction(SIGUSR2, &interrupts, NULL) == 0);
}

static void sockets(void)
{
	int bytes = 1 << 20;

	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
	setsockopt(datagrams[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void run(void)
{
	static struct worker workers[THREADS];
	uint64_t random = seed;

	for (unsigned i = 0; i < THREADS; i++)
		workers[i] = (struct worker){ .index = i,
			                      .random = mix(seed + i),
			                      .share = memory + i * SHARE };
	sockets();
	make_queue(&workers[2]);
	interrupt();
	for (unsigned i = 0; i < THREADS; i++)
		MUST(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
	while (now() < deadline) {
		random = mix(random + 1);
		/* stdio gives up at EINTR: its threads get the other one. */
		pthread_kill(threads[random % THREADS],
		             random % KINDS == 3 || random % 3 ? SIGUSR1 : SIGUSR2);
		usleep((unsigned)(random >> 32) % 2000);
	}
	atomic_store(&stopping, true);
	for (unsigned i = 0; i < THREADS; i++)
		MUST(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv)
{
	struct quire_options o = { .size = sizeof o, .memory = QUIRE_MEMORY_MIN, .guard = "on" };
	double seconds = 5;
	quire_region_t *region;
	struct quire_stats s;
	int c, error;

	seed = (uint64_t)time(NULL);
	while ((c = getopt(argc, argv, "t:m:s:")) != -1) {
		switch (c) {
		case 't':
			seconds = atof(optarg);
			break;
		case 'm':
			o.memory = (size_t)atol(optarg) * QUIRE_PAGE_SIZE;
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	printf("seed %llu: %s -t %g -s %llu\n", (unsigned long long)seed, argv[0], seconds,
	       (unsigned long long)seed);
	error = quire_open(&pager, &o);
	if (error == -ENOTSUP) {
		printf("skipped: %s\n", quire_error_message());
		return 77;
	}
	MUST(error == 0);
	MUST(quire_region_create(pager, (THREADS + 1) * SHARE, NULL, &region) == 0);
	memory = quire_region_base(region);
	printf("%s", quire_choice(pager));
	fflush(stdout);
	deadline = now() + seconds;
	run();
	MUST(quire_stats_get(pager, &s) == 0);
	MUST(s.pinned == 0 && s.read_errors == 0 && s.write_errors == 0);
	printf("%llu calls guarded, %llu of them unknown; %llu signals; %llu pages in; rounds:",
	       (unsigned long long)s.guarded, (unsigned long long)s.unguarded,
	       (unsigned long long)signals, (unsigned long long)s.pages_in);
	for (unsigned k = 0; k < KINDS; k++)
		printf(" %s %llu", kinds[k], (unsigned long long)rounds[k]);
	printf("\n");
	MUST(s.unguarded == 0);
	MUST(quire_close(pager) == 0);
	return 0;
}
