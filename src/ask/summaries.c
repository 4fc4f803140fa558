/*-------------------------------------------------------------------------
 *
 * summaries.c
 *	  What the WAL summaries of this server say of a range of WAL.
 *
 * An incremental backup takes the blocks of a file that the summaries do not
 * name from the older copy.  That goes wrong where a relation was truncated in
 * the range and has grown again since: the server forgets the blocks above the
 * truncation, but those that it filled with zeros without WAL exist, and come
 * out of the old copy with rows that were deleted (GetFileBackupMethod() in
 * src/backend/backup/basebackup_incremental.c).  So a client that asks for
 * such a backup has to know these files, and to ask for all of them.
 *
 * A relation that was truncated has a limit block, its least length.  A segment
 * that begins at the limit block or behind it is sent whole by the server
 * itself.  So for each fork there is at most one file to be told.
 *
 * A relation may also end with pages that were made and never used, which are
 * zeros and in no WAL.  Where the older copy is shorter than that, nobody has
 * those blocks, and whether it is too short cannot be told: such a file is better
 * asked for whole, too.
 *
 * RelationAddBlocks() adds several at once, and _hash_alloc_buckets() logs only
 * the last of many.  No other block of a relation comes into being without WAL.
 * So those are zeros in a backup, too, unless the older copy has them, which it
 * does only after a truncation.  A fork that has not changed in the range is not
 * in the summaries, and its unused pages are not told: the client finds them in
 * the backup.
 *
 * IDENTIFICATION
 *	  src/ask/summaries.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ask/backup_files.h"
#include "ask/summaries.h"
#include "compat.h"

#ifdef PRK_COMPAT_HAS_SUMMARIES

#include <fcntl.h>
#include <sys/stat.h>

#include "access/xlog_internal.h"
#include "catalog/pg_tablespace_d.h"
#include "common/blkreftable.h"
#include "common/relpath.h"
#include "storage/fd.h"
#include "utils/hsearch.h"

#define SUMMARIES		XLOGDIR "/summaries"

#define BLOCKS_PER_READ	512

/*
 * A file of summaries, by its name.  PostgreSQL does not install the header of
 * what it has for them itself, but that of their contents.
 */
typedef struct Summary
{
	char	   *name;
	XLogRecPtr	start;
	XLogRecPtr	end;
} Summary;

/* A fork, or a database with relNumber 0. */
typedef struct ForkKey
{
	RelFileLocator locator;
	ForkNumber	fork;
} ForkKey;

/* What the summaries of a range say, put together as for a backup. */
typedef struct Changes
{
	TimeLineID	tli;
	XLogRecPtr	from;
	XLogRecPtr	to;				/* up to there they are complete */
	XLogRecPtr	gap_end;		/* invalid: none are missing before others */
	int64		until;
	bool		in_time;
	HTAB	   *forks;			/* of ForkKey */
	BlockRefTable *blocks;
} Changes;

/* A file to be asked for whole. */
typedef struct WholeFile
{
	ForkKey		key;
	BlockNumber segment;
	BlockNumber least;			/* 0, or only if the older copy is shorter */
	int64		more;			/* bytes, beyond those of its changed blocks */
} WholeFile;

static void tell_forks(PrkAnswer *answer, Changes *changes, int skip);
static void tell_file(PrkAnswer *answer, const WholeFile *file);
static bool has_told_segment(const Changes *changes, const ForkKey *key);
static bool parse_range(const char *argument, Changes *changes, int *skip);
static void read_summaries(Changes *changes);
static List *find_summaries(const Changes *changes);
static int	compare_summaries(const ListCell *a, const ListCell *b);
static void read_summary(Changes *changes, const Summary *summary);
static int	read_bytes(void *arg, void *data, int length);
static void cannot_read(void *arg, char *format,...) pg_attribute_printf(2, 3);
static int	sort_forks(Changes *changes, ForkKey **keys);
static int	compare_forks(const void *a, const void *b);
static bool is_created(const Changes *changes, const ForkKey *key);
static int64 changed_bytes(const Changes *changes, const ForkKey *key,
						   List **grown);
static BlockNumber end_of_unchanged(BlockNumber *changed, unsigned nchanged,
									BlockNumber start, BlockNumber nblocks);
static int	compare_blocks(const void *a, const void *b);
static bool is_zero_block(const char *path, BlockNumber number);
static int64 bytes_of_database(const ForkKey *key);
static char *fork_path(const ForkKey *key, BlockNumber segment);
static char *directory_path(const RelFileLocator *locator);
static int64 file_size(const char *path);
static BlockNumber limit_block(const Changes *changes, const ForkKey *key);

