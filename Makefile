# Bulkhead. `make` builds every program into build/rel/bin; `make help` lists the rest.
# One non-recursive makefile: each folder's module.mk declares a library, programs or fuzz targets.

MODE ?= rel
O ?= build/$(MODE)
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc/bulkhead
LIBEXECDIR ?= $(PREFIX)/libexec/bulkhead
CC ?= gcc
PYTHON ?= python3
PYTEST ?= $(shell test -x /usr/bin/python3 && echo /usr/bin/python3 || echo python3) -m pytest
# Whole-daemon tests at once: they wait as much as they work.
JOBS ?= $(shell expr $$(nproc) \* 2)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 \
	-Wimplicit-fallthrough -Wpointer-arith -Wno-format-nonliteral -Wno-format-truncation -Werror
WARN_CLANG := $(filter-out -Wno-format-truncation,$(WARN)) -Wno-missing-field-initializers -Wno-string-concatenation
HARDEN := -fstack-protector-strong -fstack-clash-protection -ftrivial-auto-var-init=zero -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now -Wl,--as-needed
OPT_rel := -O2 -g -D_FORTIFY_SOURCE=3
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DSANITIZED=1
OPT_tsan := -O1 -g -fsanitize=thread -DSANITIZED=1
OPT_fuzz := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -DSANITIZED=1 -DFUZZING=1
ifeq ($(MODE),fuzz)
CC := clang
WARN := $(WARN_CLANG)
HARDEN := -fPIE
endif
LDSAN := $(filter -fsanitize=%,$(subst ,fuzzer-no-link,,$(OPT_$(MODE))))

PACKAGES := openssl libcares lmdb libsasl2 libseccomp libevent libidn2 libpcre2-8 zlib libcrypt jansson
CPPFLAGS += -D_GNU_SOURCE -Ilib -I$(O)/gen -I. $(shell pkg-config --cflags $(filter-out lmdb,$(PACKAGES)))
CPPFLAGS += -DSYSCONFDIR='"$(SYSCONFDIR)"' -DLIBEXECDIR='"$(LIBEXECDIR)"'
ALL_CFLAGS = $(OPT_$(MODE)) $(HARDEN) $(WARN) -std=gnu11 $(CFLAGS)
ALL_LDFLAGS = $(LDHARDEN) $(LDSAN) $(LDFLAGS)

BIN := $(O)/bin
.DEFAULT_GOAL := all
PROGRAMS := 
TESTS := 
FUZZERS := 

