/*
 * older.h - a history as an older version would have left it.
 */
#ifndef TESTS_HISTORY_OLDER_H
#define TESTS_HISTORY_OLDER_H

enum { OLDER_VERSIONS = 3 }; /* 1 to that */

/* By version: from the one after it to it. The views of the contract stay, and name what is
 * there no more, as an older version's do for the newer one. */
static const char *const older_sql[OLDER_VERSIONS + 1] = {
    [3] = "BEGIN; PRAGMA legacy_alter_table = ON;"
	  "CREATE TABLE op_rows_3(key INTEGER PRIMARY KEY, time_ns INTEGER, what INTEGER,"
	  " caller INTEGER, latency_ns INTEGER, a0 INTEGER, a1 INTEGER, v0 INTEGER, v1 INTEGER,"
	  " v2 INTEGER, first_event INTEGER, nr_events INTEGER, kinds INTEGER) STRICT;"
	  "INSERT INTO op_rows_3 SELECT key, r.time_ns, what, caller, r.latency_ns, a0, a1, o.v0,"
	  " v1, v2, CASE nr_events WHEN 0 THEN 77 ELSE first_event END, nr_events, o.kinds"
	  " FROM op_rows r JOIN ops o USING(key);"
	  "CREATE TABLE op_more_3(key INTEGER PRIMARY KEY, token INTEGER, sequence INTEGER,"
	  " a2 INTEGER, a3 INTEGER, a4 INTEGER, a5 INTEGER, v3 INTEGER, data_len INTEGER,"
	  " result_len INTEGER, result_hash INTEGER) STRICT;"
	  "INSERT INTO op_more_3 SELECT key, token, sequence, a2, a3, a4, a5, v3, data_len,"
	  " result_len, result_hash FROM op_more"
	  " WHERE token IS NOT NULL OR a2 | a3 | a4 | a5 | v3 | data_len | result_len;"
	  "CREATE TABLE events_3(id INTEGER PRIMARY KEY, kind INTEGER, w0 INTEGER, w1 INTEGER,"
	  " w2 INTEGER, w3 INTEGER, w4 INTEGER, w5 INTEGER) STRICT;"
	  "INSERT INTO events_3 SELECT * FROM events;"
	  "DROP VIEW ops; DROP VIEW events;"
	  "DROP TABLE op_rows; DROP TABLE op_more; DROP TABLE event_rows;"
	  "ALTER TABLE op_rows_3 RENAME TO op_rows; ALTER TABLE op_more_3 RENAME TO op_more;"
	  "ALTER TABLE events_3 RENAME TO events;"
	  "CREATE INDEX op_more_token ON op_more(token, sequence) WHERE token IS NOT NULL;"
	  "CREATE VIEW ops AS SELECT o.key AS key, o.what & 0xff AS code,"
	  " (o.what >> 16) & 0xffff AS cpu, (o.what >> 32) & 0xffffffff AS task,"
	  " o.caller & 0xffffffff AS owner, (o.what >> 8) & 0xff AS status, o.time_ns AS time_ns,"
	  " o.latency_ns AS latency_ns, o.caller >> 32 AS client, x.token AS token,"
	  " x.sequence AS sequence, o.a0 AS a0, o.a1 AS a1, coalesce(x.a2, 0) AS a2,"
	  " coalesce(x.a3, 0) AS a3, coalesce(x.a4, 0) AS a4, coalesce(x.a5, 0) AS a5,"
	  " o.v0 AS v0, o.v1 AS v1, o.v2 AS v2, coalesce(x.v3, 0) AS v3,"
	  " coalesce(x.data_len, 0) AS data_len, coalesce(x.result_len, 0) AS result_len,"
	  " coalesce(x.result_hash, 0) AS result_hash, o.first_event AS first_event,"
	  " o.nr_events AS nr_events, o.kinds AS kinds"
	  " FROM op_rows o LEFT JOIN op_more x ON x.key = o.key;"
	  "PRAGMA user_version = 3; COMMIT;",
    [2] = "DROP TABLE losses; PRAGMA user_version = 2;",
    /* No column goes while there are views that cannot be read. */
    [1] = "DROP TABLE checkpoints; DROP TABLE checkpoint_pieces;"
	  "DELETE FROM meta WHERE name = 'contract'; PRAGMA writable_schema = ON;"
	  "DELETE FROM sqlite_schema WHERE type = 'view' AND name <> 'ops';"
	  "PRAGMA writable_schema = RESET; ALTER TABLE machines DROP COLUMN first_op;"
	  "PRAGMA user_version = 1;",
};

#endif
