/* SPDX-License-Identifier: MIT */
/* vm/uffd.h - what the two userfaultfd engines share (uffd.c). Private to them. */
#ifndef QUIRE_VM_UFFD_H
#define QUIRE_VM_UFFD_H

#include "vm/engine.h"

struct quire_probe;
struct quire_region;

/* Linux 5.18: messages say which byte was touched */
#ifndef UFFD_FEATURE_EXACT_ADDRESS
#define UFFD_FEATURE_EXACT_ADDRESS (1 << 11)
#endif

/* Open a descriptor with the features needed, probing for the others. user_only: no faults of the kernel's. */
int uffd_open(struct engine *e, bool in_thread);
/* The fields of userfaultfd. */
void uffd_probe(struct quire_probe *out);
void uffd_close(struct engine *e);
/* Open e->uffd.fd, with the features that were found. => 0 or -errno */
int uffd_descriptor(struct engine *e);
int uffd_fork_in_child(struct engine *e);
int uffd_attach_in_child(struct engine *e, struct quire_region *r);
int uffd_attach(struct engine *e, struct quire_region *r, char *base, size_t bytes);
void uffd_detach(struct engine *e, struct quire_region *r, char *base, size_t bytes);
int uffd_attach_buffers(struct engine *e, char *base, size_t bytes);
int uffd_map(struct engine *e, struct quire_region *r, char *page, const char *from, unsigned n,
             bool writable);
int uffd_map_zero(struct engine *e, struct quire_region *r, char *page, unsigned n, bool write);
/* Write-protect, or not, what is present of n pages. */
int uffd_protection(struct engine *e, char *page, size_t n, bool protect);
int uffd_unprotect(struct engine *e, struct quire_region *r, char *page, unsigned n);

/* uffd_move.c */
/*
 * Move n neighbouring pages out to buffers. The caller holds their entries.
 * => there is nothing in the buffers, but zeros perhaps, where the program has locked all it has
 * => how many are moved, the first of them; *error: why the next one stays, or 0
 */
unsigned uffd_move_out(struct engine *e, char *buffer, char *page, unsigned n, int *error);
int uffd_place(struct engine *e, char *page, char *buffer);

void uffd_take(struct engine *e, struct take_page *pages, unsigned n);
int uffd_drop(struct engine *e, struct quire_region *r, char *page, size_t n);
void uffd_wake(struct engine *e, char *page, unsigned n);
int uffd_poison(struct engine *e, char *page);

/* An access that a message told of. */
struct uffd_access {
	char *address; /* of its page, where the kernel does not say more */
	int32_t tid;   /* the thread that waits */
	bool write;
};

/* The last thread that was awake when it should have been told: see uffd_refuse.c. */
struct uffd_restless {
	int32_t tid;
	char *address;
	unsigned times;
};

/* Refuse an access without UFFDIO_POISON. => handler thread; r has a user */
void uffd_refuse(struct engine *e, struct quire_region *r, const struct uffd_access *a,
                 struct uffd_restless *restless);
/* The page is there and cannot be written: the thread gets SIGBUS, if it is in the program; it goes on in either case. */
void uffd_tell(struct engine *e, struct quire_region *r, const struct uffd_access *a);

/*
 * A fault of one who holds the page's entry, and reads the page by a system call: zeros.
 * => false: it is not one (uffd_take.c)
 */
bool uffd_answer_reader(struct engine *e, const struct uffd_access *a);
/*
 * Threads that touch pages by system calls, while they hold the entries of these: should such
 * a page be gone, the handler must not wait for the entry. Only of these pages is a fault
 * of a thread's number its own: a message may be older.
 */
struct uffd_reader {
	struct uffd_reader *next;
	int32_t tid;
	unsigned count;
	struct take_page **pages;
};
void uffd_reading_begin(struct engine *e, struct uffd_reader *me, struct take_page **pages,
                        unsigned n);
void uffd_reading_end(struct engine *e, struct uffd_reader *me);

/*
 * This is a handler thread of the engine uffd. It does not touch a page that may be gone: it would wait
 * for itself, or for others who sleep.
 */
extern SIGNAL_SAFE_TLS bool thread_is_handler;
/* A descriptor for save, of this process; without one save waits (engine.save_waits). */
void uffd_open_memory(struct engine *e);
int uffd_save(struct engine *e, struct quire_region *r, char *page, char *buffer, unsigned n);
int uffd_protect_all(struct engine *e, struct quire_region *r, char *page, size_t n);

#endif
