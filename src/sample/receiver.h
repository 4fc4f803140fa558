/*-------------------------------------------------------------------------
 *
 * receiver.h
 *	  The wal receiver: does it stream, and how far has it got?
 *
 * IDENTIFICATION
 *	  src/sample/receiver.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_RECEIVER_H
#define PRK_RECEIVER_H

#include <netdb.h>

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/* What is less than this (microseconds) is not a clock that was set. */
#define PRK_MIN_JUMP	(2 * USECS_PER_SEC)

/* What was there when somebody looked last, and for how long. */
typedef struct PrkReceiverSeen
{
	int64		value;
	int64		age;			/* microseconds since it was first seen */
} PrkReceiverSeen;

/*
 * What whoever watches knows besides: the server keeps only times of the wall
 * clock, which may have been set since.
 */
typedef struct PrkReceiverPast
{
	int64		reload_age;		/* microseconds that the server has had its
								 * settings; -1: not known */
	int64		looked_age;		/* microseconds since somebody looked; -1:
								 * never */
	PrkReceiverSeen start;
	PrkReceiverSeen message;
} PrkReceiverPast;

typedef struct PrkReceiver
{
	bool		streaming;		/* connected at this instant */
	bool		settled;		/* and has been for more than an instant */
	bool		stalled;		/* but nothing comes any more */
	bool		flushing;		/* it waits for its disk */
	int64		connecting;		/* microseconds since it began to connect; -1:
								 * it does not, or the server doesn't tell */
	int64		start;			/* time_t by the wall clock */
	int64		start_age;		/* microseconds since then */
	int64		silence;		/* microseconds without a message; 0 when not
								 * connected */
	TimestampTz last_message_at;	/* 0: none since it connected */
	char		sender_host[NI_MAXHOST];	/* "" unknown */
	int			sender_port;
	char		slot_name[NAMEDATALEN]; /* "" none */
	TimeLineID	timeline;		/* that it asked for; 0 none so far */
	XLogRecPtr	latest_end;		/* where the upstream said that it is */
	XLogRecPtr	written_lsn;
	XLogRecPtr	received_lsn;	/* flushed here; invalid: nothing so far */
} PrkReceiver;

extern void prk_receiver_read(PrkReceiver *receiver,
							  const PrkReceiverPast *past);

#endif							/* PRK_RECEIVER_H */
