# SPDX-License-Identifier: MIT
#
# Makefile - builds Quire: libraries, demos, benchmark, tests. `make help` lists the targets.
#
# All output goes to $(BUILD). Sources are found by wildcard: a new file in a room is a new object,
# a new file with a main() in demos/, bench/ or tests/*/ is a new program (files there without a
# main() are linked into each program of their folder).
#
# Variables, on the command line or in the environment:
#   V=1          show the commands
#   CC, CFLAGS, LDFLAGS   as usual; CFLAGS replaces "-O2 -g" only
#   DEBUG=1      assertions on (-DQUIRE_DEBUG=1)
#   SAN=LIST     sanitizers, e.g. SAN=address,undefined
#   WERROR=1     warnings are errors
#   BUILD=DIR    where to build; default build, and a folder of its own below it for DEBUG and SAN
#   PREFIX, BINDIR, LIBDIR, INCLUDEDIR, DESTDIR   for install and uninstall

comma := ,
BUILD ?= build$(if $(SAN),/$(subst $(comma),-,$(SAN)))$(if $(filter-out 0,$(DEBUG)),/debug)

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include

CFLAGS ?= -O2 -g
MINUTES ?= 10
# Of make fuzz.
SECONDS ?= 60
# Of make test-sanitize and test-tsan.
TESTS ?= unit stress

# The version is declared once, in the header. Expanded only where it is used.
version_part = $(shell sed -n 's/^\#define QUIRE_VERSION_$(1) *//p' include/quire.h)
VERSION = $(call version_part,MAJOR).$(call version_part,MINOR).$(call version_part,PATCH)
SONAME := libquire.so.0

# ------------------------------------------------------------------ flags

# The empty value makes a source's own "#define _GNU_SOURCE" the same definition, not another.
cppflags := -D_GNU_SOURCE= -Iinclude -I. $(if $(filter-out 0,$(DEBUG)),-DQUIRE_DEBUG=1) $(CPPFLAGS)

warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	$(if $(filter-out 0,$(WERROR)),-Werror)

san := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

cflags := -std=gnu11 $(CFLAGS) $(warnings) $(san) -pthread

# The library's objects serve the archive and the shared library alike. Names are hidden unless
# quire.h declares them (include/export.h). A fault may not call the dynamic loader's allocator, as
# thread-local storage of a library opened late otherwise would: hence the TLS model.
lib_flags := -fPIC -fvisibility=hidden -ftls-model=initial-exec -include include/export.h

LIBS := -luring -luuid -llz4 -lm -pthread

# ------------------------------------------------------------------ sources