/*
 * Answers "TLI FROM TO SKIP": up to where the summaries from FROM on are
 * complete, at most TO; whether there was time to read them; where the next
 * one begins if some are missing there; how many bytes of relations an
 * incremental backup would send for that range; how many files are to be
 * asked for whole; and of these, from number SKIP on, each a column of numbers:
 * tablespace, database, relation, fork and segment.  Behind those that were
 * truncated come those that end with unused pages, with two numbers more: they
 * are to be asked for only if the older copy has fewer blocks than the first,
 * and add as many bytes as the second to what would be sent.
 *
 * That is less than a base backup gives.
 */
void
prk_summaries_limits(PrkAnswer *answer, const char *argument, int64 until)
{
	MemoryContext context = CurrentMemoryContext;
	Changes		changes = {.until = until,.in_time = true};
	int			skip;

	if (!parse_range(argument, &changes, &skip))
	{
		resetStringInfo(&answer->line);
		return;
	}
	PG_TRY();
	{
		read_summaries(&changes);
	}
	PG_CATCH();
	{
		/* A summary that cannot be read: the backup will say why. */
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		changes.in_time = false;
	}
	PG_END_TRY();
	prk_answer_text(answer, psprintf("%X/%X", LSN_FORMAT_ARGS(changes.to)));
	prk_answer_bool(answer, changes.in_time);
	prk_answer_text(answer, XLogRecPtrIsInvalid(changes.gap_end) ? NULL :
					psprintf("%X/%X", LSN_FORMAT_ARGS(changes.gap_end)));
	if (changes.in_time)
		tell_forks(answer, &changes, skip);
}

/* The truncated ones first: those must not move while one answer follows another. */
static void
tell_forks(PrkAnswer *answer, Changes *changes, int skip)
{
	ForkKey    *keys;
	int			nkeys = sort_forks(changes, &keys);
	int64		bytes = 0;
	List	   *files = NIL;
	List	   *grown = NIL;
	ListCell   *cell;

	for (int i = 0; i < nkeys; i++)
	{
		bytes += changed_bytes(changes, &keys[i], &grown);
		if (has_told_segment(changes, &keys[i]))
		{
			WholeFile  *file = palloc0(sizeof(WholeFile));

			file->key = keys[i];
			file->segment = limit_block(changes, &keys[i]) / RELSEG_SIZE;
			files = lappend(files, file);
		}
	}
	files = list_concat(files, grown);
	prk_answer_number(answer, bytes);
	prk_answer_number(answer, list_length(files));
	foreach(cell, files)
	{
		if (skip-- <= 0)
			tell_file(answer, lfirst(cell));
	}
}

static void
tell_file(PrkAnswer *answer, const WholeFile *file)
{
	char	   *name = psprintf("%u %u %u %d %u", file->key.locator.spcOid,
								file->key.locator.dbOid,
								file->key.locator.relNumber,
								(int) file->key.fork, file->segment);

	if (file->least > 0)
		name = psprintf("%s %u " INT64_FORMAT, name, file->least, file->more);
	prk_answer_text(answer, name);
}

/* Free space and visibility maps are never asked for in part. */
static bool
has_told_segment(const Changes *changes, const ForkKey *key)
{
	BlockNumber limit = limit_block(changes, key);

	return (key->fork == MAIN_FORKNUM || key->fork == INIT_FORKNUM) &&
		limit != InvalidBlockNumber && limit % RELSEG_SIZE != 0;
}

static bool
parse_range(const char *argument, Changes *changes, int *skip)
{
	uint32		from[2],
				to[2];
	char		rest;

	if (strlen(argument) > 60 ||
		strspn(argument, "0123456789ABCDEF/ ") != strlen(argument) ||
		sscanf(argument, "%u %8X/%8X %8X/%8X %9d%c", &changes->tli, &from[0],
			   &from[1], &to[0], &to[1], skip, &rest) != 6)
		return false;
	changes->from = ((uint64) from[0]) << 32 | from[1];
	changes->to = ((uint64) to[0]) << 32 | to[1];
	return changes->from < changes->to;
}

