/* SPDX-License-Identifier: MIT */
/* guard/exec.h - lists of strings, as execve takes them. */
#ifndef QUIRE_GUARD_EXEC_H
#define QUIRE_GUARD_EXEC_H

#include "guard/served.h"

#define STRING_MAX ((size_t)32 * 4096) /* the kernel's MAX_ARG_STRLEN */

/* Is the list, or one of its strings, in the window? */
bool strings_in_window(char *const *list);
/* Have *list be a copy, with copies of what is in the window. => 0 or -errno */
int strings_copy(struct served *s, unsigned long *list);
/* The same of one string. */
int string_copy(struct served *s, unsigned long *string, size_t most);

#endif
