/* SPDX-License-Identifier: MIT */
/*
 * export.h - makes what quire.h declares, and nothing else, visible outside
 * libquire.so.
 *
 * The library is compiled with -fvisibility=hidden and this header forced in
 * front of each source, so a definition inherits the visibility of its first
 * declaration here. quire.map then gives the names their version. Not
 * installed; no source includes it.
 */
#ifndef QUIRE_EXPORT_H
#define QUIRE_EXPORT_H

#pragma GCC visibility push(default)
#include <quire.h>
#pragma GCC visibility pop

#endif
