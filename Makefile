# pg_replica_kit: the whole life of a streaming read replica, from SQL
#
#   make && sudo make install       build with the pg_config found in PATH
#   make installcheck               all tests, on private servers, never yours

MODULE_big = pg_replica_kit
EXTENSION = pg_replica_kit
DATA = pg_replica_kit--1.0.sql
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/$(EXTENSION).control)
DISTVERSION = $(shell sed -n 's/^   "version": "\(.*\)",/\1/p' $(srcdir)/META.json)
PGFILEDESC = "pg_replica_kit - the whole life of a streaming read replica"

# The rooms of src/, from the lowest floor up; src/README.md says what each
# promises.  No room includes a header of a higher floor (t/001_style.pl).
TOP_OBJS = \
	src/foreign.o \
	src/format.o \
	src/kept.o \
	src/settings.o \
	src/sql.o

SAMPLE_OBJS = \
	src/sample/archive.o \
	src/sample/backends.o \
	src/sample/backups.o \
	src/sample/derive.o \
	src/sample/receiver.o \
	src/sample/sample.o \
	src/sample/timeline.o \
	src/sample/unused.o

HBA_OBJS = \
	src/hba/hba.o \
	src/hba/hba_beside.o \
	src/hba/hba_edit.o \
	src/hba/hba_file.o \
	src/hba/hba_funcs.o \
	src/hba/hba_line.o \
	src/hba/hba_rules.o \
	src/hba/hba_same.o \
	src/hba/reload.o

FAILURES_OBJS = \
	src/failures/commands.o \
	src/failures/departures.o \
	src/failures/failure_funcs.o \
	src/failures/failure_peers.o \
	src/failures/failure_table.o \
	src/failures/failure_tally.o \
	src/failures/failure_words.o \
	src/failures/failures.o \
	src/failures/log_level.o

CLOCK_OBJS = \
	src/clock/clock.o \
	src/clock/clock_file.o \
	src/clock/clock_shared.o

ASK_OBJS = \
	src/ask/answer.o \
	src/ask/ask.o \
	src/ask/backup_files.o \
	src/ask/clone_settings.o \
	src/ask/summaries.o \
	src/ask/versions.o

JUDGE_OBJS = \
	src/judge/absence.o \
	src/judge/ages.o \
	src/judge/codes.o \
	src/judge/disk.o \
	src/judge/forecast.o \
	src/judge/health.o \
	src/judge/reason.o \
	src/judge/server.o \
	src/judge/track.o \
	src/judge/verdict.o

READS_OBJS = \
	src/reads/gate.o \
	src/reads/wait.o \
	src/reads/wait_funcs.o \
	src/reads/waiters.o \
	src/reads/waker.o

WATCH_OBJS = \
	src/watch/alerts.o \
	src/watch/announce.o \
	src/watch/board.o \
	src/watch/departed.o \
	src/watch/gatekeeper.o \
	src/watch/history.o \
	src/watch/history_funcs.o \
	src/watch/judge_funcs.o \
	src/watch/learn.o \
	src/watch/order.o \
	src/watch/report.o \
	src/watch/server_alert.o \
	src/watch/server_facts.o \
	src/watch/silence.o \
	src/watch/standby_funcs.o \
	src/watch/status_funcs.o \
	src/watch/troubles.o \
	src/watch/unserved.o \
	src/watch/upstream.o \
	src/watch/upstream_alert.o \
	src/watch/worker.o

PROVISION_OBJS = \
	src/provision/commit.o \
	src/provision/farewell.o \
	src/provision/guard.o \
	src/provision/leave.o \
	src/provision/lock.o \
	src/provision/provision_checks.o \
	src/provision/provision_funcs.o \
	src/provision/rewind.o \
	src/provision/rewind_funcs.o \
	src/provision/role.o \
	src/provision/server_address.o \
	src/provision/slot.o \
	src/provision/staged.o

JOIN_OBJS = \
	src/join/join_funcs.o \
	src/join/join_text.o

