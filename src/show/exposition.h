/*-------------------------------------------------------------------------
 *
 * exposition.h
 *	  The Prometheus text exposition format.
 *
 * IDENTIFICATION
 *	  src/show/exposition.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_EXPOSITION_H
#define PRK_EXPOSITION_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

typedef enum PrkMetricType
{
	PRK_GAUGE,
	PRK_COUNTER
} PrkMetricType;

/* A value: not known, a whole number, or microseconds, shown in seconds. */
typedef struct PrkNumber
{
	bool		known;
	bool		time;
	int64		value;
} PrkNumber;

extern void prk_exposition_family(StringInfo text, const char *name,
								  PrkMetricType type, const char *help);
extern void prk_exposition_value(StringInfo text, const char *name,
								 const char *labels, const char *more,
								 PrkNumber number);
extern void prk_exposition_label(StringInfo labels, const char *name,
								 const char *value);

extern PrkNumber prk_number(int64 value);
extern PrkNumber prk_number_bytes(int64 bytes);
extern PrkNumber prk_number_duration(int64 microseconds);
extern PrkNumber prk_number_timestamp(TimestampTz at);
extern PrkNumber prk_number_unknown(void);

#endif							/* PRK_EXPOSITION_H */
