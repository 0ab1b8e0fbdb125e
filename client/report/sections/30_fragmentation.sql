-- title: Fragmentation of free memory
-- about: For a request of order :order, in thousandths, as if the CPUs' lists were drained. extfrag_index is Linux's: towards 1000 a failure is fragmentation's fault, towards 0 it is want of memory; no value where the request would succeed. unusable is the share of free memory that lies in smaller blocks. The statement is asked for one op after the other.
-- draw: plot
-- panel: zone
-- unit: thousandths
-- needs: kept
-- samples: yes
WITH RECURSIVE
  kinds(alloc, free) AS MATERIALIZED (SELECT (SELECT kind FROM event_kinds WHERE name = 'alloc'),
    (SELECT kind FROM event_kinds WHERE name = 'free')),
  -- Frames that the allocator never had and the first page tables, from zonectl frame-map --at 0
  -- (of an early machine: at its boot).
  kept(first, count) AS (VALUES :kept),
  zones AS (SELECT zone, start, start + spanned AS end FROM event_zone_ready WHERE machine_id = :machine AND spanned),
  -- The last that became of every frame: who is still out is in use.
  used(first, end) AS (
    SELECT pfn, pfn + (1 << "order") FROM kinds, (SELECT e.w0 AS pfn, e.w1 AS "order", e.kind, max(e.id)
        FROM kinds CROSS JOIN op_rows o CROSS JOIN events e ON e.id >= o.events >> 24 AND e.id < (o.events >> 24) + (o.events & 0xffffff)
        WHERE o.key BETWEEN :machine << 40 AND (:machine << 40) + :at AND +e.kind IN (alloc, free) GROUP BY e.w0)
      WHERE kind = alloc
    UNION ALL SELECT first, first + count FROM kept
    UNION ALL SELECT start, start FROM zones
    UNION ALL SELECT max(end), max(end) FROM zones),
  gaps AS (SELECT end AS a, lead(first) OVER (ORDER BY first, end) AS b FROM used),
  orders(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM orders WHERE k < 10),
  -- A gap as the blocks that a buddy system makes of it: at each order at most one on
  -- either side, and in the middle as many of the greatest as fit.
  at_order AS (SELECT zone, k, (a + (1 << k) - 1) >> k AS a, b >> k AS b
    FROM gaps JOIN zones ON a >= start AND a < end JOIN orders WHERE b > a),
  free AS (SELECT zone, k, CASE WHEN b <= a THEN 0 WHEN k = 10 THEN b - a
      ELSE (a & 1) + ((b & 1) AND b > a + (a & 1)) END AS n FROM at_order),
  sums AS (SELECT zone, sum(n) AS blocks, sum(n << k) AS pages, sum(CASE WHEN k >= :order THEN n ELSE 0 END) AS fit,
      sum(CASE WHEN k >= :order THEN n << k ELSE 0 END) AS fit_pages FROM free GROUP BY zone)
SELECT z.zone, :at AS x,
  CASE WHEN blocks > 0 AND fit = 0 THEN 1000 - (1000 + pages * 1000 / (1 << :order)) / blocks END AS extfrag_index,
  CASE WHEN pages > 0 THEN (pages - fit_pages) * 1000 / pages ELSE 0 END AS unusable,
  coalesce(pages, 0) AS free_pages
FROM zones z LEFT JOIN sums s ON s.zone = z.zone
ORDER BY z.start