lib_src := $(sort $(wildcard base/*.c swapfile/*.c image/*.c pager/*.c guard/*.c vm/*.c heap/*.c))
lib_obj := $(lib_src:%.c=$(BUILD)/obj/%.o)
# jemalloc, for heap/ alone.
jemalloc := $(BUILD)/obj/jemalloc.o
# What finds libc's own functions behind ours is for the shared library only.
preload_src := $(sort $(wildcard preload/*.c))
preload_obj := $(preload_src:%.c=$(BUILD)/obj/%.o)
archive_obj := $(filter-out %/guard/spawn.o,$(lib_obj)) $(jemalloc)

program_dirs := tools demos bench tests/unit tests/integration tests/stress tests/guard tests/snapshot tests/container tests/fuzz
program_src := $(sort $(wildcard $(program_dirs:%=%/*.c)))
main_src := $(if $(program_src),$(shell grep -l '^int main\>' $(program_src)))
common_src := $(filter-out $(main_src),$(program_src))

# $(call programs,dir): the programs of a folder. $(call commons,dir): its other objects.
in_dir = $(foreach f,$(2),$(if $(filter $(1)/,$(dir $(f))),$(f)))
programs = $(patsubst %.c,$(BUILD)/%,$(call in_dir,$(1),$(main_src)))
commons = $(patsubst %.c,$(BUILD)/obj/%.o,$(call in_dir,$(1),$(common_src)))

unit := $(call programs,tests/unit)
integration := $(call programs,tests/integration)
# Left out where there is no C++ compiler.
cplusplus := $(if $(shell command -v $(firstword $(CXX))),$(patsubst %.cc,$(BUILD)/%,$(wildcard tests/integration/*.cc)))
stress := $(call programs,tests/stress)
guard := $(call programs,tests/guard)
snapshot := $(call programs,tests/snapshot)
container := $(call programs,tests/container)
replay := $(call programs,tests/fuzz)
demos := $(call programs,demos)
bench := $(call programs,bench)
# The command is $(BUILD)/quire; its objects are those of tools/.
tools := $(BUILD)/quire

all_obj := $(lib_obj) $(preload_obj) $(program_src:%.c=$(BUILD)/obj/%.o)

# ------------------------------------------------------------------ quietness

ifneq ($(filter-out 0,$(V)),)
say := @:
Q :=
else
say = @printf '  %-6s %s\n'
Q := @
endif

# A recursive make builds on all processors unless the caller chose -j.
jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 1))
remake = +$(Q)$(MAKE) --no-print-directory $(jobs)

# ------------------------------------------------------------------ building

.PHONY: test-programs-unit all libs tools demos bench-build tests deps demo demo-snapshots test test-unit test-sanitize test-tsan \
	test-valgrind test-matrix soak fuzz bench bench-calls clang check-includes check-symbols check-demos check-fresh format \
	format-check install uninstall clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: libs tools demos bench-build

libs: $(BUILD)/libquire.a $(BUILD)/libquire.so $(BUILD)/libquire-preload.so
tools: $(tools)
demos: $(demos)
bench-build: $(bench)
test-programs-unit: $(unit)
tests: $(unit) $(integration) $(cplusplus) $(stress) $(guard) $(snapshot) $(container) $(replay)

# Everything is rebuilt when the compiler or its flags change.
flags_now := $(CC) $(cppflags) $(cflags) $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(flags_now))' | cmp -s - $@ || \
		printf '%s\n' '$(subst ','\'',$(flags_now))' > $@

$(lib_obj) $(preload_obj): cflags += $(lib_flags)
# These are malloc: the compiler must not take them for calls of it.
$(preload_obj): cflags += -fno-builtin
$(all_obj): $(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(cppflags) $(cflags) -MMD -MP -c -o $@ $<

-include $(all_obj:.o=.d)

$(jemalloc): scripts/own-jemalloc $(BUILD)/flags
	@mkdir -p $(@D)
	$(say) OWN jemalloc
	$(Q)CC='$(CC)' scripts/own-jemalloc $@

# Removed first: ar would keep the members of sources that are gone. With all internal names: unit tests.
$(BUILD)/obj/internal.a: $(archive_obj) $(BUILD)/obj/lib.list
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $(archive_obj)

# One object whose hidden names are local: a program may have a pager_open of its own.
$(BUILD)/libquire.a: $(archive_obj) $(BUILD)/obj/lib.list
	$(say) AR $@
	$(Q)ld -r -o $(BUILD)/obj/quire.o $(archive_obj)
	$(Q)objcopy --localize-hidden --wildcard --localize-symbol='je_*' $(BUILD)/obj/quire.o
	$(Q)rm -f $@ && ar rcs $@ $(BUILD)/obj/quire.o

$(BUILD)/libquire.so: $(lib_obj) $(jemalloc) $(BUILD)/obj/lib.list quire.map
	$(say) LD $@
	$(Q)$(CC) -shared $(cflags) $(LDFLAGS) -Wl,-soname,$(SONAME) -Wl,-z,nodelete -Wl,--version-script=quire.map \
		$(if $(SAN),,-Wl$(comma)-z$(comma)defs) -o $@ $(lib_obj) $(jemalloc) $(LIBS)
	$(Q)ln -sf $(@F) $(@D)/$(SONAME)

# The library's own calls of what the preload library replaces go to libc.
wraps := -Wl,--wrap=sigaction,--wrap=sigprocmask,--wrap=pthread_sigmask

# All of the library, with libc's malloc replaced. First of all to be initialized, so that no other library allocates before.
$(BUILD)/libquire-preload.so: $(lib_obj) $(preload_obj) $(jemalloc) $(BUILD)/obj/lib.list preload/preload.map
	$(say) LD $@
	$(Q)$(CC) -shared $(cflags) $(LDFLAGS) -Wl,-soname,$(@F) -Wl,-z,nodelete -Wl,-z,initfirst \
		-Wl,--version-script=preload/preload.map $(wraps) $(if $(SAN),,-Wl$(comma)-z$(comma)defs) -o $@ \
		$(lib_obj) $(preload_obj) $(jemalloc) $(LIBS)

# Changes when a source comes or goes, so that the libraries are made again.
$(BUILD)/obj/lib.list: FORCE
	@mkdir -p $(@D)
	@echo '$(lib_obj) $(preload_obj)' | cmp -s - $@ || echo '$(lib_obj) $(preload_obj)' > $@

# $(call program,dir,prerequisites,libraries)
define program
$$(call programs,$(1)): $$(BUILD)/%: $$(BUILD)/obj/%.o $$(call commons,$(1)) $(2)
	@mkdir -p $$(@D)
	$$(say) LD $$@
	$$(Q)$$(CC) $$(cflags) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) $(3)
endef

$(tools): $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/*.c)) $(BUILD)/libquire.a
	$(say) LD $@
	$(Q)$(CC) $(cflags) $(LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libquire.a $(LIBS)

# Unit tests reach internals through an archive of their own. Integration tests run against the shared library,
# and so prove that what quire.h declares is exported. The rest are self-contained.
static := $(BUILD)/libquire.a $(LIBS)
shared := -L$(BUILD) -Wl,-rpath,'$$$$ORIGIN/../..' -lquire -pthread
$(eval $(call program,tests/unit,$(BUILD)/obj/internal.a,$(BUILD)/obj/internal.a -lcunit $(LIBS) -lm))
$(eval $(call program,tests/integration,$(BUILD)/libquire.so,$(shared) -lcunit -lm))
$(cplusplus): $(BUILD)/%: %.cc $(BUILD)/libquire.so include/quire.h include/quire.hpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(say) CXX $<
	$(Q)$(CXX) -std=c++17 $(CFLAGS) -Wall -Wextra $(if $(filter-out 0,$(WERROR)),-Werror) $(san) -Iinclude $(LDFLAGS) \
		-o $@ $< $(subst $$$$,$$,$(shared))
$(eval $(call program,tests/stress,$(BUILD)/libquire.a,$(static) -lm))
$(eval $(call program,tests/guard,$(BUILD)/libquire.a,$(static)))
$(eval $(call program,tests/snapshot,$(BUILD)/libquire.a,$(static)))
$(eval $(call program,tests/container,,))
$(eval $(call program,tests/fuzz,$(BUILD)/obj/internal.a,$(BUILD)/obj/internal.a $(LIBS)))
$(eval $(call program,demos,$(BUILD)/libquire.a,$(static) -lm))
$(eval $(call program,bench,$(BUILD)/libquire.a,$(static) -lm))

# ------------------------------------------------------------------ running

# Installs what is missing to build and test, and says so; silent when nothing is.
deps:
	@CC='$(CC)' scripts/install-deps

demo: deps
	$(remake) demos
	$(Q)$(BUILD)/demos/wordindex $(DEMOFLAGS)

demo-snapshots: deps
	$(remake) demos
	$(Q)$(BUILD)/demos/kvstore $(DEMOFLAGS)

bench: deps
	$(remake) bench-build
	$(Q)BUILD=$(BUILD) bench/run $(BENCHFLAGS)

# What the guard costs other system calls: a minute.
bench-calls: deps
	$(remake) bench-build
	$(Q)$(BUILD)/bench/calls

test: deps
	$(remake) all tests
	$(Q)BUILD=$(BUILD) tests/run.sh

test-unit: deps
	$(remake) $(unit)
	$(Q)BUILD=$(BUILD) tests/run.sh unit

test-sanitize:
	$(remake) SAN=address,undefined DEBUG=1 WERROR=1 BUILD=$(BUILD)/asan $(if $(filter-out unit,$(TESTS)),tests,test-programs-unit)
	$(Q)BUILD=$(BUILD)/asan tests/run.sh $(TESTS)

# Memcheck only: helgrind and drd know the locks of pthreads, not ours, which are futexes and C11
# atomics. Those TSan understands.
test-valgrind:
	$(remake) DEBUG=1 WERROR=1 BUILD=$(BUILD)/valgrind tests
	$(Q)BUILD=$(BUILD)/valgrind tests/run.sh valgrind

# Without address randomization where that can be had: older TSan runtimes do not know where newer
# kernels map.
test-tsan:
	$(remake) SAN=thread DEBUG=1 WERROR=1 BUILD=$(BUILD)/tsan tests
	$(Q)if setarch -R true 2> /dev/null; then fixed='setarch -R'; fi; \
		BUILD=$(BUILD)/tsan $$fixed tests/run.sh $(TESTS)

# Every engine with every way of taking pages, kind of swap file and way of I/O: long.
test-matrix: deps
	$(remake) all tests
	$(Q)BUILD=$(BUILD) tests/run.sh everything

soak: deps
	$(remake) tests
	$(Q)BUILD=$(BUILD) tests/run.sh --minutes $(MINUTES) soak

# What reads files, by clang's libFuzzer. New inputs are kept in $(BUILD)/fuzz; what fails, beside them.
fuzz:
	@mkdir -p $(BUILD)/fuzz/corpus
	$(say) LD $(BUILD)/fuzz/image
	$(Q)clang -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $(cppflags) \
		-o $(BUILD)/fuzz/image tests/fuzz/image.c $(wildcard image/*.c) base/arena.c base/base.c \
		base/error.c $(LIBS)
	$(Q)$(BUILD)/fuzz/image -max_total_time=$(SECONDS) -max_len=65536 -artifact_prefix=$(BUILD)/fuzz/ \
		$(BUILD)/fuzz/corpus tests/fuzz/corpus/image

clang:
	$(remake) CC=clang CXX=clang++ WERROR=1 BUILD=$(BUILD)/clang all tests

check-includes:
	$(Q)scripts/check-includes

check-symbols: $(BUILD)/libquire.so
	$(Q)scripts/check-symbols $(BUILD)/libquire.so

check-demos: demos
	$(Q)scripts/check-demos $(BUILD)/demos

check-fresh:
	$(Q)scripts/check-fresh

c_files = $(wildcard $(foreach d,include base swapfile image pager guard vm heap preload $(program_dirs),$(d)/*.[ch]))
format:
	$(Q)clang-format -i $(c_files)
format-check:
	$(Q)clang-format --dry-run -Werror $(c_files)

# ------------------------------------------------------------------ installing

install: libs tools
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 644 include/quire.h include/quire.hpp $(DESTDIR)$(INCLUDEDIR)/
	install -d $(DESTDIR)$(BINDIR)
	install -m 755 $(BUILD)/quire $(DESTDIR)$(BINDIR)/quire
	install -m 644 $(BUILD)/libquire.a $(DESTDIR)$(LIBDIR)/libquire.a
	install -m 755 $(BUILD)/libquire.so $(DESTDIR)$(LIBDIR)/libquire.so.$(VERSION)
	install -m 755 $(BUILD)/libquire-preload.so $(DESTDIR)$(LIBDIR)/libquire-preload.so
	ln -sf libquire.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libquire.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' quire.pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/quire.pc

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/quire
	rm -f $(DESTDIR)$(INCLUDEDIR)/quire.h $(DESTDIR)$(INCLUDEDIR)/quire.hpp $(DESTDIR)$(LIBDIR)/libquire.a \
		$(DESTDIR)$(LIBDIR)/libquire.so $(DESTDIR)$(LIBDIR)/libquire-preload.so $(DESTDIR)$(LIBDIR)/$(SONAME) \
		$(DESTDIR)$(LIBDIR)/libquire.so.$(VERSION) $(DESTDIR)$(LIBDIR)/pkgconfig/quire.pc

clean:
	rm -rf build $(BUILD)

help:
	@echo 'make                 libraries, demos and benchmark, in $(BUILD)/'
	@echo 'make demo            run the demo: a heap eight times its memory (DEMOFLAGS=...)'
	@echo 'make demo-snapshots  a store that is dumped while it is written to, by snapshots and by fork'
	@echo 'make test            all tests; like demo, it first installs what is missing'
	@echo 'make test-unit       the unit tests only'
	@echo 'make test-sanitize   unit tests and stress under ASan and UBSan'
	@echo 'make test-tsan       the same under TSan'
	@echo 'make test-valgrind   unit tests under valgrind, if that is installed'
	@echo 'make test-matrix     the matrix of make test, each engine with each option (long)'
	@echo 'make soak MINUTES=n  stress with new seeds for n minutes'
	@echo 'make fuzz SECONDS=n  image files by libFuzzer (clang) for n seconds'
	@echo 'make bench           one table: Quire, the kernel, the disk (BENCHFLAGS=...)'
	@echo 'make bench-calls     what the guard costs system calls'
	@echo 'make clang           full build by clang, warnings are errors'
	@echo 'make check-includes  the rooms include one way only'
	@echo 'make check-symbols   libquire.so exports what quire.h declares'
	@echo 'make check-demos     the demos treat a command line alike'
	@echo 'make check-fresh     the README commands on a bare system (root, debootstrap)'
	@echo 'make format-check    clang-format agrees'
	@echo 'make deps            install what is missing to build and test'
	@echo 'make install         PREFIX=/usr/local DESTDIR= ; and make uninstall'
	@echo 'make clean           remove what was built'
	@echo
	@echo 'Variables: V=1 DEBUG=1 SAN=address,undefined WERROR=1 BUILD=dir CC= CFLAGS='
