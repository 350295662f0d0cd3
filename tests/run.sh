#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh - runs the tests that are built in $BUILD (default build) and counts.
#
#   tests/run.sh [--minutes N] [--only WORD] [GROUP...]
#
# Groups, in the order in which they run by default:
#   checks        what the sources and the library must look like: scripts/check-*; the fuzzer's inputs
#   unit          tests/unit
#   integration   tests/integration, once each, with the default options
#   matrix        the programs that say so, a short stress, and system calls on paged memory (traffic),
#                 for each engine, with and without UFFDIO_MOVE (sigsegv: guard pages), with the swap
#                 file on disk and on tmpfs, and with io_uring and plain I/O; not each with each
#   container     the same programs as in a container: without userfaultfd, io_uring and more (EPERM,
#                 and again ENOSYS), as another user, in a memory cgroup. As root; others have the filter
# and by name only:
#   stress        the short stress and traffic once for each engine
#   everything    the matrix, each with each
#   soak          a thousand processes killed while they save, then stress and traffic with new seeds
#                 over all of that, again and again for --minutes (default 10)
#   valgrind      tests/unit under valgrind's memcheck, but for what it cannot follow
#
# --only runs only programs whose name contains WORD.
#
# A program passes by exit status 0, is skipped by 77 (the last line it prints is the reason), and
# fails by anything else, or when its time is over. One that wants other than the default says so in
# a comment line among its first thirty:
#   test: matrix              run it in the matrix too; it must take the options from the environment
#   test: matrix=in-thread    the same, but not for the engine uffd
#   test: timeout=SECONDS     default 60
#   test: alone               not beside others: it measures time
#
# The last line is "N passed, N failed, N skipped"; the exit status is 1 if any failed. The output
# of every program stays in $BUILD/test-logs.

set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
logs=$BUILD/test-logs
mkdir -p "$logs" || exit 2

minutes=10
everything=
only=
groups=()
while [ $# -gt 0 ]; do
	case $1 in
	--minutes) minutes=${2?} ; shift ;;
	--only) only=${2?} ; shift ;;
	checks | unit | integration | matrix | container | everything | stress | soak | valgrind) groups+=("$1") ;;
	*) sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2 ; exit 2 ;;
	esac
	shift
done
[ ${#groups[@]} -gt 0 ] || groups=(checks unit integration matrix container)

# The tests choose their options themselves; what the caller's environment says must not leak in.
for name in $(compgen -e QUIRE_); do
	case $name in QUIRE_TEST_*) ;; *) unset "$name" ;; esac
done

# Sanitizers: the program and the engines handle these signals, and the reports must fail the test.
export ASAN_OPTIONS="${ASAN_OPTIONS:-handle_segv=0:handle_sigbus=0:detect_leaks=0:exitcode=99}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-handle_segv=0:handle_sigbus=0:exitcode=99}"

jobs=${JOBS:-$(nproc 2> /dev/null || echo 1)}
[ "$jobs" -le 4 ] || jobs=4

passed=0 failed=0 skipped=0
failures=()

# directive FILE NAME: the value of "test: NAME=value" ("yes" for a bare NAME) in a source file.
directive() {
	local source=$1
	[ -f "$source" ] || source=${source%.c}.cc
	head -n 30 "$source" | sed -n 's/^[^a-zA-Z]*test:[[:space:]]*//p' | tr ' ' '\n' |
		sed -n -e "s/^$2=//p" -e "s/^$2\$/yes/p" | head -n 1
}

# execute LOG TIMEOUT COMMAND...: => LOG, and LOG.result with the status and the tenths of seconds
execute() {
	local log=$1 limit=$2 start=${EPOCHREALTIME/[.,]/} status
	shift 2
	# The braces keep the shell's own word about a killed program quiet.
	{ timeout -k 5 "$limit" "$@" > "$log" 2>&1 < /dev/null; } 2> /dev/null
	status=$?
	echo "$status $(((${EPOCHREALTIME/[.,]/} - start) / 100000))" > "$log.result"
}

