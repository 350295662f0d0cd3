/* SPDX-License-Identifier: MIT */
/*
 * tests/unit/test_quiesce.c - a moment at which nobody is at work (base/quiesce.c), and the
 * gates that it is made of (base/gate.c).
 */
#include "base/base.h"
#include "base/gate.h"
#include "base/quiesce.h"
#include "tests/unit/unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static void begin(void)
{
	if (!quiesce_begin(UINT64_MAX))
		abort();
}

static _Atomic unsigned stage; /* of a test: how far its threads have come */

static void reach(unsigned n)
{
	atomic_store(&stage, n);
}

/* => false: not within ten seconds */
static bool await(unsigned n)
{
	uint64_t end = now_ns() + UINT64_C(10000000000);

	while (atomic_load(&stage) < n && now_ns() < end)
		sched_yield();
	return atomic_load(&stage) >= n;
}

static void nap(unsigned ms)
{
	struct timespec t = { .tv_nsec = ms * 1000000L };

	nanosleep(&t, NULL);
}

static pthread_t start(void *(*f)(void *), void *arg)
{
	pthread_t t;

	REQUIRE_EQ(pthread_create(&t, NULL, f, arg), 0);
	return t;
}

/* ------------------------------------------------------------------ gates */

static struct gate gate;

static void *go_in(void *arg)
{
	reach(1);
	gate_enter(&gate);
	reach(2);
	gate_leave(&gate);
	return arg;
}

static void a_closed_gate(void)
{
	pthread_t t;

	gate = (struct gate){ .inside = 0 };
	reach(0);
	gate_close(&gate, 0);
	t = start(go_in, NULL);
	CHECK(await(1));
	nap(20);
	CHECK_EQ(atomic_load(&stage), 1);
	gate_open(&gate);
	pthread_join(t, NULL);
	CHECK_EQ(atomic_load(&stage), 2);
	CHECK_EQ(atomic_load(&gate.inside), 0);
}

/* One attempt gives up while somebody is inside, and leaves the gate open; one's own do not count. */
static void attempts(void)
{
	gate = (struct gate){ .inside = 0 };
	gate_enter(&gate);
	CHECK(!gate_try_close(&gate, 0));
	CHECK_EQ(atomic_load(&gate.closed), 0);
	CHECK(gate_try_close(&gate, 1));
	CHECK_EQ(atomic_load(&gate.closed), 1);
	gate_open(&gate);
	gate_leave(&gate);
	CHECK(gate_try_close(&gate, 0));
	gate_open(&gate);
}

/* ---------------------------------------------------------------- quiesce */

static bool serves; /* the kind of the test's threads: ours, or the program's */

static void enter(void)
{
	if (serves)
		service_enter();
	else
		work_enter();
}

static void leave(void)
{
	if (serves)
		service_leave();
	else
		work_leave();
}

static void *stay_inside(void *arg)
{
	enter();
	reach(1);
	nap(30);
	reach(2);
	leave();
	return arg;
}

static void *come_later(void *arg)
{
	reach(3);
	enter();
	reach(4);
	leave();
	return arg;
}

/* It begins when those inside have left, who come meanwhile wait until it ends. */
static void begins_and_ends(void)
{
	for (int kind = 0; kind < 2; kind++) {
		pthread_t inside, later;

		serves = kind;
		reach(0);
		inside = start(stay_inside, NULL);
		CHECK(await(1));
		begin();
		CHECK_EQ(atomic_load(&stage), 2);
		later = start(come_later, NULL);
		CHECK(await(3));
		nap(20);
		CHECK_EQ(atomic_load(&stage), 3);
		quiesce_end();
		pthread_join(later, NULL);
		pthread_join(inside, NULL);
		CHECK_EQ(atomic_load(&stage), 4);
	}
}

static void *nested_work(void *arg)
{
	work_enter();
	work_enter();
	work_leave();
	reach(1);
	nap(20);
	reach(2);
	work_leave();
	return arg;
}

/* Work is left with the last leave; and what is done in service is no work. */
static void nesting(void)
{
	pthread_t t;

	reach(0);
	t = start(nested_work, NULL);
	CHECK(await(1));
	begin();
	CHECK_EQ(atomic_load(&stage), 2);
	/* Who is quiet passes. */
	work_enter();
	work_enter();
	work_leave();
	work_leave();
	quiesce_end();
	pthread_join(t, NULL);
	/* A fork in a call of ours, as of a callback: its own work is not waited for. */
	work_enter();
	work_enter();
	begin();
	work_leave();
	work_enter();
	quiesce_end();
	work_leave();
	work_leave();
	begin();
	quiesce_end();
}

static void *serve_with_work_inside(void *arg)
{
	reach(1);
	service_enter();
	/* The gate of work is closed meanwhile, and no matter here. */
	if (!await(2))
		reach(99);
	nap(2);
	work_enter();
	nap(5);
	work_leave();
	reach(3);
	service_leave();
	return arg;
}

static void *quiet_for_a_moment(void *arg)
{
	reach(2);
	begin();
	if (atomic_load(&stage) < 3)
		reach(99);
	quiesce_end();
	return arg;
}