DIAGNOSE_OBJS = \
	src/diagnose/config.o \
	src/diagnose/diagnose.o \
	src/diagnose/diagnose_attempts.o \
	src/diagnose/diagnose_funcs.o \
	src/diagnose/diagnose_replicas.o \
	src/diagnose/diagnose_server.o \
	src/diagnose/diagnose_standby.o \
	src/diagnose/evidence.o \
	src/diagnose/findings.o \
	src/diagnose/help_funcs.o \
	src/diagnose/owners.o \
	src/diagnose/past.o \
	src/diagnose/preflight.o \
	src/diagnose/preflight_checks.o \
	src/diagnose/preflight_facts.o \
	src/diagnose/preflight_funcs.o \
	src/diagnose/preflight_rows.o \
	src/diagnose/replay.o \
	src/diagnose/silence_funcs.o \
	src/diagnose/subjects.o \
	src/diagnose/transaction.o \
	src/diagnose/words.o \
	src/diagnose/words_refused.o \
	src/diagnose/words_replica.o \
	src/diagnose/words_server.o \
	src/diagnose/words_upstream.o

SHOW_OBJS = \
	src/show/exposition.o \
	src/show/metrics.o \
	src/show/metrics_funcs.o \
	src/show/series.o

OBJS = \
	pg_replica_kit.o \
	$(TOP_OBJS) \
	$(SAMPLE_OBJS) \
	$(HBA_OBJS) \
	$(FAILURES_OBJS) \
	$(CLOCK_OBJS) \
	$(ASK_OBJS) \
	$(JUDGE_OBJS) \
	$(READS_OBJS) \
	$(WATCH_OBJS) \
	$(PROVISION_OBJS) \
	$(JOIN_OBJS) \
	$(DIAGNOSE_OBJS) \
	$(SHOW_OBJS)

PRK_HEADERS = $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h))

# What is generated lies where it is built.
PG_CPPFLAGS = -I$(srcdir)/src -Isrc
# -MMD writes beside each object which headers it is made from.  These are
# CFLAGS, since the rule for LLVM bitcode takes CPPFLAGS, too.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -MMD -MP

# make SANITIZE=yes: for scripts/sanitize, never to be installed elsewhere.
# What wraps is in test/sanitize_memory.c.
ifdef SANITIZE
SANITIZERS = -fsanitize=address,undefined -fsanitize-recover=all \
	-fno-omit-frame-pointer
SANITIZE_OBJS = test/sanitize_memory.o
SANITIZE_LIBS = $(SANITIZERS) $(addprefix -Wl$(comma)--wrap=, \
	MemoryContextAlloc MemoryContextAllocZero MemoryContextAllocZeroAligned \
	MemoryContextStrdup initStringInfo palloc palloc0 palloc_extended \
	pnstrdup psprintf pstrdup text_to_cstring)
OBJS += $(SANITIZE_OBJS)
PG_CFLAGS += $(SANITIZERS) -O1
SHLIB_LINK += $(SANITIZE_LIBS)
comma = ,
endif

# make CHECKED=yes: each sample of each process is checked, and what is found is
# appended to the file that PRK_CHECKS names (test/voice_check.c).  For the
# tests, never to be installed elsewhere.
ifdef CHECKED
OBJS += test/voice_check.o test/voice_lines.o
SHLIB_LINK += $(addprefix -Wl$(comma)--wrap=, \
	prk_alerts_create prk_alerts_shift prk_alerts_step prk_announce_line \
	prk_evidence_gather prk_report_take prk_server_alert_step prk_trouble_step)
comma = ,
endif

# setup makes the extension for the others.
REGRESS = \
	setup \
	hba_match \
	judge \
	settings \
	status
REGRESS_OPTS = --temp-instance=$(CURDIR)/tmp_installcheck \
	--temp-config=$(srcdir)/sql/postgresql.conf
ISOLATION = provision
ISOLATION_OPTS = --temp-instance=$(CURDIR)/tmp_check_iso \
	--temp-config=$(srcdir)/specs/postgresql.conf --host=127.0.0.1