# report NAME TIMEOUT LOG COMMAND: of a test that has ended, one line.
report() {
	local name=$1 limit=$2 log=$3 command=$4 status tenths seconds reason
	read -r status tenths < "$log.result"
	rm -f "$log.result"
	seconds=$((tenths / 10)).$((tenths % 10))
	case $status in
	0)
		passed=$((passed + 1))
		printf 'ok    %-58s %6s s\n' "$name" "$seconds" ;;
	77)
		skipped=$((skipped + 1))
		reason=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1)
		printf 'skip  %-58s %6s s  %s\n' "$name" "$seconds" "${reason:-no reason given}" ;;
	*)
		failed=$((failed + 1))
		failures+=("$name")
		reason="exit status $status"
		[ "$status" -le 128 ] || reason="signal $(kill -l $((status - 128)))"
		[ "$status" -ne 124 ] || reason="no end after $limit s"
		printf 'FAIL  %-58s %6s s  %s\n' "$name" "$seconds" "$reason"
		printf '      %s\n' "by: $command"
		if [ "$(wc -l < "$log")" -gt 200 ]; then
			printf '      ... (all of it is in %s)\n' "$log"
		fi
		tail -n 200 "$log" | sed 's/^/      | /' ;;
	esac
}

# Tests that are under way, by process: what report wants.
declare -A running_name=() running_limit=() running_log=() running_command=()

# finish_one: wait for one of them.
finish_one() {
	local pid
	wait -n -p pid "${!running_name[@]}"
	report "${running_name[$pid]}" "${running_limit[$pid]}" "${running_log[$pid]}" \
		"${running_command[$pid]}"
	unset "running_name[$pid]" "running_limit[$pid]" "running_log[$pid]" "running_command[$pid]"
}