static void service_is_one_piece(void)
{
	pthread_t s, t;

	reach(0);
	s = start(serve_with_work_inside, NULL);
	CHECK(await(1));
	t = start(quiet_for_a_moment, NULL);
	pthread_join(s, NULL);
	pthread_join(t, NULL);
	CHECK_EQ(atomic_load(&stage), 3);
}

/* ------------------------------------------------------------- giving way */

/* Inside, until another has been inside that came when the gates were closed. */
static void *wait_for_another(void *arg)
{
	enter();
	reach(1);
	if (!await(3))
		reach(99);
	leave();
	return arg;
}

static void *be_waited_for(void *arg)
{
	if (await(1))
		nap(10); /* by then somebody tries to close them */
	if (arg)
		service_enter();
	else
		work_enter();
	reach(3);
	if (arg)
		service_leave();
	else
		work_leave();
	return NULL;
}

/* The program's wait for each other and for ours; ours for each other and for the program's. */
static void gives_way(void)
{
	for (int kind = 0; kind < 4; kind++) {
		pthread_t a, b;

		serves = kind / 2;
		reach(0);
		a = start(wait_for_another, NULL);
		b = start(be_waited_for, kind % 2 ? &serves : NULL);
		CHECK(await(1));
		begin();
		CHECK_EQ(atomic_load(&stage), 3);
		quiesce_end();
		pthread_join(a, NULL);
		pthread_join(b, NULL);
	}
}

/* ------------------------------------------------------------------ forks */

enum { AT_WORK = 3, ROUNDS = 60 };

static _Atomic bool stop;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static volatile unsigned pair[AT_WORK][2]; /* alike when its thread is not at work */

/*
 * Threads that have begun. Nobody forks beside one that begins or ends: sanitizers allocate
 * then, under locks that their fork does not look after.
 */
static _Atomic unsigned begun;

static bool have_begun(unsigned n)
{
	uint64_t end = now_ns() + UINT64_C(10000000000);

	while (atomic_load(&begun) < n && now_ns() < end)
		sched_yield();
	return atomic_load(&begun) >= n;
}

static void *work_on(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	atomic_fetch_add(&begun, 1);
	while (!atomic_load(&stop)) {
		if (me == 0)
			service_enter();
		else
			work_enter();
		pair[me][0]++;
		sched_yield();
		pair[me][1]++;
		if (me == 0)
			service_leave();
		else
			work_leave();
	}
	return NULL;
}

/* In a child: nobody is half way, and both gates work as ever. depth: of work at the fork */
static int whole_child(unsigned depth)
{
	pthread_t t;

	alarm(10);
	for (unsigned i = 0; i < AT_WORK; i++)
		if (pair[i][0] != pair[i][1])
			return 1;
	quiesce_in_child();
	quiesce_end();
	while (depth--)
		work_leave();
	service_enter();
	service_leave();
	reach(0);
	serves = false;
	if (pthread_create(&t, NULL, stay_inside, NULL) != 0 || !await(1))
		return 2;
	begin();
	if (atomic_load(&stage) != 2)
		return 3;
	quiesce_end();
	pthread_join(t, NULL);
	return 0;
}

/* => children that were not as they should be */
static unsigned fork_often(unsigned rounds)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < rounds; i++) {
		unsigned depth = i % 2;
		int status = -1;
		pid_t pid;

		pthread_mutex_lock(&one_at_a_time);
		if (depth)
			work_enter();
		begin();
		pid = fork();
		if (pid == 0)
			_exit(whole_child(depth));
		quiesce_end();
		if (depth)
			work_leave();
		pthread_mutex_unlock(&one_at_a_time);
		bad += pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
	}
	return bad;
}

static void *fork_too(void *arg)
{
	atomic_fetch_add(&begun, 1);
	*(unsigned *)arg = fork_often(ROUNDS / 2);
	if (!await(1))
		*(unsigned *)arg += ROUNDS;
	return NULL;
}

static void forks(void)
{
	pthread_t t[AT_WORK], forker;
	unsigned bad = 0;

	if (unit_foreign_threads())
		return;
	stop = false;
	begun = 0;
	reach(0);
	for (uintptr_t i = 0; i < AT_WORK; i++)
		t[i] = start(work_on, (void *)i);
	CHECK(have_begun(AT_WORK));
	CHECK_EQ(fork_often(ROUNDS), 0);
	/* And two threads that do. */
	forker = start(fork_too, &bad);
	CHECK(have_begun(AT_WORK + 1));
	CHECK_EQ(fork_often(ROUNDS / 2), 0);
	reach(1);
	pthread_join(forker, NULL);
	CHECK_EQ(bad, 0);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < AT_WORK; i++)
		pthread_join(t[i], NULL);
}

int main(int argc, char **argv)
{
	static const struct unit_test tests[] = {
		UNIT(a_closed_gate),        UNIT(attempts),  UNIT(begins_and_ends), UNIT(nesting),
		UNIT(service_is_one_piece), UNIT(gives_way), UNIT(forks),           UNIT_END
	};

	return unit_main(argc, argv, "quiesce", tests);
}
