-- title: Who holds memory at the end
-- about: Blocks that were allocated and not freed, by the caller's label. The first hundred.
-- draw: table
SELECT coalesce(owner, '(nobody)') AS owner, substr(zone, 6) AS zone, count(*) AS blocks, sum(pages) AS pages,
  min(from_op) AS first_op, max(from_op) AS last_op
FROM allocations WHERE machine_id = :machine AND live GROUP BY owner, zone ORDER BY pages DESC LIMIT 100
