-- The settings: units, limits, and what replica_kit.overrides refuses.
LOAD 'pg_replica_kit';

SELECT name, setting, unit, context, vartype, min_val, max_val
FROM pg_settings WHERE name LIKE 'replica\_kit.%' ORDER BY name;

-- As a person sees the defaults.
SELECT name, current_setting(name)
FROM pg_settings WHERE name LIKE 'replica\_kit.%' ORDER BY name;

-- The server's own refusals, which every version words in its own way.
\set VERBOSITY sqlstate
-- A misspelt setting is none.
SET replica_kit.warning_lgg = 1; -- ERROR
-- All of them belong to the server.
SET replica_kit.warning_lag = '1MB'; -- ERROR
-- Units, and the smallest value.
ALTER SYSTEM SET replica_kit.check_interval = '0.1s';
ALTER SYSTEM SET replica_kit.check_interval = '99ms'; -- ERROR
ALTER SYSTEM SET replica_kit.check_interval = '-1'; -- ERROR
ALTER SYSTEM SET replica_kit.check_interval = '2d'; -- ERROR
ALTER SYSTEM SET replica_kit.warning_lag = '1GB';
ALTER SYSTEM SET replica_kit.warning_lag = '-1';
ALTER SYSTEM SET replica_kit.warning_lag = '-2'; -- ERROR
ALTER SYSTEM SET replica_kit.critical_lag = '1min'; -- ERROR
ALTER SYSTEM SET replica_kit.lag_grace = '1MB'; -- ERROR
ALTER SYSTEM SET replica_kit.warning_lag_time = '1h';
ALTER SYSTEM SET replica_kit.worker = 'perhaps'; -- ERROR
\set VERBOSITY default

-- What one replica may have of its own.
ALTER SYSTEM SET replica_kit.overrides =
'delayed1: warning_lag_time=4h critical_lag_time=8h, debezium_*: off';
ALTER SYSTEM SET replica_kit.overrides =
'  "a b:""c,": WARNING_LAG=-1	critical_lag=1.5GB,*:OFF  ';
ALTER SYSTEM SET replica_kit.overrides =
'r: warning_lag=1MB critical_lag=2MB lag_grace=1s warning_lag_time=1s critical_lag_time=2s warning_disconnected=1s critical_disconnected=2s warning_forecast=2h critical_forecast=1h alert_after=1s repeat_interval=1d';
ALTER SYSTEM SET replica_kit.overrides = '   ';

-- Nonsense is refused, with its place.
ALTER SYSTEM SET replica_kit.overrides = 'r'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r:'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = ': off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: off,'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: off,,s: off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r s: off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = '"r: off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = '"": off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: off off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: off warning_lag=1MB'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag=1MB off'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: offf'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag='; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag= 1MB'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag=1MB, und: lag=1'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: check_interval=1s'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag=1min'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag_time=1MB'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag=-2'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag_time=1000d'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides = 'r: warning_lag=1MB warning_lag=2MB'; -- ERROR
ALTER SYSTEM SET replica_kit.overrides =
'r123456789012345678901234567890123456789012345678901234567890123: off'; -- ERROR

ALTER SYSTEM RESET replica_kit.check_interval;
ALTER SYSTEM RESET replica_kit.warning_lag;
ALTER SYSTEM RESET replica_kit.warning_lag_time;
ALTER SYSTEM RESET replica_kit.overrides;