/* As PrepareForIncrementalBackup() does. */
static void
read_summaries(Changes *changes)
{
	List	   *summaries = find_summaries(changes);
	XLogRecPtr	complete = changes->from;
	HASHCTL		control = {.keysize = sizeof(ForkKey),
	.entrysize = sizeof(ForkKey),.hcxt = CurrentMemoryContext};
	ListCell   *cell;

	changes->forks = hash_create("forks in WAL summaries", 1024, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	changes->blocks = CreateEmptyBlockRefTable();
	foreach(cell, summaries)
	{
		const Summary *summary = lfirst(cell);

		if (summary->start > complete)
		{
			changes->gap_end = summary->start;
			break;
		}
		if (changes->in_time)
			read_summary(changes, summary);
		complete = Max(complete, summary->end);
	}
	changes->to = Min(changes->to, complete);
}

/* Those that have a part in the range, in the order of WAL. */
static List *
find_summaries(const Changes *changes)
{
	DIR		   *dir = AllocateDir(SUMMARIES);
	struct dirent *entry;
	List	   *summaries = NIL;

	while ((entry = ReadDir(dir, SUMMARIES)) != NULL)
	{
		uint32		part[5];
		Summary    *summary;

		if (strspn(entry->d_name, "0123456789ABCDEF") != 40 ||
			strcmp(entry->d_name + 40, ".summary") != 0 ||
			sscanf(entry->d_name, "%08X%08X%08X%08X%08X", &part[0], &part[1],
				   &part[2], &part[3], &part[4]) != 5)
			continue;
		summary = palloc(sizeof(Summary));
		summary->name = pstrdup(entry->d_name);
		summary->start = ((uint64) part[1]) << 32 | part[2];
		summary->end = ((uint64) part[3]) << 32 | part[4];
		if (part[0] == changes->tli && summary->end > changes->from &&
			summary->start < changes->to)
			summaries = lappend(summaries, summary);
	}
	FreeDir(dir);
	list_sort(summaries, compare_summaries);
	return summaries;
}

static int
compare_summaries(const ListCell *a, const ListCell *b)
{
	const Summary *one = lfirst(a);
	const Summary *other = lfirst(b);

	return one->start < other->start ? -1 : one->start > other->start;
}

static void
read_summary(Changes *changes, const Summary *summary)
{
	char	   *path = psprintf(SUMMARIES "/%s", summary->name);
	FILE	   *file = AllocateFile(path, PG_BINARY_R);
	BlockRefTableReader *reader;
	BlockNumber limit;
	BlockNumber blocks[BLOCKS_PER_READ];
	unsigned	count;
	ForkKey		key;

	if (file == NULL)
		cannot_read(NULL, "could not open file \"%s\": %m", path);
	reader = CreateBlockRefTableReader(read_bytes, file, path, cannot_read,
									   NULL);
	memset(&key, 0, sizeof(key));
	while (changes->in_time &&
		   BlockRefTableReaderNextRelation(reader, &key.locator, &key.fork,
										   &limit))
	{
		CHECK_FOR_INTERRUPTS();
		(void) hash_search(changes->forks, &key, HASH_ENTER, NULL);
		BlockRefTableSetLimitBlock(changes->blocks, &key.locator, key.fork,
								   limit);
		while ((count = BlockRefTableReaderGetBlocks(reader, blocks,
													 BLOCKS_PER_READ)) > 0)
		{
			for (unsigned i = 0; i < count; i++)
				BlockRefTableMarkBlockModified(changes->blocks, &key.locator,
											   key.fork, blocks[i]);
		}
		changes->in_time = prk_backup_clock() < changes->until;
	}
	DestroyBlockRefTableReader(reader);
	FreeFile(file);
}

/* What a reader calls. */
static int
read_bytes(void *arg, void *data, int length)
{
	return (int) fread(data, 1, length, (FILE *) arg);
}

static void
cannot_read(void *arg, char *format,...)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg_internal("a WAL summary cannot be read: %s", format)));
}

/* The forks in an order that the next question finds again. */
static int
sort_forks(Changes *changes, ForkKey **keys)
{
	HASH_SEQ_STATUS status;
	ForkKey    *key;
	int			nkeys = 0;

	*keys = palloc(Max(hash_get_num_entries(changes->forks), 1) *
				   sizeof(ForkKey));
	hash_seq_init(&status, changes->forks);
	while ((key = hash_seq_search(&status)) != NULL)
		(*keys)[nkeys++] = *key;
	qsort(*keys, nkeys, sizeof(ForkKey), compare_forks);
	return nkeys;
}

static int
compare_forks(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(ForkKey));
}

/* InvalidBlockNumber: never truncated. */
static BlockNumber
limit_block(const Changes *changes, const ForkKey *key)
{
	BlockNumber limit = InvalidBlockNumber;

	(void) BlockRefTableGetEntry(changes->blocks, &key->locator, key->fork,
								 &limit);
	return limit;
}

/* Is the fork's database in this tablespace younger than the range? */
static bool
is_created(const Changes *changes, const ForkKey *key)
{
	ForkKey		database = *key;

	database.locator.relNumber = 0;
	database.fork = MAIN_FORKNUM;
	return hash_search(changes->forks, &database, HASH_FIND, NULL) != NULL;
}

