/* SPDX-License-Identifier: MIT */
/*
 * bench/report.c - the table and the targets, in words.
 *
 * Cells are medians over the rounds unless the row says otherwise. Ratios are
 * ratios of those, with the lowest and highest of the single rounds beside
 * them. Neighbours: figures.c holds the numbers, json.c prints the same.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

static char absent[CONTENDERS][512];

void absent_set(enum contender who, const char *why)
{
	snprintf(absent[who], sizeof absent[who], "%s", why);
}

const char *absent_reason(enum contender who)
{
	return *absent[who] ? absent[who] : NULL;
}

bool is_reference(const struct settings *s)
{
	return s->region == 1024 * MIB && s->memory == 256 * MIB && s->threads == 8;
}

/* ------------------------------------------------------------ the machine */

/* The first line of a file, or "unknown". */
static const char *line_of(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");

	if (!f || !fgets(text, (int)size, f))
		snprintf(text, size, "unknown");
	if (f)
		fclose(f);
	text[strcspn(text, "\n")] = '\0';
	return text;
}

/* The type of the file system that holds dir: the longest mount point that is a prefix of it. */
static void file_system(const char *dir, char *type, size_t size)
{
	FILE *f = setmntent("/proc/mounts", "r");
	struct mntent *e;
	size_t best = 0;

	snprintf(type, size, "unknown file system");
	while (f && (e = getmntent(f))) {
		size_t n = strlen(e->mnt_dir);
		bool root = n == 1;

		if (n >= best && !strncmp(dir, e->mnt_dir, n) &&
		    (root || dir[n] == '/' || !dir[n])) {
			best = n;
			snprintf(type, size, "%s", e->mnt_type);
		}
	}
	if (f)
		endmntent(f);
}

void machine_describe(const struct settings *s, char *text, size_t size)
{
	char type[64], swappiness[16], cluster[16], zswap[16];
	struct utsname u;
	struct sysinfo i;

	uname(&u);
	sysinfo(&i);
	file_system(s->dir, type, sizeof type);
	snprintf(text, size,
	         "Linux %s %s, %d CPUs, %.1f GiB RAM, %s (%s)%s; vm.swappiness %s, "
	         "vm.page-cluster %s, zswap %s; page cache dropped before each measurement: %s",
	         u.release, u.machine, get_nprocs(), (double)i.totalram * i.mem_unit / 0x1p30,
	         s->dir, type,
	         absent_reason(RAW) ? "" :
	         raw_is_direct()    ? ", O_DIRECT" :
	                              ", no O_DIRECT",
	         line_of("/proc/sys/vm/swappiness", swappiness, sizeof swappiness),
	         line_of("/proc/sys/vm/page-cluster", cluster, sizeof cluster),
	         line_of("/sys/module/zswap/parameters/enabled", zswap, sizeof zswap),
	         access("/proc/sys/vm/drop_caches", W_OK) ? "no (not permitted)" : "yes");
}

/* CPU seconds that all of the machine has used; own: this process and its children. */
static double cpu_used(bool own)
{
	if (own) {
		struct rusage a, b;

		getrusage(RUSAGE_SELF, &a);
		getrusage(RUSAGE_CHILDREN, &b);
		return (double)(a.ru_utime.tv_sec + a.ru_stime.tv_sec + b.ru_utime.tv_sec +
		                b.ru_stime.tv_sec) +
		       (double)(a.ru_utime.tv_usec + a.ru_stime.tv_usec + b.ru_utime.tv_usec +
		                b.ru_stime.tv_usec) /
		               1e6;
	}
	/* user nice system idle iowait irq softirq steal */
	unsigned long long t[8] = { 0 };
	FILE *f = fopen("/proc/stat", "re");
	int n = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", t, t + 1, t + 2, t + 3,
	                   t + 4, t + 5, t + 6, t + 7) :
	            0;
	if (f)
		fclose(f);
	return n < 8 ? NAN :
	               (double)(t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) /
	                       (double)sysconf(_SC_CLK_TCK);
}

static double begun, all_before, own_before;

void others_begin(void)
{
	begun = now();
	all_before = cpu_used(false);
	own_before = cpu_used(true);
}

double others_used(void)
{
	return (cpu_used(false) - all_before - cpu_used(true) + own_before) / (now() - begun);
}

/* --------------------------------------------------------------- the table */

static void cell(FILE *f, enum figure row, enum contender who)
{
	double v = figure_result(row, who);

	if (isnan(v))
		fprintf(f, " %12s", absent_reason(who) && who != RAW ? "skipped" : "-");
	else
		fprintf(f, " %12.*f", figure_rows[row].decimals, v);
}

static void rows(FILE *f, const char *title, enum figure from, enum figure to)
{
	bool any = false;

	for (enum figure r = from; r <= to; r++) {
		bool filled = false;

		for (unsigned w = 0; w < CONTENDERS; w++)
			filled |= figure_count(r, w) > 0;
		if (!filled)
			continue;
		if (!any)
			fprintf(f, "\n%s\n", title);
		any = true;
		fprintf(f, "%-38s %-7s", figure_rows[r].name, figure_rows[r].unit);
		for (unsigned w = 0; w < CONTENDERS; w++)
			cell(f, r, w);
		fputc('\n', f);
	}
}

