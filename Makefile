# pg_replica_kit: the whole life of a streaming read replica, from SQL
#
#   make && sudo make install       build with the pg_config found in PATH
#   make installcheck               all tests, on private servers, never yours

MODULE_big = pg_replica_kit
EXTENSION = pg_replica_kit
DATA = pg_replica_kit--1.0.sql
DATA_built = pg_replica_kit_join.sh
PGFILEDESC = "pg_replica_kit - the whole life of a streaming read replica"

PRK_HEADERS = \
	src/ages.h \
	src/alerts.h \
	src/announce.h \
	src/backends.h \
	src/backups.h \
	src/board.h \
	src/commit.h \
	src/clock.h \
	src/clock_file.h \
	src/clock_shared.h \
	src/compat.h \
	src/derive.h \
	src/diagnose.h \
	src/evidence.h \
	src/failure_table.h \
	src/failure_words.h \
	src/failures.h \
	src/disk.h \
	src/forecast.h \
	src/format.h \
	src/guard.h \
	src/hba.h \
	src/hba_edit.h \
	src/hba_file.h \
	src/hba_rules.h \
	src/hba_same.h \
	src/health.h \
	src/history.h \
	src/lock.h \
	src/provision_checks.h \
	src/receiver.h \
	src/reload.h \
	src/report.h \
	src/role.h \
	src/sample.h \
	src/server_alert.h \
	src/settings.h \
	src/slot.h \
	src/staged.h \
	src/track.h \
	src/unused.h \
	src/upstream.h \
	src/worker.h

OBJS = \
	pg_replica_kit.o \
	src/ages.o \
	src/alerts.o \
	src/announce.o \
	src/backends.o \
	src/backups.o \
	src/board.o \
	src/commit.o \
	src/clock.o \
	src/clock_file.o \
	src/clock_shared.o \
	src/derive.o \
	src/diagnose.o \
	src/diagnose_attempts.o \
	src/diagnose_funcs.o \
	src/diagnose_replicas.o \
	src/diagnose_standby.o \
	src/evidence.o \
	src/failure_funcs.o \
	src/failure_table.o \
	src/failure_words.o \
	src/failures.o \
	src/disk.o \
	src/forecast.o \
	src/format.o \
	src/guard.o \
	src/hba.o \
	src/hba_edit.o \
	src/hba_file.o \
	src/hba_funcs.o \
	src/hba_rules.o \
	src/hba_same.o \
	src/health.o \
	src/history.o \
	src/history_funcs.o \
	src/join_funcs.o \
	src/judge_funcs.o \
	src/lock.o \
	src/preflight_funcs.o \
	src/provision_checks.o \
	src/provision_funcs.o \
	src/receiver.o \
	src/reload.o \
	src/report.o \
	src/role.o \
	src/sample.o \
	src/server_alert.o \
	src/settings.o \
	src/slot.o \
	src/staged.o \
	src/standby_funcs.o \
	src/status_funcs.o \
	src/track.o \
	src/unused.o \
	src/upstream.o \
	src/worker.o

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

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
	bench/healthy_hour \
	bench/sample_cost \
	bench/strangers \
	bench/watching_cost \
	scripts/analyze \
	scripts/common.sh \
	scripts/demo \
	scripts/matrix \
	scripts/sanitize \
	scripts/systemd \
	scripts/test \
	pg_replica_kit_join.sh

# in this order
JOIN_PARTS = \
	src/join.sh \
	src/join_local.sh \
	src/join_upstream.sh \
	src/join_compress.sh \
	src/join_clone.sh \
	src/join_rebuild.sh \
	src/join_run.sh

EXTRA_CLEAN = tmp_installcheck tmp_check_iso tmp_check results log output_iso \
	test/*.o test/*.so

# The only thing out of the way of PGXS: where builds happen out of the tree.
$(shell mkdir -p src)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# hides calls from the sanitizers
ifdef SANITIZE
override CPPFLAGS += -U_FORTIFY_SOURCE
endif

# PGXS tracks no header dependencies.
$(OBJS): $(PRK_HEADERS)

# Each header compiles alone, after postgres.h as always.
headerscheck: $(PRK_HEADERS:=.check)

src/%.h.check: src/%.h FORCE
	$(CC) $(CFLAGS) $(CPPFLAGS) -Werror -fsyntax-only \
		-include postgres.h -include $< -x c /dev/null

# Everything in C looks as pgindent would leave it; `make indent` does it.
indentcheck:
	scripts/indent --check $(OBJS:.o=.c) $(PRK_HEADERS)

indent:
	scripts/indent $(OBJS:.o=.c) $(PRK_HEADERS)

shellcheck: $(DATA_built)
	shellcheck --external-sources $(PRK_SCRIPTS)

FORCE:

.PHONY: headerscheck indentcheck indent shellcheck FORCE

# The script for the replica's machine, where join_script() finds it.
pg_replica_kit_join.sh: $(JOIN_PARTS)
	cat $^ > $@

# What the TAP tests load to reach functions that users don't see.
TEST_MODULES = \
	test/clock_test.so \
	test/hba_test.so \
	test/hba_test_link.so \
	test/health_test.so \
	test/sanitize_test.so \
	test/slow_disk.so \
	test/wall_clock.so
installcheck: $(TEST_MODULES)

test/clock_test.o test/hba_test.o test/health_test.o: $(PRK_HEADERS)
test/clock_test.so: test/clock_test.o src/clock.o src/clock_file.o
test/sanitize_test.so: test/sanitize_test.o
test/slow_disk.so: test/slow_disk.o
test/wall_clock.so: test/wall_clock.o
test/hba_file_link.o: src/hba_file.c src/hba_file.h
test/hba_test.so: test/hba_test.o src/hba.o src/hba_file.o src/hba_rules.o \
	src/hba_same.o
test/hba_test_link.so: test/hba_test.o src/hba.o test/hba_file_link.o \
	src/hba_rules.o src/hba_same.o
test/health_test.so: test/health_test.o src/health.o src/forecast.o src/format.o src/sample.o \
	src/backends.o src/backups.o src/derive.o
$(TEST_MODULES): $(SANITIZE_OBJS)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ $(SANITIZE_LIBS)