/*
 * How much of a fork would be sent?  Those that are always whole do not count.
 * Adds its files that end with unused pages to "grown".
 */
static int64
changed_bytes(const Changes *changes, const ForkKey *key, List **grown)
{
	static BlockNumber blocks[RELSEG_SIZE];
	BlockRefTableEntry *entry;
	BlockNumber limit;
	int64		bytes = 0;

	if (key->locator.relNumber == 0)
		return bytes_of_database(key);
	if ((key->fork != MAIN_FORKNUM && key->fork != INIT_FORKNUM) ||
		is_created(changes, key))
		return 0;
	entry = BlockRefTableGetEntry(changes->blocks, &key->locator, key->fork,
								  &limit);
	for (BlockNumber segment = 0;; segment++)
	{
		char	   *path = fork_path(key, segment);
		int64		size = file_size(path);
		BlockNumber start = segment * RELSEG_SIZE;
		BlockNumber nblocks;
		BlockNumber end;
		unsigned	nchanged;
		int64		sent;

		if (size < 0)
			break;
		nblocks = (BlockNumber) (size / BLCKSZ);
		nchanged = BlockRefTableEntryGetBlocks(entry, start, start + nblocks,
											   blocks, RELSEG_SIZE);
		sent = (int64) BLCKSZ * nchanged;
		if (limit < start + RELSEG_SIZE || sent > size * 0.9)
			sent = size;
		bytes += sent;
		if (sent == size)
			continue;
		end = end_of_unchanged(blocks, nchanged, start, nblocks);
		if (end > 0 && is_zero_block(path, end - 1))
		{
			WholeFile  *file = palloc(sizeof(WholeFile));

			file->key = *key;
			file->segment = segment;
			file->least = end;
			file->more = size - sent;
			*grown = lappend(*grown, file);
		}
	}
	return bytes;
}

/* Behind which block of a file, counted in it, have all changed?  Sorts them. */
static BlockNumber
end_of_unchanged(BlockNumber *changed, unsigned nchanged, BlockNumber start,
				 BlockNumber nblocks)
{
	qsort(changed, nchanged, sizeof(BlockNumber), compare_blocks);
	while (nchanged > 0 && changed[nchanged - 1] == start + nblocks - 1)
	{
		nchanged--;
		nblocks--;
	}
	return nblocks;
}

static int
compare_blocks(const void *a, const void *b)
{
	BlockNumber one = *(const BlockNumber *) a;
	BlockNumber other = *(const BlockNumber *) b;

	return one < other ? -1 : one > other;
}

/* On disk, which is what a backup reads. */
static bool
is_zero_block(const char *path, BlockNumber number)
{
	static const char zeros[BLCKSZ];
	char		buffer[BLCKSZ];
	int			file = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	bool		is_zero;

	if (file < 0)
		return false;
	is_zero = pg_pread(file, buffer, BLCKSZ, (off_t) number * BLCKSZ) == BLCKSZ &&
		memcmp(buffer, zeros, BLCKSZ) == 0;
	(void) CloseTransientFile(file);
	return is_zero;
}

static int64
bytes_of_database(const ForkKey *key)
{
	char	   *directory = directory_path(&key->locator);
	DIR		   *dir = AllocateDir(directory);
	struct dirent *entry;
	int64		bytes = 0;

	if (dir == NULL)
		return 0;
	while ((entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL)
	{
		if (entry->d_name[0] != '.')
			bytes += Max(file_size(psprintf("%s/%s", directory,
											entry->d_name)), 0);
	}
	FreeDir(dir);
	return bytes;
}

static char *
directory_path(const RelFileLocator *locator)
{
	if (locator->spcOid == GLOBALTABLESPACE_OID)
		return pstrdup("global");
	if (locator->spcOid == DEFAULTTABLESPACE_OID)
		return psprintf("base/%u", locator->dbOid);
	return psprintf("pg_tblspc/%u/" TABLESPACE_VERSION_DIRECTORY "/%u",
					locator->spcOid, locator->dbOid);
}

static char *
fork_path(const ForkKey *key, BlockNumber segment)
{
	char	   *path = psprintf("%s/%u%s%s", directory_path(&key->locator),
								key->locator.relNumber,
								key->fork == MAIN_FORKNUM ? "" : "_",
								key->fork == MAIN_FORKNUM ? "" :
								forkNames[key->fork]);

	return segment == 0 ? path : psprintf("%s.%u", path, segment);
}

/* -1: there is no such file. */
static int64
file_size(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 ? (int64) status.st_size : -1;
}

#else

/* Without summaries there is nothing to tell. */
void
prk_summaries_limits(PrkAnswer *answer, const char *argument, int64 until)
{
	resetStringInfo(&answer->line);
}

#endif