objects = $(patsubst %.c,$(O)/obj/%.o,$(1))
sources = $(filter-out %_test.c,$(wildcard $(1)/*.c))

# $(call lib,LAYER,lower layers it needs,linker flags): lib/LAYER/*.c becomes $(O)/lib/LAYER.a
define lib
LIB_$(1) := $(O)/lib/$(1).a
NEEDS_$(1) := $(1) $(2)
LINK_$(1) := $(3)
$(O)/lib/$(1).a: $(call objects,$(call sources,lib/$(1))) $(addprefix $(O)/obj/,$(GEN_$(1):.c=.o))
$(call tests,lib/$(1),$(1) $(2))
endef

# $(call program,NAME,FOLDER,layers,linker flags): FOLDER/*.c becomes $(BIN)/NAME
define program
PROGRAMS += $(BIN)/$(1)
$(BIN)/$(1): $(call objects,$(call sources,$(2))) $$(foreach l,$(3),$(O)/lib/$$(l).a)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@) $$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(call link,$(3)) $(4)
$(call tests,$(2),$(3),$(4))
endef

# Every FOLDER/x_test.c becomes a cmocka program, linked with the folder's other objects but its main.
define tests
$(foreach t,$(wildcard $(1)/*_test.c),$(eval $(call test,$(1),$(t),$(2),$(3))))
endef
define test
TESTS += $(O)/test/$(2:.c=)
$(O)/test/$(2:.c=): $(call objects,$(2)) $(filter-out %/main.o,$(if $(filter lib/%,$(1)),,$(call objects,$(call sources,$(1))))) $$(foreach l,$(3),$(O)/lib/$$(l).a)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@) $$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(call link,$(3)) $(4) -lcmocka
endef

# $(call fuzz,NAME,layers,linker flags): fuzz/NAME.c; outside build/fuzz it is linked with a main that replays the seeds.
define fuzz
FUZZERS += $(O)/fuzz/$(1)
$(O)/fuzz/$(1): $(call objects,fuzz/$(1).c) $(if $(filter fuzz,$(MODE)),,$(call objects,fuzz/replay.c)) $$(foreach l,$(2),$(O)/lib/$$(l).a)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@) $$(CC) $$(ALL_LDFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $$@ $$(filter %.o,$$^) $$(call link,$(2)) $(3)
endef

link = -Wl,--start-group $(foreach l,$(1),$(O)/lib/$(l).a) -Wl,--end-group $(sort $(foreach l,$(1),$(LINK_$(l))))
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2);)

# Generated code: tables become C by one generator.
GEN_ipc := gen/ipc/msgs.c
GEN_conf := gen/conf/params.c
GEN_daemon := gen/daemon/events.c gen/daemon/events_text.c
GEN_HEADERS := $(O)/gen/ipc/msgs.h $(O)/gen/conf/params.h $(O)/gen/daemon/events.h
GEN_PAGES := $(O)/gen/conf/main.cf.5 $(O)/gen/daemon/bulkhead-log.5
$(O)/gen/ipc/msgs.h $(O)/gen/ipc/msgs.c &: lib/ipc/msgs.def lib/daemon/roles.def scripts/gen_msgs.py
	@mkdir -p $(O)/gen/ipc
	$(call say,GEN,$@) $(PYTHON) scripts/gen_msgs.py lib/ipc/msgs.def lib/daemon/roles.def $(O)/gen/ipc
$(O)/gen/conf/params.h $(O)/gen/conf/params.c $(O)/gen/conf/main.cf.5 &: lib/conf/params.def lib/daemon/roles.def scripts/gen_params.py
	@mkdir -p $(O)/gen/conf
	$(call say,GEN,$@) $(PYTHON) scripts/gen_params.py lib/conf/params.def lib/daemon/roles.def $(O)/gen/conf
$(O)/gen/daemon/events.h $(addprefix $(O)/,$(GEN_daemon)) $(O)/gen/daemon/bulkhead-log.5 &: lib/daemon/events.def \
		lib/daemon/roles.def lib/daemon/bulkhead-log.5.head scripts/gen_events.py
	@mkdir -p $(O)/gen/daemon
	$(call say,GEN,$@) $(PYTHON) scripts/gen_events.py lib/daemon/events.def lib/daemon/roles.def $(O)/gen/daemon
$(O)/obj/gen/%.o: $(O)/gen/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

include $(sort $(wildcard lib/*/module.mk))
include $(sort $(wildcard */module.mk helpers/*/module.mk))

# What compiles the paths in is compiled anew when they change.
$(O)/gen/paths: FORCE
	@mkdir -p $(@D); echo '$(SYSCONFDIR) $(LIBEXECDIR)' | cmp -s - $@ || echo '$(SYSCONFDIR) $(LIBEXECDIR)' >$@
$(addprefix $(O)/obj/,lib/conf/set.o tools/main.o): $(O)/gen/paths
.PHONY: FORCE

$(O)/obj/%.o: %.c | $(GEN_HEADERS)
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/lib/%.a:
	@mkdir -p $(@D)
	$(call say,AR,$@) rm -f $@ && ar rcs $@ $^

SYSTEM ?= tests # or the names of some, for make system
.PHONY: all help check unit replay system check-long check-fresh lint clang format fuzz man bench install clean
all: $(PROGRAMS)

help:
	@echo "make              programs into $(BIN)"
	@echo "make check        unit and whole-daemon tests (release, ASan), lint, fuzz seeds; JOBS=$(JOBS)"
	@echo "make unit replay system   its parts, in the present MODE=$(MODE)"
	@echo "make check-long   what takes longer; make check-fresh: the two commands in a bare Debian tree"
	@echo "make lint         layer order, format, forbidden functions, man pages"
	@echo "make fuzz         fuzz targets (clang) in build/fuzz/fuzz"
	@echo "make install DESTDIR= PREFIX=$(PREFIX)"

unit: $(TESTS)
	@scripts/run_tests unit $(TESTS)
replay: $(FUZZERS)
	@scripts/run_tests replay --seeds $(FUZZERS)
system: all
	@t=$$(mktemp -d /tmp/bulkhead-tests-XXXXXX) && chmod 755 $$t && rc=0; \
	BIN=$(abspath $(BIN)) $(PYTEST) -q -rsfE -n $(JOBS) --dist loadgroup -p no:cacheprovider --basetemp=$$t/run $(SYSTEM) || rc=$$?; \
	rm -rf $$t; exit $$rc
tests-bin: $(TESTS) $(FUZZERS)

check:
	@scripts/check
check-long:
	@tests/long
check-fresh:
	@tests/fresh
lint:
	@scripts/lint
format:
	@git ls-files '*.[ch]' | xargs clang-format -i
# Warnings of clang, by which fuzz targets are built, over all sources.
clang: $(GEN_HEADERS)
	@git ls-files '*.c' | xargs -P$$(nproc) -n16 clang -fsyntax-only $(CPPFLAGS) $(WARN_CLANG) -std=gnu11
fuzz:
	@$(MAKE) --no-print-directory MODE=fuzz tests-fuzz
tests-fuzz: $(FUZZERS)
clean:
	rm -rf build

# DESTDIR= for packagers. Daemons go to LIBEXECDIR, tools to SBINDIR, sendmail where every program looks for it.
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
TOOLS := bulkhead sendmail mailq newaliases
paths = sed -e 's|@SBINDIR@|$(SBINDIR)|g; s|@LIBEXECDIR@|$(LIBEXECDIR)|g; s|@SYSCONFDIR@|$(SYSCONFDIR)|g'
install: all man
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(SYSCONFDIR) \
	    $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)/etc/logrotate.d $(DESTDIR)/etc/pam.d
	install -m 755 $(filter-out $(addprefix $(BIN)/,$(TOOLS)),$(PROGRAMS)) $(DESTDIR)$(LIBEXECDIR)
	install -m 755 $(BIN)/bulkhead $(BIN)/sendmail $(DESTDIR)$(SBINDIR)
	install -m 755 $(BIN)/mailq $(BIN)/newaliases $(DESTDIR)$(BINDIR)
	install -d $(DESTDIR)$(PREFIX)/lib && ln -sf $(SBINDIR)/sendmail $(DESTDIR)$(PREFIX)/lib/sendmail
	test -e $(DESTDIR)/etc/aliases || install -m 644 conf/aliases $(DESTDIR)/etc
	for f in main.cf master.cf; do test -e $(DESTDIR)$(SYSCONFDIR)/$$f || install -m 644 conf/$$f $(DESTDIR)$(SYSCONFDIR); done
	$(paths) packaging/bulkhead.service.in >$(DESTDIR)$(PREFIX)/lib/systemd/system/bulkhead.service
	install -m 644 packaging/bulkhead.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/bulkhead.conf
	$(paths) packaging/bulkhead.logrotate.in >$(DESTDIR)/etc/logrotate.d/bulkhead
	install -m 644 packaging/bulkhead.pam $(DESTDIR)/etc/pam.d/bulkhead
	for p in man/*.[1-8] $(GEN_PAGES); do s=$${p##*.}; install -D -m 644 $$p $(DESTDIR)$(MANDIR)/man$$s/$${p##*/}; done
man: $(GEN_PAGES)
$(O)/bench/%: bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) -D_GNU_SOURCE $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $<
bench: all
	@bench/run

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
