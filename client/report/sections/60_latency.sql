-- title: Latency of ops
-- about: In the daemon, of this machine on that day: half of the ops, 99 of 100, and all were at most this slow. It is the one figure here that a replay does not repeat.
-- draw: plot
-- unit: µs
-- scale: log
SELECT x, max(CASE WHEN rank * 2 <= n + 1 THEN latency_ns END) / 1000.0 AS p50,
  max(CASE WHEN rank * 100 <= n * 99 OR rank = 1 THEN latency_ns END) / 1000.0 AS p99, max(latency_ns) / 1000.0 AS slowest
FROM (SELECT x, latency_ns, row_number() OVER (PARTITION BY x ORDER BY latency_ns) AS rank, count(*) OVER (PARTITION BY x) AS n
  FROM (SELECT min(:last, ((key & 0xffffffffff) + :bucket - 1) / :bucket * :bucket) AS x, latency_ns FROM ops
    WHERE key BETWEEN (:machine << 40) + 1 AND (:machine << 40) + :last))
GROUP BY x ORDER BY x
