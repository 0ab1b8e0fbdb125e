-- title: Zones
-- about: As they came to be, with the marks that hold now. In pages.
-- draw: table
SELECT substr(z.zone, 6) AS zone, z.start AS first_pfn, z.spanned, z.present, z.managed, z.free AS free_at_boot,
  k.min, k.low, k.high
FROM event_zone_ready z LEFT JOIN
  (SELECT zone, min, low, high, max(key * 65536 + idx) FROM event_marks WHERE machine_id = :machine GROUP BY zone) k
  ON k.zone = z.zone
WHERE z.machine_id = :machine AND z.key * 65536 + z.idx =
  (SELECT max(key * 65536 + idx) FROM event_zone_ready WHERE machine_id = :machine AND zone = z.zone)
ORDER BY z.start