TAP_TESTS = 1
PRK_SCRIPTS = \
	.ci/run \
	bench/clone_speed \
	bench/rebuild_speed \
	bench/figures \
	bench/healthy_hour \
	bench/many_replicas \
	bench/metrics_cost \
	bench/sample_cost \
	bench/strangers \
	bench/watching_cost \
	scripts/analyze \
	scripts/assertions \
	scripts/common.sh \
	scripts/core_suites \
	scripts/core_suites.sh \
	scripts/demo \
	scripts/local_users \
	scripts/matrix \
	scripts/package \
	scripts/record_scenes \
	debian/tests/installcheck \
	debian/tests/replica \
	debian/postinst.in \
	debian/prerm.in \
	monitoring/check_replica_kit \
	monitoring/replica_kit_textfile \
	scripts/sanitize \
	scripts/systemd \
	scripts/test \
	scripts/walk \
	pg_replica_kit_join.sh

# in this order
JOIN_PARTS = \
	src/join/join.sh \
	src/join/join_local.sh \
	src/join/join_upstream.sh \
	src/join/join_facts.sh \
	src/join/join_place.sh \
	src/join/join_compress.sh \
	src/join/join_recovery.sh \
	src/join/join_archive.sh \
	src/join/join_clone.sh \
	src/join/join_moved.sh \
	src/join/join_log.sh \
	src/join/join_rebuild.sh \
	src/join/join_history.sh \
	src/join/join_copy.sh \
	src/join/join_follow.sh \
	src/join/join_rewind.sh \
	src/join/join_delta.sh \
	src/join/join_delta_checks.sh \
	src/join/join_run.sh

EXTRA_CLEAN = src/join/join_text.inc pg_replica_kit_join.sh pg_replica_kit_join.1 \
	$(EXTENSION)-*.zip tmp_installcheck tmp_check_iso tmp_check results log output_iso \
	test/*.o test/*.so test/*.d $(OBJS:.o=.d)

# PGXS does not make the folders that a build out of the tree needs.
$(shell mkdir -p test $(sort $(dir $(OBJS))))

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# hides calls from the sanitizers
ifdef SANITIZE
override CPPFLAGS += -U_FORTIFY_SOURCE
endif

-include $(wildcard $(OBJS:.o=.d) test/*.d)

# Each header compiles alone, after postgres.h as always.
headerscheck: $(PRK_HEADERS:=.check)

%.h.check: %.h FORCE
	$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(CPPFLAGS) -Werror -fsyntax-only \
		-include postgres.h -include $< -x c /dev/null

# Everything in C looks as pgindent would leave it; `make indent` does it.
indentcheck:
	scripts/indent --check $(OBJS:.o=.c) $(PRK_HEADERS)

indent:
	scripts/indent $(OBJS:.o=.c) $(PRK_HEADERS)

shellcheck: pg_replica_kit_join.sh
	shellcheck --external-sources $(PRK_SCRIPTS)

# The drawings of the pages, by graphviz.  Each names the sum of its source, so
# that t/005_readme.pl sees one that was not drawn again.
drawings: $(patsubst %.dot,%.svg,$(wildcard $(srcdir)/doc/drawings/*.dot))

%.svg: %.dot
	dot -Tsvg $< >$@.new
	printf '<!-- source: %s -->\n' "$$(sha256sum <$< | sed 's, .*,,')" >>$@.new
	mv $@.new $@

FORCE:

.PHONY: headerscheck indentcheck indent shellcheck drawings FORCE

# The script for the replica's machine: for the tests as a file, for
# join_script() as C strings, one a line, since C99 promises no compiler that
# takes more than 4095 characters in one.  "\?" keeps trigraphs away.
pg_replica_kit_join.sh: $(JOIN_PARTS)
	cat $^ > $@

src/join/join_text.inc: $(JOIN_PARTS)
	cat $^ | sed 's/[\\"?]/\\&/g; s/	/\\t/g; s/.*/"&\\n",/' > $@.new
	mv $@.new $@

src/join/join_text.o src/join/join_text.bc: src/join/join_text.inc

