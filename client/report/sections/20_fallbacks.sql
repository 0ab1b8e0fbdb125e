-- title: Fallbacks and failures
-- about: Requests that a lower zone had to serve, why, and those that no zone could serve.
-- draw: plot
-- counts: yes
-- unit: requests
SELECT substr(wanted, 6) || ' → ' || substr(got, 6) || ' (' || lower(substr(why, 10)) || ')' AS series,
  min(:last, (op + :bucket - 1) / :bucket * :bucket) AS x, count(*) AS n
FROM zone_fallbacks WHERE machine_id = :machine GROUP BY 1, 2
UNION ALL
SELECT 'failed, order ' || "order", min(:last, (op + :bucket - 1) / :bucket * :bucket), count(*)
FROM event_alloc_failed WHERE machine_id = :machine GROUP BY 1, 2
ORDER BY 1, 2
