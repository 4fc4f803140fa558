/*-------------------------------------------------------------------------
 *
 * format.h
 *	  Sizes and durations in the words that log lines and views share.
 *
 * IDENTIFICATION
 *	  src/format.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_FORMAT_H
#define PRK_FORMAT_H

#include "datatype/timestamp.h"

/* Room for any size, duration or time of these functions. */
#define PRK_FORMAT_LEN	64

extern const char *prk_format_size(char *buf, int64 bytes);
extern const char *prk_format_span(char *buf, int64 microseconds);
extern const char *prk_format_duration(char *buf, int64 microseconds);
extern const char *prk_format_time(char *buf, TimestampTz when);

#endif							/* PRK_FORMAT_H */
