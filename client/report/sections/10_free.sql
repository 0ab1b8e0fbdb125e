-- title: Free pages and the marks
-- about: The line is what was free after the last op of each point, the band the least and the most within it. Pages on the CPUs' own lists count as free. Requests stop at the marks, urgent ones at a part of min.
-- draw: plot
-- panel: zone
-- hold: at_end
-- band: least most
-- dashed: min low high
-- unit: pages
-- scale: log
-- needs: whole
WITH
  kinds(alloc, free, ready) AS MATERIALIZED (SELECT (SELECT kind FROM event_kinds WHERE name = 'alloc'),
    (SELECT kind FROM event_kinds WHERE name = 'free'), (SELECT kind FROM event_kinds WHERE name = 'zone_ready')),
  -- A loaded state makes the zones anew; what was before it does not count.
  made(key) AS MATERIALIZED (SELECT max(key) FROM kinds, op_rows
    WHERE key BETWEEN :machine << 40 AND (:machine << 40) + :last AND op_rows.kinds & (1 << ready)),
  -- The same as the view free_pages, in one pass: what a zone began with, less what left it, plus what came back.
  changes AS (
    SELECT e.id, min(:last, ((o.key & 0xffffffffff) + :bucket - 1) / :bucket * :bucket) AS x,
      CASE e.kind WHEN alloc THEN e.w3 WHEN free THEN e.w2 ELSE e.w0 END AS zone,
      CASE e.kind WHEN alloc THEN -(1 << e.w1) WHEN free THEN 1 << e.w1 ELSE e.w5 END AS change
    FROM kinds, made CROSS JOIN op_rows o CROSS JOIN events e
      ON e.id >= o.events >> 24 AND e.id < (o.events >> 24) + (o.events & 0xffffff)
    WHERE o.key BETWEEN made.key AND (:machine << 40) + :last AND +e.kind IN (alloc, free, ready)),
  after AS (SELECT id, x, zone, sum(change) OVER (PARTITION BY zone ORDER BY id) AS free FROM changes)
SELECT (SELECT name FROM enum_values WHERE enum = 'Zone' AND value = zone) AS zone, x, min(free) AS least,
  max(free) AS most,
  -- The value that came with the greatest id.
  max(id << 26 | free) & ((1 << 26) - 1) AS at_end, NULL AS min, NULL AS low, NULL AS high
FROM after GROUP BY after.zone, x
UNION ALL
SELECT zone, min(:last, (op + :bucket - 1) / :bucket * :bucket), NULL, NULL, NULL, min, low, high
FROM event_marks WHERE machine_id = :machine
ORDER BY 1, 2