finish_all() {
	while [ ${#running_name[@]} -gt 0 ]; do
		finish_one
	done
}

# run NAME TIMEOUT COMMAND...: one test, one line; alone.
run() {
	local name=$1 limit=$2 log
	shift 2
	[[ $name == *"$only"* ]] || return 0
	finish_all
	log=$logs/${name//[\/ ]/_}.log
	[ ! -t 1 ] || printf '      %s ...\r' "$name"
	execute "$log" "$limit" "$@"
	report "$name" "$limit" "$log" "$*"
}

# beside NAME TIMEOUT COMMAND...: the same beside others, as many as there are processors (JOBS).
beside() {
	local name=$1 limit=$2 log
	shift 2
	[[ $name == *"$only"* ]] || return 0
	while [ ${#running_name[@]} -ge "$jobs" ]; do
		finish_one
	done
	log=$logs/${name//[\/ ]/_}.log
	execute "$log" "$limit" "$@" &
	running_name[$!]=$name running_limit[$!]=$limit running_log[$!]=$log running_command[$!]=$*
}

# program NAME SOURCE COMMAND...: beside others, unless the source says "test: alone".
program() {
	local name=$1 source=$2 how=beside limit
	shift 2
	limit=$(directive "$source" timeout)
	[ -z "$(directive "$source" alone)" ] || how=run
	$how "$name" "${limit:-60}" "$@"
}

# skip NAME REASON: count a test that cannot be started.
skip() {
	[[ $1 == *"$only"* ]] || return 0
	skipped=$((skipped + 1))
	printf 'skip  %-58s %6s s  %s\n' "$1" 0.0 "$2"
}

# programs FOLDER: the names of its built programs.
programs() {
	local source
	for source in "$1"/*.c "$1"/*.cc; do
		[ -x "$BUILD/${source%.*}" ] && basename "${source%.*}"
	done
}

# folder GROUP FOLDER: every program of a folder, once.
folder() {
	local name found=
	for name in $(programs "$2"); do
		found=1
		program "$1/$name" "$2/$name.c" "$BUILD/$2/$name"
	done
	finish_all
	[ -n "$found" ] || { echo "run.sh: no programs in $BUILD/$2" >&2; failed=$((failed + 1)); }
}

# each_combination FUNCTION [all]: calls it with a label and the environment of each cell of the
# matrix: of every engine with its ways of taking pages, the kinds of swap files and of I/O. Without
# "all" each of these is tried with each engine, but not each with each.
each_combination() {
	local engine way swap io env
	for engine in uffd-signal uffd sigsegv; do
		for way in auto off; do
			for swap in disk tmpfs; do
				for io in uring sync; do
					[ "${2-}" = all ] || few "$engine,$way,$swap,$io" || continue
					env=("QUIRE_ENGINE=$engine" "QUIRE_IO=$io")
					case $engine in
					sigsegv) env+=("QUIRE_GUARD_PAGES=$way") ;;
					*) env+=("QUIRE_MOVE=$way") ;;
					esac
					[ $swap = disk ] || env+=("QUIRE_SWAP=/dev/shm")
					"$1" "$engine,$way,$io,$swap" "${env[@]}"
				done
			done
		done
	done
}

few() {
	case $1 in
	uffd-signal,auto,disk,uring | sigsegv,auto,disk,uring) ;;
	uffd,off,disk,sync | sigsegv,off,tmpfs,sync) ;;
	*) return 1 ;;
	esac
}

# stress NAME SECONDS ENV...: the stress program under an environment.
stress() {
	local name=$1 seconds=$2
	shift 2
	run "$name" $((seconds * 3 + 60)) env "$@" "$BUILD/tests/stress/stress" -t "$seconds"
}

# traffic NAME SECONDS ENV...: system calls on paged memory, by eight threads.
traffic() {
	local name=$1 seconds=$2
	shift 2
	run "$name" $((seconds * 3 + 60)) env "$@" "$BUILD/tests/guard/traffic" -t "$seconds"
}

# model NAME SECONDS ENV...: random sequences of operations on snapshots, compared with plain memory.
model() {
	local name=$1 seconds=$2
	shift 2
	run "$name" $((seconds * 3 + 400)) env "$@" "$BUILD/tests/snapshot/model" -t "$seconds"
}

# memcheck: the unit programs under valgrind, which is slow and runs one thread at a time. What it
# cannot follow leaves itself out (unit_valgrind in unit.h). Of leaks, those count that nothing
# points to any more.
memcheck() {
	local name limit
	if ! command -v valgrind > /dev/null 2>&1; then
		skip valgrind 'valgrind is not installed'
		return
	fi
	for name in $(programs tests/unit); do
		limit=$(directive "tests/unit/$name.c" timeout)
		run "valgrind/$name" $((${limit:-60} * 10)) env QUIRE_TEST_VALGRIND=1 \
			valgrind -q --fair-sched=try --error-exitcode=99 --leak-check=full \
			--show-leak-kinds=definite --errors-for-leak-kinds=definite \
			"$BUILD/tests/unit/$name"
	done
}

# calls_matter LABEL: whether what is about system calls is to be run in this cell: where the guard
# serves them, and what the swap file lies on makes no difference to that.
calls_matter() {
	[[ $1 != uffd,* ]] && { [[ $1 == *,disk ]] || [ -n "$everything" ]; }
}

# matters LABEL PROGRAM: whether it is to be run in this cell. Each program is run with the default
# engine before; here what an engine does, and elsewhere what is about pages on their ways to the
# swap file and back.
matters() {
	local some='corrupt full snapshot' list
	local engine="$some discard signals guard_calls guard_threads fork_memory fork_swap fork_storm"
	case $everything,$1 in
	1,*) return 0 ;;
	,uffd-signal,auto,uring,disk) list=$engine ;;
	# (basics is run with this engine in a container, below.)
	,sigsegv,auto,uring,disk) list="$engine sparse" ;;
	*) list=$some ;;
	esac
	[[ " $list " == *" $2 "* ]]
}

cell() {
	local label=$1 name limit
	shift
	if [[ $label == *tmpfs && ! -w /dev/shm ]]; then
		skip "matrix/$label" '/dev/shm is not there or not writable'
		return
	fi
	for name in $(programs tests/integration); do
		case $(directive "tests/integration/$name.c" matrix) in
		yes) ;;
		in-thread) calls_matter "$label" || continue ;;
		*) continue ;;
		esac
		matters "$label" "$name" || continue
		program "matrix/$label/$name" "tests/integration/$name.c" env "$@" \
			"$BUILD/tests/integration/$name"
	done
	finish_all
	stress "matrix/$label/stress" 4 "$@"
	! calls_matter "$label" || traffic "matrix/$label/traffic" 3 "$@"
	[ -z "$everything" ] || model "matrix/$label/model" 3 "$@"
}

soak_cell() {
	local label=$1
	shift
	[ "$SECONDS" -lt "$deadline" ] || return
	[[ $label != *tmpfs || -w /dev/shm ]] || return
	stress "soak/$label" 30 "$@"
	traffic "soak/$label/traffic" 20 "$@"
	model "soak/$label/model" 20 "$@"
}

# The memory controller's directory, of cgroup version 1 or 2; nothing if it cannot be used.
memory_controller() {
	if [ -w /sys/fs/cgroup/memory/cgroup.procs ]; then
		echo /sys/fs/cgroup/memory
	elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2> /dev/null &&
		[ -w /sys/fs/cgroup/cgroup.procs ]; then
		echo /sys/fs/cgroup
	fi
}

cgroup='' stage=''
remove_container() {
	local try
	[ -z "$stage" ] || rm -rf "$stage"
	stage=
	[ -n "$cgroup" ] || return
	# Who was just killed may be in it for a moment.
	for try in 1 2 3 4 5 6 7 8 9 10; do
		rmdir "$cgroup" 2> /dev/null && break
		sleep 0.2
	done
	cgroup=
}

# make_cgroup BYTES: => $cgroup, or nothing
make_cgroup() {
	local root limit
	root=$(memory_controller)
	[ -n "$root" ] || return
	mkdir "$root/quire-test-$$" 2> /dev/null || return
	cgroup=$root/quire-test-$$
	for limit in memory.limit_in_bytes memory.max; do
		[ ! -e "$cgroup/$limit" ] || echo "$1" > "$cgroup/$limit"
	done
}

# container ERROR [NAME...]: the matrix's programs, or these, and the stress, confined.
container() {
	local error=$1 name limit confine
	shift
	trap remove_container EXIT
	# Where another user can get at them: the build may be in somebody's home.
	stage=$(mktemp -d "${TMPDIR:-/tmp}/quire-container.XXXXXX") || return
	mkdir -p "$stage/tests/integration"
	cp -L "$BUILD"/libquire.so* "$stage"
	cp "$BUILD"/tests/integration/* "$stage/tests/integration"
	cp "$BUILD/tests/container/confine" "$BUILD/tests/stress/stress" \
		"$BUILD/tests/guard/traffic" "$BUILD/tests/snapshot/model" "$stage"
	[ ! -x "$BUILD/demos/patterns" ] || cp "$BUILD/demos/patterns" "$stage"
	chmod -R a+rX "$stage"
	confine=("$stage/confine" -e "$error")
	make_cgroup $((96 << 20))
	if [ -n "$cgroup" ]; then
		confine+=(-m "$cgroup")
	else
		skip "container/$error/memory" 'no memory cgroup can be made here'
	fi
	if [ "$(id -u)" = 0 ]; then
		confine+=(-u 65534)
	fi
	for name in $(programs tests/integration); do
		[ -n "$(directive "tests/integration/$name.c" matrix)" ] || continue
		[ $# = 0 ] || [[ " $* " == *" $name "* ]] || continue
		limit=$(directive "tests/integration/$name.c" timeout)
		run "container/$error/$name" "${limit:-60}" "${confine[@]}" \
			"$stage/tests/integration/$name"
	done
	if [ "$error" != EPERM ] && [ -z "$everything" ]; then
		remove_container
		return
	fi
	run "container/$error/stress" 75 "${confine[@]}" "$stage/stress" -t 4
	run "container/$error/traffic" 75 "${confine[@]}" "$stage/traffic" -t 4
	[ -z "$everything" ] || run "container/$error/model" 400 "${confine[@]}" "$stage/model" -t 4
	# A heap several times as large as the cgroup.
	if [ -x "$stage/patterns" ]; then
		run "container/$error/heap" 75 "${confine[@]}" "$stage/patterns" \
			--size 384M --memory 64M --touches 8192
	fi
	remove_container
}

for group in "${groups[@]}"; do
	case $group in
	checks)
		run checks/includes 60 scripts/check-includes
		run checks/symbols 60 scripts/check-symbols "$BUILD/libquire.so"
		run checks/demos 60 scripts/check-demos "$BUILD/demos"
		run checks/doctor 60 scripts/check-doctor "$BUILD"
		run checks/snapshot 60 scripts/check-snapshot "$BUILD"
		run checks/run 120 scripts/check-run "$BUILD"
		run checks/corpus 60 "$BUILD/tests/fuzz/replay" tests/fuzz/corpus/image ;;
	unit) folder unit tests/unit ;;
	integration) folder integration tests/integration ;;
	matrix) each_combination cell ;;
	container)
		container EPERM basics full guard_calls fork_memory
		container ENOSYS basics ;;
	everything)
		everything=1
		each_combination cell all
		run everything/scattered 300 env QUIRE_TEST_FULL=1 "$BUILD/tests/integration/scattered"
		container EPERM
		container ENOSYS ;;
	stress)
		for engine in uffd-signal uffd sigsegv; do
			stress "stress/$engine" 5 QUIRE_ENGINE=$engine
			traffic "traffic/$engine" 5 QUIRE_ENGINE=$engine
			model "model/$engine" 5 QUIRE_ENGINE=$engine
		done ;;
	valgrind) memcheck ;;
	soak)
		deadline=$((SECONDS + minutes * 60))
		while [ "$SECONDS" -lt "$deadline" ] && [ $failed = 0 ]; do
			run soak/image_crash 900 env QUIRE_TEST_FULL=1 \
				"$BUILD/tests/integration/image_crash"
			each_combination soak_cell all
		done ;;
	esac
done

if [ $failed -gt 0 ]; then
	echo
	printf 'failed: %s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