/* One engine's ratio. => 1 met, 0 missed, -1 not judged */
static int verdict(FILE *f, const struct target *t, enum contender who)
{
	double low, high, ratio = target_ratio(t, who, &low, &high);

	if (isnan(ratio)) {
		fprintf(f, "  %31s", "not measured");
		return -1;
	}
	char value[64], aim[32] = "";
	int decimals = fabs(ratio) >= 100 ? 0 : 2;
	int n = snprintf(value, sizeof value, "%.*f", decimals, ratio);
	if (!figure_rows[t->figure].worst)
		snprintf(value + n, sizeof value - (size_t)n, " (%.*f..%.*f)", decimals, low,
		         decimals, high);
	if (t->target[who] > 0)
		snprintf(aim, sizeof aim, "%s%g", t->at_most ? "<=" : ">=", t->target[who]);
	int met = t->target[who] > 0 ? target_met(t, who, ratio) : -1;
	fprintf(f, "  %18s %5s %-6s", value, aim, met < 0 ? "" : met ? "met" : "MISSED");
	return met;
}

static void print_targets(FILE *f, const struct settings *s)
{
	unsigned met = 0, missed = 0, unknown = 0;

	fprintf(f, "\nTargets: ratio (lowest..highest of single rounds), target, verdict\n");
	fprintf(f, "%-42s", "");
	for (unsigned w = 0; w < QUIRES; w++)
		fprintf(f, "  %-31s", contender_name[w]);
	fputc('\n', f);
	for (unsigned i = 0; i < target_count; i++) {
		fprintf(f, "%-42s", targets[i].name);
		for (unsigned w = 0; w < QUIRES; w++) {
			int v = verdict(f, &targets[i], w);

			met += v > 0;
			missed += v == 0;
			unknown += v < 0 && targets[i].target[w] > 0;
		}
		fputc('\n', f);
	}
	fprintf(f, "%u met, %u missed, %u not measured", met, missed, unknown);
	if (!is_reference(s))
		fprintf(f, "; not the sizes that the targets are meant for (1 GiB, 256 MiB, 8 "
		           "threads)");
	fputc('\n', f);
}

void report_print(FILE *f, const struct settings *s, unsigned failures)
{
	char machine[512];

	machine_describe(s, machine, sizeof machine);
	fprintf(f,
	        "\nQuire benchmark: region %zu MiB, budget %zu MiB, N = %u threads, medians of "
	        "%u round%s\n",
	        s->region / MIB, s->memory / MIB, s->threads, s->rounds, s->rounds == 1 ? "" : "s");
	fprintf(f, "Machine: %s\n", machine);
	fprintf(f, "Meanwhile: others, kernel threads among them, kept %.2f of %d CPUs busy\n",
	        others_used(), get_nprocs());
	if (!absent_reason(KERNEL))
		fprintf(f, "Kernel swap: %s\n", swap_terms());
	fprintf(f,
	        "Content: incompressible; every word read is checked; 4 KiB pages (no huge "
	        "pages).\nFirst touches: half the budget, raw limit is an anonymous mapping "
	        "outside the cgroup.\nFill, scans: raw limit is the disk in order, 4 requests of "
	        "1 MiB in flight (write, read).\nk/s: thousand accesses a second; an update reads, "
	        "adds and writes one word.\n");
	fprintf(f,
	        "Snapshots: of %zu MiB, all resident and dirty; first writes: to each page of %zu "
	        "MiB once,\nof %zu MiB where the copies exceed the budget; the kernel's is fork, "
	        "its child waiting.\n",
	        snapshot_created(s) / MIB, snapshot_written(s) / MIB, snapshot_beyond(s) / MIB);
	for (unsigned w = 0; w < CONTENDERS; w++)
		if (absent_reason(w))
			fprintf(f, "SKIPPED: %s: %s\n", contender_name[w], absent_reason(w));
	if (cut_short)
		fprintf(f, "CUT SHORT: --limit of %.0f s reached in round %u of %u\n", s->limit,
		        cut_short, s->rounds);
	if (failures)
		fprintf(f,
		        "FAILED: %u measurement%s, named above; their cells are empty or from "
		        "fewer rounds\n",
		        failures, failures == 1 ? "" : "s");

	fprintf(f, "\n%-38s %-7s", "", "unit");
	for (unsigned w = 0; w < CONTENDERS; w++)
		fprintf(f, " %12s", contender_name[w]);
	rows(f, "\nWorkloads", F_TOUCH_ORDER, F_SCAN_WRITE);
	rows(f, "Snapshots (kernel: fork and its copy-on-write)", F_SNAP_CREATE, F_FORK);
	rows(f, "Footprint (resident, metadata, idle: the greatest; opening: median)", F_RESIDENT,
	     F_IDLE);
	rows(f, "Raw", F_DEPTH_32, F_CHECK);
	rows(f, "Fault latencies, from quire_stats", F_MINOR_P50, F_RMW_N_P999);
	print_targets(f, s);
}
