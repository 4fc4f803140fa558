/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The replica_kit.* settings.
 *
 * IDENTIFICATION
 *	  src/settings.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRK_SETTINGS_H
#define PRK_SETTINGS_H

/*
 * The names under which the server itself and a standby's upstream are shown,
 * and may be overridden.
 */
#define PRK_SERVER_NAME		"server"
#define PRK_UPSTREAM_NAME	"upstream"

/* A replica that leaves sooner than this was not there (microseconds). */
#define PRK_STAYS	(2 * USECS_PER_SEC)

/*
 * What one replica is judged by: the settings, with replica_kit.overrides
 * applied for its name.  -1 switches a threshold off.
 */
typedef struct PrkThresholds
{
	bool		off;			/* "NAME: off": shown, never judged */
	int64		warning_lag;	/* bytes */
	int64		critical_lag;
	int64		lag_grace;		/* all times in milliseconds */
	int64		warning_lag_time;
	int64		critical_lag_time;
	int64		warning_disconnected;
	int64		critical_disconnected;
	int64		warning_forecast;
	int64		critical_forecast;
	int64		alert_after;
	int64		repeat_interval;
	int64		stale_after;	/* age of a receiver's last reply from which
								 * on its figures are of the past; from
								 * wal_sender_timeout */
	bool		strict;			/* one that catches up is critical, too */
} PrkThresholds;

/* The settings that no override changes. */
extern bool prk_worker_enabled; /* replica_kit.worker */
extern int	prk_check_interval; /* milliseconds */
extern int	prk_gate_lag;		/* replica_kit.read_gate_lag, kB; -1: off */
extern int	prk_gate_lag_time;	/* read_gate_lag_time, milliseconds; -1: off */
extern char *prk_gate_roles;	/* read_gate_roles, as identifiers */
extern bool prk_gate_when_cut;	/* read_gate_when_cut */
extern int	prk_history_samples;	/* rows; fixed at the server's start */

extern void prk_settings_init(void);
extern void prk_settings_thresholds(const char *name, PrkThresholds *result);
extern void prk_settings_own_thresholds(const char *name,
										PrkThresholds *result);
extern const char *prk_settings_shown_name(const char *name);

#endif							/* PRK_SETTINGS_H */
