-- title: Key findings
-- about: Computed from the history, op by op.
-- draw: list
SELECT 1 AS rank, 'warn' AS tone, substr(zone, 6) || ' was the first zone to fall below its min mark: op '
  || op || ' (' || op_name || '), ' || free || ' pages free' AS finding
  FROM (SELECT * FROM event_watermark WHERE machine_id = :machine AND mark = 'MARK_MIN' AND below
        ORDER BY key, idx LIMIT 1)
UNION ALL
SELECT 2, 'note', substr(zone, 6) || ' fell to its ' || lower(substr(mark, 6)) || ' mark '
  || CASE count(*) WHEN 1 THEN 'once, at op ' ELSE count(*) || ' times, first at op ' END || min(op)
  FROM event_watermark WHERE machine_id = :machine AND below GROUP BY zone, mark
UNION ALL
SELECT 3, 'warn', count(*) || ' requests for ' || substr(wanted, 6) || ' were served from '
  || substr(got, 6) || ', first at op ' || min(op) || ' and last at op ' || max(op)
  FROM zone_fallbacks WHERE machine_id = :machine GROUP BY wanted, got
UNION ALL
SELECT 4, 'bad', count(*) || ' allocations of order ' || "order" || ' failed, first at op ' || min(op)
  || ' (free then: DMA ' || free_dma || ', NORMAL ' || free_normal || ', HIGHMEM ' || free_highmem || ' pages)'
  FROM event_alloc_failed WHERE machine_id = :machine GROUP BY "order"
UNION ALL
SELECT 5, 'bad', count(*) || ' ops answered ' || status || ', first ' || name || ' at op ' || min(op)
  FROM op_log WHERE machine_id = :machine AND status <> 'OK' AND op > 0 GROUP BY status
UNION ALL
SELECT 6, 'bad', count(*) || ' deadlocks of sleepers for the pkmap window, first at op ' || min(op)
  FROM event_deadlock WHERE machine_id = :machine HAVING count(*)
UNION ALL
SELECT 7, 'note', 'the pkmap window was flushed ' || count(*) || ' times, first at op ' || min(op)
  FROM event_pkmap_flush WHERE machine_id = :machine HAVING count(*)
UNION ALL
SELECT 8, 'warn', count(*) || ' blocks were taken from the lists of another migratetype, first at op ' || min(op)
  FROM event_steal WHERE machine_id = :machine HAVING count(*)
ORDER BY rank, finding