# Its man page is its --help, with words for its values.
pg_replica_kit_join.1: pg_replica_kit_join.sh src/join/man.awk
	(grep -o 'prk_[a-z_]*:*?' $< | sed 's/[:?].*/=-/'; \
		echo 'prk_name=NAME prk_host=HOST prk_port=PORT prk_server_port=PORT'; \
		echo 'prk_role=ROLE prk_major=VERSION prk_version=VERSION'; \
		cat $<) | sh -s -- --help >$@.help
	awk -v version=$(EXTVERSION) -f $(word 2,$^) $@.help >$@
	rm $@.help

all: pg_replica_kit_join.1

install: install-man
install-man: pg_replica_kit_join.1
	$(MKDIR_P) '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_DATA) $< '$(DESTDIR)$(mandir)/man1/'

uninstall: uninstall-man
uninstall-man:
	rm -f '$(DESTDIR)$(mandir)/man1/pg_replica_kit_join.1'

# For PGXN: what is committed, under the three numbers that it asks for.
DIST = $(EXTENSION)-$(DISTVERSION)
dist:
	git -C $(srcdir) archive --format=zip --prefix=$(DIST)/ HEAD >$(DIST).zip

.PHONY: install-man uninstall-man dist

# What the TAP tests load to reach functions that users don't see.
TEST_MODULES = \
	test/clock_test.so \
	test/hba_test.so \
	test/hba_test_link.so \
	test/health_test.so \
	test/sanitize_test.so \
	test/slow_disk.so \
	test/wall_clock.so
installcheck: $(TEST_MODULES) pg_replica_kit_join.sh

# make test/fuzz.so: coverage-guided fuzzers (t/006_fuzz.pl), by clang alone.
# Undefined behaviour is a trap, which needs no library.  Not for installing.
FUZZ_SOURCES = \
	test/fuzz.c \
	test/hba_oracle.c \
	src/clock/clock.c \
	src/failures/failure_words.c \
	src/foreign.c \
	src/hba/hba.c \
	src/hba/hba_line.c
FUZZ_CLANG = clang
FUZZ_FLAGS = -O1 -g -fPIC -shared -fno-strict-aliasing -fwrapv \
	-fsanitize=fuzzer-no-link,bounds,null,return,shift,unreachable,vla-bound \
	-fsanitize-trap=all -Wno-ignored-attributes
FUZZ_RUNTIME = $(shell $(FUZZ_CLANG) --print-file-name=libclang_rt.fuzzer_no_main-$(shell uname -m).a)

test/fuzz.so: $(FUZZ_SOURCES) $(PRK_HEADERS) test/hba_oracle.h
	$(FUZZ_CLANG) $(CPPFLAGS) $(FUZZ_FLAGS) -o $@ $(addprefix $(srcdir)/,$(FUZZ_SOURCES)) \
		-Wl,--whole-archive $(FUZZ_RUNTIME) -Wl,--no-whole-archive -lstdc++ -lm -lpthread

test/clock_test.so: test/clock_test.o src/clock/clock.o src/clock/clock_file.o
test/sanitize_test.so: test/sanitize_test.o
test/slow_disk.so: test/slow_disk.o
test/wall_clock.so: test/wall_clock.o
test/hba_test.so: test/hba_test.o test/hba_oracle.o src/hba/hba.o src/hba/hba_beside.o src/hba/hba_file.o src/hba/hba_line.o \
	src/hba/hba_rules.o src/hba/hba_same.o
test/hba_test_link.so: test/hba_test.o test/hba_oracle.o src/hba/hba.o src/hba/hba_beside.o src/hba/hba_line.o test/hba_file_link.o \
	src/hba/hba_rules.o src/hba/hba_same.o
test/health_test.so: test/health_test.o src/judge/codes.o src/judge/health.o \
	src/judge/absence.o src/judge/verdict.o src/judge/reason.o src/judge/forecast.o src/format.o src/kept.o \
	src/sample/sample.o src/sample/backends.o src/sample/backups.o src/sample/derive.o
$(TEST_MODULES): $(SANITIZE_OBJS)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ $(SANITIZE_LIBS)
